#!/usr/bin/env bash
# Subject:     istio.io/istio 1.31 development (2026-08-27), operator/pkg/tpath, which applies overlay patches (`path`, `value`)
# One expects: the same patch gives the same object, whether the object was decoded from YAML or from JSON, and `[-1]` appends to a list.
# What is so:  in an object of `map[any]any` (yaml.v2) a list replaces a list; in one of `map[string]any` (JSON) it becomes one more item of
#              the old list. `[-1]` on an absent list makes a list of the second, but of the first a map with the key "[-1]".
# Source:      github.com/istio/istio, operator/pkg/tpath/tree.go
source "$(dirname "$0")/lib.sh"
istio=v0.0.0-20260827124520-eed52ebb66ad
install go:istio.io/istio/operator/pkg/tpath@$istio go:gopkg.in/yaml.v2@v2.4.0 go:sigs.k8s.io/yaml@v1.6.0

cat >main.go <<'GO'
package main

import (
	"encoding/json"
	"fmt"

	yaml2 "gopkg.in/yaml.v2"
	"istio.io/istio/operator/pkg/tpath"
	"istio.io/istio/operator/pkg/util"
	"sigs.k8s.io/yaml"
)

func main() {
	text := []byte(`{"k8s": {"env": [{"name": "A"}]}}`)
	for _, path := range []string{"k8s.env", "k8s.volumes.[-1]"} {
		var value any = map[string]any{"name": "B"}
		if path == "k8s.env" {
			value = []any{value}
		}
		for _, decoded := range []string{"YAML", "JSON"} {
			var object any
			fromYAML, fromJSON := map[any]any{}, map[string]any{}
			var err error
			if decoded == "YAML" {
				err, object = yaml2.Unmarshal(text, &fromYAML), fromYAML
			} else {
				err, object = json.Unmarshal(text, &fromJSON), fromJSON
			}
			if err != nil {
				panic(err)
			}
			context, _, err := tpath.GetPathContext(object, util.PathFromString(path), true)
			if err == nil {
				err = tpath.WritePathContext(context, value)
			}
			if err != nil {
				panic(err)
			}
			result, err := yaml2.Marshal(object)
			if err == nil {
				result, err = yaml.YAMLToJSON(result)
			}
			if err != nil {
				panic(err)
			}
			fmt.Printf("%s, %s: %s\n", path, decoded, result)
		}
	}
}
GO
version "$(go list -m istio.io/istio), $(go env GOVERSION)"
expect "objects after the patch" 'k8s.env, YAML: {"k8s":{"env":[{"name":"B"}]}}
k8s.env, JSON: {"k8s":{"env":[{"name":"A"},[{"name":"B"}]]}}
k8s.volumes.[-1], YAML: {"k8s":{"env":[{"name":"A"}],"volumes":{"[-1]":{"name":"B"}}}}
k8s.volumes.[-1], JSON: {"k8s":{"env":[{"name":"A"}],"volumes":[{"name":"B"}]}}' "$(go run .)"
