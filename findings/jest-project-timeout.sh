#!/usr/bin/env bash
# Subject:     Jest 30.5.2 (npm)
# One expects: `testTimeout` of a project counts for the tests of that project.
# What is so:  it is ignored: with 100 ms in the project, a test of 400 ms passes. At the top of the configuration it counts.
# Source:      github.com/jestjs/jest/issues/9696; jestjs.io/docs/configuration#testtimeout-number
source "$(dirname "$0")/lib.sh"
install npm:node@24.21.0 npm:jest@30.5.2

mkdir slow
cat >slow/slow.test.cjs <<'JS'
test('takes 400 ms', () => new Promise((resolve) => setTimeout(resolve, 400)));
JS
version "Jest $(jest --version), Node $(node --version)"
# result CONFIGURATION: prints whether the test passes.
result() {
  if jest --config "$1" >jest.log 2>&1; then
    echo passes
  else
    grep --only-matching --max-count=1 'Exceeded timeout of 100 ms' jest.log || cat jest.log
  fi
}
project="\"rootDir\": \"$dir/slow\", \"testMatch\": [\"**/*.test.cjs\"]"
expect "testTimeout 100 in the project" passes "$(result "{ \"rootDir\": \"$dir/slow\", \"projects\": [{ $project, \"testTimeout\": 100 }] }")"
expect "testTimeout 100 at the top" "Exceeded timeout of 100 ms" "$(result "{ \"rootDir\": \"$dir/slow\", \"testTimeout\": 100, \"projects\": [{ $project }] }")"
