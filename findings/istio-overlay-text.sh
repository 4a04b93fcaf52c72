#!/usr/bin/env bash
# Subject:     istio.io/istio 1.31 development (2026-08-27), operator/pkg/tpath, which applies overlay patches (`path`, `value`)
# One expects: a patch whose `value` is a string sets a string.
# What is so:  the string is parsed as YAML first. "key: value" becomes a map; in an object decoded from JSON it replaces the patched key
#              itself by `key`. A text that is no YAML, such as a template that begins with `{{-`, stays a string.
# Source:      github.com/istio/istio, operator/pkg/tpath/tree.go
source "$(dirname "$0")/lib.sh"
istio=v0.0.0-20260827124520-eed52ebb66ad
install go:istio.io/istio/operator/pkg/tpath@$istio go:gopkg.in/yaml.v2@v2.4.0 go:sigs.k8s.io/yaml@v1.6.0

cat >main.go <<'GO'
package main

import (
	"fmt"

	yaml2 "gopkg.in/yaml.v2"
	"istio.io/istio/operator/pkg/tpath"
	"istio.io/istio/operator/pkg/util"
	"sigs.k8s.io/yaml"
)

func main() {
	for _, value := range []string{"plain", "key: value", "{{- with secret }}a: b{{ end }}"} {
		for decoded, object := range []any{
			map[any]any{"annotations": map[any]any{"note": "old"}},
			map[string]any{"annotations": map[string]any{"note": "old"}},
		} {
			context, _, err := tpath.GetPathContext(object, util.PathFromString("annotations.note"), true)
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
			fmt.Printf("%s, %s: %s\n", value, []string{"YAML", "JSON"}[decoded], result)
		}
	}
}
GO
version "$(go list -m istio.io/istio), $(go env GOVERSION)"
expect "objects after the patch" 'plain, YAML: {"annotations":{"note":"plain"}}
plain, JSON: {"annotations":{"note":"plain"}}
key: value, YAML: {"annotations":{"note":{"key":"value"}}}
key: value, JSON: {"annotations":{"key":"value"}}
{{- with secret }}a: b{{ end }}, YAML: {"annotations":{"note":"{{- with secret }}a: b{{ end }}"}}
{{- with secret }}a: b{{ end }}, JSON: {"annotations":{"note":"{{- with secret }}a: b{{ end }}"}}' "$(go run .)"
