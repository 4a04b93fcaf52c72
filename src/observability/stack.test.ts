/** Source files in stacks of the bundled program. */
import { expect, it } from '@jest/globals';
import { partsOf, withFiles } from './stack.ts';

const url = 'file:///app/main.js';
const bundle = [
  'import { createRequire } from "node:module";',
  '',
  '// node_modules/yaml/index.js',
  'function parse() {}',
  '',
  '// src/vault/observe.ts',
  'async function observe() {',
  '  // src/not/a/module.ts',
  '}',
].join('\n');

it('a frame of the bundle gets the file of its module, and keeps its position', () => {
  const stack = [
    'Error: no issuer',
    `    at observe (${url}:8:3)`,
    `    at async ${url}:4:12`,
    `    at ${url}:1:1`,
    '    at node:internal/main:1:2',
    '    at other (file:///app/main.js.other:8:3)',
  ];
  expect(withFiles(stack.join('\n'), url, partsOf(bundle)).split('\n')).toEqual([
    'Error: no issuer',
    `    at observe (src/vault/observe.ts, ${url}:8:3)`,
    `    at async node_modules/yaml/index.js, ${url}:4:12`,
    ...stack.slice(3),
  ]);
});

it('without a bundle a stack stays as it is', () => {
  expect(withFiles(`at observe (${url}:8:3)`, url, [])).toBe(`at observe (${url}:8:3)`);
});
