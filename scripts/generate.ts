/** Writes the generated files (`npm run crd:generate`); with --check fails when one differs from what it should be. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { customResourceDefinition } from '../src/api/crd.ts';
import { dumpYaml } from '../src/kube/yaml.ts';

const top = join(import.meta.dirname, '..');
const generated: Record<string, string> = {
  'crds/istiovaultcas.yaml': `# Generated from src/api/schema.ts by "npm run crd:generate"; do not edit.\n${dumpYaml(customResourceDefinition())}`,
};

const stale: string[] = [];
for (const [name, content] of Object.entries(generated)) {
  const path = join(top, name);
  if (!process.argv.includes('--check')) await writeFile(path, content);
  else if ((await readFile(path, 'utf8').catch(() => '')) !== content) stale.push(name);
}
if (stale.length > 0) {
  process.stderr.write(`Out of date: ${stale.join(', ')}. Run "npm run crd:generate".\n`);
  process.exitCode = 1;
}
