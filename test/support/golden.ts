/** Golden files: the result of a test as YAML in `test/golden`. `UPDATE_GOLDEN=1` rewrites them; review the difference before committing it. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect } from '@jest/globals';
import { dumpYaml, loadYaml } from '../../src/runtime/yaml.ts';

/** @param name file name without its extension; can contain slashes */
export function expectGolden(name: string, value: unknown): void {
  const file = join(import.meta.dirname, '..', 'golden', `${name}.yaml`);
  if (process.env['UPDATE_GOLDEN'] === '1') {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, dumpYaml(value));
  }
  if (!existsSync(file)) throw new Error(`no golden file ${name}: run once with UPDATE_GOLDEN=1 and read what it says`);
  expect(value).toEqual(loadYaml(readFileSync(file, 'utf8')));
}
