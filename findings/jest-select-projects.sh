#!/usr/bin/env bash
# Subject:     Jest 30.5.2 (npm), command line
# One expects: `jest --selectProjects unit parse` runs the test files of project unit whose path contains "parse", as `jest parse` does of all.
# What is so:  the option takes every word up to the next option for a project's name: all files of unit run. A pattern goes before the option,
#              or after another one such as `--testPathPatterns`.
# Source:      jestjs.io/docs/cli#--selectprojects-project1--projectn
source "$(dirname "$0")/lib.sh"
install npm:node@24.21.0 npm:jest@30.5.2

mkdir tests
for name in parse render; do echo "test('$name', () => {});" >"tests/$name.test.cjs"; done
cat >jest.config.cjs <<'JS'
const rootDir = `${__dirname}/tests`;
module.exports = { rootDir, projects: [{ displayName: 'unit', rootDir, testMatch: ['**/*.test.cjs'] }] };
JS
version "Jest $(jest --version), Node $(node --version)"
# files ARGUMENT…: prints how many test files run.
files() { jest "$@" 2>&1 | grep --count PASS; }
expect "test files of: --selectProjects unit parse" 2 "$(files --selectProjects unit parse)"
expect "test files of: parse --selectProjects unit" 1 "$(files parse --selectProjects unit)"
