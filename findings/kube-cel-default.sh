#!/usr/bin/env bash
# Subject:     k8s.io/apiextensions-apiserver 0.34.4, validation of a CustomResourceDefinition
# One expects: a CEL rule of an object sees it with all defaults filled in, so with `default: {}` and a default for `size` the rule
#              `self.size > 0` holds.
# What is so:  in requests it does, but when the definition is created, `default: {}` is evaluated as it stands, before nested defaults:
#              "no such key: size", and the API server refuses the definition. The rule must ask `has(self.size)` first, or the default
#              must spell out its fields.
# Source:      github.com/kubernetes/apiextensions-apiserver, pkg/apis/apiextensions/validation/validation.go and
#              pkg/apiserver/schema/defaulting/validation.go
source "$(dirname "$0")/lib.sh"
install go:k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation@v0.34.4 \
  go:k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install@v0.34.4

cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

const definition = `{
  "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"},
  "spec": {
    "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
    "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
      "type": "object",
      "properties": {"spec": {
        "type": "object",
        "default": DEFAULT,
        "x-kubernetes-validations": [{"rule": "RULE"}],
        "properties": {"size": {"type": "integer", "default": 1}}}}}}}]}}`

func main() {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	decoder := serializer.NewCodecFactory(scheme).UniversalDecoder(apiextensions.SchemeGroupVersion)
	for _, example := range [][2]string{
		{`{}`, `self.size > 0`},
		{`{}`, `!has(self.size) || self.size > 0`},
		{`{"size": 1}`, `self.size > 0`},
	} {
		text := strings.NewReplacer("DEFAULT", example[0], "RULE", example[1]).Replace(definition)
		object, _, err := decoder.Decode([]byte(text), nil, nil)
		if err != nil {
			panic(err)
		}
		errors := validation.ValidateCustomResourceDefinition(context.Background(), object.(*apiextensions.CustomResourceDefinition))
		fmt.Printf("default %s, rule %s: %d errors\n", example[0], example[1], len(errors))
		for _, err := range errors {
			fmt.Printf("  %v\n", err)
		}
	}
}
GO
version "$(go list -m k8s.io/apiextensions-apiserver), $(go env GOVERSION)"
expect "definitions" 'default {}, rule self.size > 0: 1 errors
  spec.validation.openAPIV3Schema.properties[spec].default: Invalid value: "object": no such key: size evaluating rule: self.size > 0
default {}, rule !has(self.size) || self.size > 0: 0 errors
default {"size": 1}, rule self.size > 0: 0 errors' "$(go run .)"
