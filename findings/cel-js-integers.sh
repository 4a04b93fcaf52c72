#!/usr/bin/env bash
# Subject:     @marcbachmann/cel-js 8.0.0
# One expects: a whole number of a parsed JSON document is an int, as in the rules of a CustomResourceDefinition, where `self.size / 2` works for
#              a field of type integer.
# What is so:  every JavaScript number is a double. Comparisons with literals hold all the same, so most rules work, but arithmetic with a
#              literal fails: "no such overload: dyn<double> / int". A BigInt is an int. Sizes and literals are BigInts in results.
# Source:      www.npmjs.com/package/@marcbachmann/cel-js; github.com/google/cel-spec, doc/langdef.md, "Numeric Values"
source "$(dirname "$0")/lib.sh"
install npm:@marcbachmann/cel-js@8.0.0

cat >main.mjs <<'JS'
import { evaluate } from '@marcbachmann/cel-js';
const look = (text, self) => {
  try {
    const value = evaluate(text, { self });
    return `${typeof value} ${value}`;
  } catch (error) {
    return error.message.split('\n')[0];
  }
};
const number = JSON.parse('{"size": 6}');
const bigint = { size: 6n };
for (const text of ['self.size == 6', 'self.size > 5', 'self.size / 2', 'self.size % 2 == 0', 'int(self.size) / 2'])
  console.log(`${text}: of a number: ${look(text, number)}; of a BigInt: ${look(text, bigint)}`);
JS
version "@marcbachmann/cel-js $(jq -r .version node_modules/@marcbachmann/cel-js/package.json), Node $(node --version)"
expect "results" 'self.size == 6: of a number: boolean true; of a BigInt: boolean true
self.size > 5: of a number: boolean true; of a BigInt: boolean true
self.size / 2: of a number: no such overload: dyn<double> / int; of a BigInt: bigint 3
self.size % 2 == 0: of a number: no such overload: dyn<double> % int; of a BigInt: boolean true
int(self.size) / 2: of a number: bigint 3; of a BigInt: bigint 3' "$(node main.mjs)"
