// Command istio-overlay answers what Istio makes of patches of an IstioOperator, with Istio's own path library.
//
// Each line on standard input is a question {"base": object, "patches": [{"path", "value"}]}, each on standard output
// its answer {"yaml": outcome, "json": outcome}: the base as map[any]any, as Istio's operator reads it from YAML, and
// as map[string]any. An outcome has the object, what the library said about each patch ("" for nothing), and "pod":
// the variables and annotations that istiod's pod gets of the object.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"

	yaml2 "gopkg.in/yaml.v2"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"istio.io/istio/operator/pkg/tpath"
	"istio.io/istio/operator/pkg/util"
)

type patch struct {
	Path  string `json:"path"`
	Value any    `json:"value"`
}

type question struct {
	Base    map[string]any `json:"base"`
	Patches []patch        `json:"patches"`
}

type pod struct {
	Env         []any          `json:"env"`
	Annotations map[string]any `json:"annotations"`
	// Why the pod could not be made of the object.
	Error string `json:"error,omitempty"`
}

type outcome struct {
	Object any      `json:"object"`
	Errors []string `json:"errors"`
	Pod    pod      `json:"pod"`
}

type answer struct {
	YAML outcome `json:"yaml"`
	JSON outcome `json:"json"`
}

// apply is one turn of the loop of applyPatches in Istio's operator/pkg/render/postprocess.go.
func apply(base any, p patch) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	inc, _, err := tpath.GetPathContext(base, util.PathFromString(p.Path), true)
	if err != nil {
		return err
	}
	return tpath.WritePathContext(inc, p.Value)
}

func applyAll(base any, patches []patch) []string {
	said := make([]string, len(patches))
	for i, p := range patches {
		if err := apply(base, p); err != nil {
			said[i] = err.Error()
		}
	}
	return said
}

func asYAML(q question) (outcome, error) {
	text, err := yaml2.Marshal(q.Base)
	if err != nil {
		return outcome{}, err
	}
	base := map[any]any{}
	if err := yaml2.Unmarshal(text, &base); err != nil {
		return outcome{}, err
	}
	said := applyAll(base, q.Patches)
	if text, err = yaml2.Marshal(base); err != nil {
		return outcome{}, err
	}
	var object map[string]any
	if err := yaml.Unmarshal(text, &object); err != nil {
		return outcome{}, err
	}
	return outcome{object, said, podOf(object)}, nil
}

func asJSON(q question) (outcome, error) {
	said := applyAll(q.Base, q.Patches)
	text, err := json.Marshal(q.Base)
	if err != nil {
		return outcome{}, err
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		return outcome{}, err
	}
	return outcome{object, said, podOf(object)}, nil
}

func get(object any, path ...string) (any, bool) {
	for _, key := range path {
		m, ok := object.(map[string]any)
		if !ok {
			return nil, false
		}
		if object, ok = m[key]; !ok {
			return nil, false
		}
	}
	return object, true
}

// podOf does as the chart of istiod with spec.values.pilot, and as postProcess with spec.components.pilot.k8s.
func podOf(object map[string]any) pod {
	fromValues, _ := get(object, "spec", "values", "pilot", "env")
	values, _ := fromValues.(map[string]any)
	env := []any{}
	for name, value := range values {
		env = append(env, map[string]any{"name": name, "value": fmt.Sprint(value)})
	}
	sort.Slice(env, func(i, k int) bool {
		return env[i].(map[string]any)["name"].(string) < env[k].(map[string]any)["name"].(string)
	})
	annotations, _ := get(object, "spec", "values", "pilot", "podAnnotations")
	template := func(annotations, env any) map[string]any {
		container := map[string]any{"name": "discovery", "env": env}
		spec := map[string]any{"containers": []any{container}}
		return map[string]any{"spec": map[string]any{
			"template": map[string]any{"metadata": map[string]any{"annotations": annotations}, "spec": spec},
		}}
	}
	deployment, err := json.Marshal(template(annotations, env))
	for field, patched := range map[string]func(any) map[string]any{
		"env": func(v any) map[string]any {
			full := template(nil, v)
			delete(full["spec"].(map[string]any)["template"].(map[string]any), "metadata")
			return full
		},
		"podAnnotations": func(v any) map[string]any {
			full := template(v, nil)
			delete(full["spec"].(map[string]any)["template"].(map[string]any), "spec")
			return full
		},
	} {
		value, ok := get(object, "spec", "components", "pilot", "k8s", field)
		if !ok || err != nil {
			continue
		}
		var text []byte
		if text, err = json.Marshal(patched(value)); err == nil {
			deployment, err = strategicpatch.StrategicMergePatch(deployment, text, &appsv1.Deployment{})
		}
	}
	var result appsv1.Deployment
	if err == nil {
		err = json.Unmarshal(deployment, &result)
	}
	if err != nil {
		return pod{Error: err.Error()}
	}
	out := pod{Env: []any{}, Annotations: map[string]any{}}
	for _, container := range result.Spec.Template.Spec.Containers {
		for _, variable := range container.Env {
			out.Env = append(out.Env, variable)
		}
	}
	for name, value := range result.Spec.Template.Annotations {
		out.Annotations[name] = value
	}
	return out
}

func answerTo(line []byte) (answer, error) {
	var a answer
	for i, read := range []func(question) (outcome, error){asYAML, asJSON} {
		// anew for each: patches put their values into the object itself, and later ones change them there
		var q question
		if err := json.Unmarshal(line, &q); err != nil {
			return a, err
		}
		got, err := read(q)
		if err != nil {
			return a, err
		}
		if i == 0 {
			a.YAML = got
		} else {
			a.JSON = got
		}
	}
	return a, nil
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		a, err := answerTo(line)
		if err == nil {
			err = out.Encode(a)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
