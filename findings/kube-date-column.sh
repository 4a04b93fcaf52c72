#!/usr/bin/env bash
# Subject:     k8s.io/apiextensions-apiserver 0.34.4, printer columns of a CustomResourceDefinition
# One expects: a column of type `date` shows the date, such as the one on which a certificate ends.
# What is so:  the API server turns it into an age before kubectl sees it: a date in the past shows how long ago it was, a date in the future
#              `<invalid>`. A date to come needs a column of type `string`.
# Source:      kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions, "Additional printer columns";
#              github.com/kubernetes/apiextensions-apiserver, pkg/registry/customresource/tableconvertor/tableconvertor.go
source "$(dirname "$0")/lib.sh"
install go:k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor@v0.34.4

cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func main() {
	convertor, err := tableconvertor.New([]v1.CustomResourceColumnDefinition{
		{Name: "Past", Type: "date", JSONPath: ".status.past"},
		{Name: "Future", Type: "date", JSONPath: ".status.future"},
		{Name: "Text", Type: "string", JSONPath: ".status.future"},
	})
	if err != nil {
		panic(err)
	}
	at := func(from time.Duration) string { return time.Now().Add(from).UTC().Format(time.RFC3339) }
	year := 365 * 24 * time.Hour
	table, err := convertor.ConvertToTable(context.Background(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1",
		"kind":       "Example",
		"metadata":   map[string]any{"name": "example"},
		"status":     map[string]any{"past": at(-3 * year), "future": at(3 * year)},
	}}, nil)
	if err != nil {
		panic(err)
	}
	cells := table.Rows[0].Cells
	fmt.Printf("past %v, future %v, future as string has the year %v\n", cells[1], cells[2], cells[3].(string)[:2] == "20")
}
GO
version "$(go list -m k8s.io/apiextensions-apiserver), $(go env GOVERSION)"
expect "cells" "past 3y, future <invalid>, future as string has the year true" "$(go run .)"
