#!/usr/bin/env bash
# Subject:     kstatus of sigs.k8s.io/cli-utils 0.37.2, which decides for Flux whether a resource is ready
# One expects: a custom resource is ready when its condition Ready is True, failed when it is False, and not ready before there is a status.
# What is so:  without a status it is Current at once, so a tool goes on before the controller has seen it. Ready=False is InProgress for ever,
#              whatever the reason; only Stalled=True is Failed. If Reconciling=True stands beside it, the first of the two in the list decides.
# Source:      github.com/kubernetes-sigs/cli-utils, pkg/kstatus/README.md and pkg/kstatus/status/generic.go
source "$(dirname "$0")/lib.sh"
install go:sigs.k8s.io/cli-utils/pkg/kstatus/status@v0.37.2

cat >main.go <<'GO'
package main

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	condition := func(kind, value string) any {
		return map[string]any{"type": kind, "status": value, "reason": "Example", "message": ""}
	}
	for _, example := range []struct {
		name       string
		conditions []any
	}{
		{"no status", nil},
		{"Ready=False", []any{condition("Ready", "False")}},
		{"Ready=False Stalled=True", []any{condition("Ready", "False"), condition("Stalled", "True")}},
		{"Stalled=True Reconciling=True", []any{condition("Stalled", "True"), condition("Reconciling", "True")}},
		{"Reconciling=True Stalled=True", []any{condition("Reconciling", "True"), condition("Stalled", "True")}},
		{"Ready=True", []any{condition("Ready", "True")}},
	} {
		object := map[string]any{
			"apiVersion": "example.com/v1",
			"kind":       "Example",
			"metadata":   map[string]any{"name": "example", "namespace": "default", "generation": int64(1)},
		}
		if example.conditions != nil {
			object["status"] = map[string]any{"observedGeneration": int64(1), "conditions": example.conditions}
		}
		result, err := status.Compute(&unstructured.Unstructured{Object: object})
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s: %s\n", example.name, result.Status)
	}
}
GO
version "$(go list -m sigs.k8s.io/cli-utils), $(go env GOVERSION)"
expect "statuses" 'no status: Current
Ready=False: InProgress
Ready=False Stalled=True: Failed
Stalled=True Reconciling=True: Failed
Reconciling=True Stalled=True: InProgress
Ready=True: Current' "$(go run .)"
