#!/usr/bin/env bash
# Subject:     cel-go 0.31.0, the CEL of Kubernetes validation rules and of Flux's health checks
# One expects: `&&` and `||` evaluate from left to right and stop at an error, as in most languages; and `has(status)` tells whether there
#              is a status.
# What is so:  `||` and `&&` are commutative: an error on either side is absorbed if the other side decides. `exists` is built on `||`, so a
#              condition without the field fails the expression only as long as no other condition matches. `has()` takes a field
#              selection only: a variable of the top level, as Flux's `status`, cannot be tested and does not even compile.
# Source:      github.com/google/cel-spec, doc/langdef.md, "Logical Operators" and "Field Selection"
source "$(dirname "$0")/lib.sh"
install go:github.com/google/cel-go/cel@v0.31.0

cat >main.go <<'GO'
package main

import (
	"fmt"

	"github.com/google/cel-go/cel"
)

func main() {
	env, err := cel.NewEnv(cel.Variable("status", cel.DynType), cel.Variable("conditions", cel.DynType))
	if err != nil {
		panic(err)
	}
	without := map[string]any{"type": "Ready"}
	with := map[string]any{"type": "Ready", "observedGeneration": 2}
	lists := []map[string]any{
		{"conditions": []any{without}},
		{"conditions": []any{without, with}},
	}
	for _, text := range []string{
		`conditions[0].observedGeneration == 2 || true`,
		`true || conditions[0].observedGeneration == 2`,
		`conditions.exists(c, c.observedGeneration == 2)`,
		`has(status)`,
	} {
		ast, issues := env.Compile(text)
		if issues.Err() != nil {
			fmt.Printf("%s: does not compile\n", text)
			continue
		}
		program, err := env.Program(ast)
		if err != nil {
			panic(err)
		}
		for i, variables := range lists {
			value, _, err := program.Eval(variables)
			if err != nil {
				fmt.Printf("%s of list %d: error %v\n", text, i+1, err)
				continue
			}
			fmt.Printf("%s of list %d: %v\n", text, i+1, value)
		}
	}
}
GO
version "$(go list -m github.com/google/cel-go), $(go env GOVERSION)"
expect "results, the second list has a condition that matches" 'conditions[0].observedGeneration == 2 || true of list 1: true
conditions[0].observedGeneration == 2 || true of list 2: true
true || conditions[0].observedGeneration == 2 of list 1: true
true || conditions[0].observedGeneration == 2 of list 2: true
conditions.exists(c, c.observedGeneration == 2) of list 1: error no such key: observedGeneration
conditions.exists(c, c.observedGeneration == 2) of list 2: true
has(status): does not compile' "$(go run .)"
