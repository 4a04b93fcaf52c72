#!/usr/bin/env bash
# Subject:     strategic merge patch of k8s.io/apimachinery 0.34.4, which merges `components.pilot.k8s.env` of an IstioOperator
# One expects: an item of the patch replaces the variable of that name, so one with nothing but a name makes it empty.
# What is so:  items are merged field by field: one with nothing but a name changes nothing, and one with `valueFrom` leaves the old `value`
#              beside it, which an API server then refuses. `value: null` removes the value. Of two items with one name the last wins.
# Source:      github.com/kubernetes/community, contributors/devel/sig-api-machinery/strategic-merge-patch.md;
#              github.com/istio/istio, operator/pkg/render/postprocess.go
source "$(dirname "$0")/lib.sh"
install go:k8s.io/apimachinery/pkg/util/strategicpatch@v0.34.4 go:k8s.io/api/core/v1@v0.34.4

cat >main.go <<'GO'
package main

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

func main() {
	container := []byte(`{"env":[{"name":"A","value":"1"}]}`)
	for _, item := range []string{
		`{"name":"A"}`,
		`{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}`,
		`{"name":"A","value":null}`,
		`{"name":"A","value":"2"},{"name":"A","value":"3"}`,
	} {
		merged, err := strategicpatch.StrategicMergePatch(container, []byte(`{"env":[`+item+`]}`), v1.Container{})
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s\n  gives %s\n", item, merged)
	}
}
GO
version "$(go list -m k8s.io/apimachinery), $(go env GOVERSION)"
expect "patches of A=1" '{"name":"A"}
  gives {"env":[{"name":"A","value":"1"}]}
{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}
  gives {"env":[{"name":"A","value":"1","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}]}
{"name":"A","value":null}
  gives {"env":[{"name":"A"}]}
{"name":"A","value":"2"},{"name":"A","value":"3"}
  gives {"env":[{"name":"A","value":"3"}]}' "$(go run .)"
