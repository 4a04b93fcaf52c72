// gitops-health tells what GitOps tools make of objects, with the libraries that they are made of. It reads one object
// as JSON a line, and writes one line for each: what kstatus says (sigs.k8s.io/cli-utils, as in Flux without
// expressions), what Argo CD's health check says (the Lua file, run as Argo CD runs it unless told to open libraries),
// and what Flux says with healthCheckExprs (cel-go). An error is "Unknown", as both tools have it.
//
// Usage: gitops-health health.lua '{"inProgress": "…", "failed": "…", "current": "…"}' < objects.jsonl
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type health struct {
	Status  string `json:"status"`
	Message string `json:"message,omitempty"`
}

type verdict struct {
	Kstatus string `json:"kstatus"`
	Argo    health `json:"argo"`
	Flux    health `json:"flux"`
}

func unknown(err error) health { return health{Status: "Unknown", Message: err.Error()} }

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gitops-health:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: gitops-health health.lua expressions-as-json")
	}
	script, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	check, err := newFluxCheck(args[1])
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	answers := json.NewEncoder(out)
	for lines.Scan() {
		// integers must be int64, as the tools have them
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(lines.Bytes()); err != nil {
			return err
		}
		computed, err := status.Compute(object)
		if err != nil {
			return err
		}
		answer := verdict{computed.Status.String(), argoHealth(string(script), object), check.evaluate(object)}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

// argoHealth opens what Argo CD opens by itself: require, the base functions and table. There is no string and no math;
// Argo CD's cut-down os is left out, as the script needs none.
func argoHealth(script string, object *unstructured.Unstructured) health {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	vm := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer vm.Close()
	vm.SetContext(ctx)
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		if err := vm.CallByParam(lua.P{Fn: vm.NewFunction(library.open), Protect: true}, lua.LString(library.name)); err != nil {
			return unknown(err)
		}
	}
	vm.SetGlobal("obj", toLua(vm, object.Object))
	if err := vm.DoString(script); err != nil {
		return unknown(err)
	}
	result, ok := vm.Get(-1).(*lua.LTable)
	if !ok {
		return unknown(fmt.Errorf("the script returns no table but a %s", vm.Get(-1).Type()))
	}
	said := health{lua.LVAsString(result.RawGetString("status")), lua.LVAsString(result.RawGetString("message"))}
	switch said.Status {
	case "Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown":
		return said
	}
	return unknown(fmt.Errorf("the script returns status %q", said.Status))
}

func toLua(vm *lua.LState, value any) lua.LValue {
	switch v := value.(type) {
	case map[string]any:
		table := vm.NewTable()
		for key, item := range v {
			table.RawSetString(key, toLua(vm, item))
		}
		return table
	case []any:
		table := vm.NewTable()
		for _, item := range v {
			table.Append(toLua(vm, item))
		}
		return table
	case string:
		return lua.LString(v)
	case bool:
		return lua.LBool(v)
	case int64:
		return lua.LNumber(v)
	case float64:
		return lua.LNumber(v)
	}
	return lua.LNil
}

// fluxCheck has the three expressions in the order in which Flux asks them.
type fluxCheck []struct {
	says    status.Status
	program cel.Program
}

func newFluxCheck(text string) (fluxCheck, error) {
	var expressions struct{ InProgress, Failed, Current string }
	if err := json.Unmarshal([]byte(text), &expressions); err != nil {
		return nil, err
	}
	// the environment of Flux: parsed only, so every field of the object is a variable, and none is declared
	env, err := cel.NewEnv(
		cel.HomogeneousAggregateLiterals(), cel.EagerlyValidateDeclarations(true), cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true), cel.OptionalTypes(), ext.Strings(), ext.Sets(), ext.Encoders(),
	)
	if err != nil {
		return nil, err
	}
	check := make(fluxCheck, 3)
	for i, text := range []string{expressions.InProgress, expressions.Failed, expressions.Current} {
		check[i].says = []status.Status{status.InProgressStatus, status.FailedStatus, status.CurrentStatus}[i]
		if text == "" {
			continue
		}
		tree, issues := env.Parse(text)
		if issues.Err() != nil {
			return nil, issues.Err()
		}
		if check[i].program, err = env.Program(tree, cel.EvalOptions(cel.OptOptimize)); err != nil {
			return nil, err
		}
	}
	return check, nil
}

func (c fluxCheck) evaluate(object *unstructured.Unstructured) health {
	// before the expressions Flux compares the generations itself, where there are two
	observed, found, err := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	if err != nil {
		return unknown(err)
	}
	if found && observed != object.GetGeneration() {
		return health{Status: status.InProgressStatus.String()}
	}
	for _, one := range c {
		if one.program == nil {
			continue
		}
		value, _, err := one.program.Eval(object.Object)
		if err != nil {
			return unknown(err)
		}
		holds, ok := value.(types.Bool)
		if !ok {
			return unknown(fmt.Errorf("the expression for %s gives no boolean", one.says))
		}
		if holds {
			return health{Status: one.says.String()}
		}
	}
	return health{Status: status.InProgressStatus.String()}
}
