#!/usr/bin/env bash
# Subject:     Jest 30.5.2 (npm), environment node
# One expects: `structuredClone(value)` inside a test makes a value like one that the test writes itself.
# What is so:  the clone belongs to another realm: it is no `instanceof Object`, its list no `instanceof Array`, and `node:assert`'s
#              deepStrictEqual refuses it with two texts that look the same. Jest's own `toEqual` and `toStrictEqual` do not show it.
# Source:      jestjs.io/docs/configuration#testenvironment-string (the node environment runs tests in a vm context of its own)
source "$(dirname "$0")/lib.sh"
install npm:node@24.21.0 npm:jest@30.5.2

mkdir tests
cat >tests/clone.test.cjs <<'JS'
const assert = require('node:assert');
const value = { list: [1] };
const clone = structuredClone(value);
const holds = (check) => {
  try {
    check();
    return true;
  } catch {
    return false;
  }
};
test('prints', () => {
  console.log(
    'FOUND',
    clone instanceof Object,
    clone.list instanceof Array,
    holds(() => expect(clone).toEqual(value)),
    holds(() => expect(clone).toStrictEqual(value)),
    holds(() => assert.deepStrictEqual(clone, value)),
  );
});
JS
version "Jest $(jest --version), Node $(node --version)"
jest --config "{ \"rootDir\": \"$dir/tests\", \"testMatch\": [\"**/*.test.cjs\"] }" >jest.log 2>&1 || { cat jest.log && exit 1; }
grep --only-matching 'FOUND.*' jest.log >found
expect "instanceof Object, instanceof Array, toEqual, toStrictEqual, deepStrictEqual" "FOUND false false true true false" "$(cat found)"
