#!/usr/bin/env bash
# Subject:     @marcbachmann/cel-js 8.0.0, beside cel-go 0.31.0, the CEL of Kubernetes
# One expects: a validation rule with `matches` says the same in both: CEL takes the syntax of RE2.
# What is so:  cel-js hands the pattern to JavaScript's RegExp. Classes of POSIX are another class there, without an error: `[[:alpha:]]+`
#              matches no letter but for those in its name, and a `]` behind it. A flag such as `(?i)` is an error, and `\pL` matches the text
#              "pL". What both read alike are ranges: `[A-Za-z]`.
# Source:      github.com/google/cel-spec, doc/langdef.md, "Regular Expressions"; github.com/google/re2, doc/syntax.txt; www.npmjs.com/package/@marcbachmann/cel-js
source "$(dirname "$0")/lib.sh"
install npm:@marcbachmann/cel-js@8.0.0 go:github.com/google/cel-go/cel@v0.31.0

cat >expressions <<'TXT'
"abc".matches("^[A-Za-z]+$")
"abc".matches("^[[:alpha:]]+$")
"a]".matches("^[[:alpha:]]+$")
"abc".matches("^\\pL+$")
"ABC".matches("(?i)^abc$")
TXT

cat >main.go <<'GO'
package main

import (
	"bufio"
	"fmt"
	"os"

	"github.com/google/cel-go/cel"
)

func main() {
	env, err := cel.NewEnv()
	if err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		ast, issues := env.Compile(lines.Text())
		if issues.Err() != nil {
			panic(issues.Err())
		}
		program, err := env.Program(ast)
		if err != nil {
			panic(err)
		}
		value, _, err := program.Eval(map[string]any{})
		if err != nil {
			panic(err)
		}
		fmt.Println(value)
	}
}
GO
cat >main.mjs <<'JS'
import { readFileSync } from 'node:fs';
import { evaluate } from '@marcbachmann/cel-js';
for (const text of readFileSync(0, 'utf8').trim().split('\n')) {
  try {
    console.log(evaluate(text));
  } catch (error) {
    console.log(error.message.split(/[:\n]/)[0]);
  }
}
JS
version "@marcbachmann/cel-js $(jq -r .version node_modules/@marcbachmann/cel-js/package.json), Node $(node --version), $(go list -m github.com/google/cel-go)"
cat expressions
expect "cel-go" 'true
true
false
true
true' "$(go run . <expressions)"
expect "cel-js" 'true
false
true
false
Invalid regular expression' "$(node main.mjs <expressions)"
