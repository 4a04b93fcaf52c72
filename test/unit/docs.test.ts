import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { expiryReason, reasons } from '../../src/api/conditions.ts';
import { podReasons } from '../../src/api/istiod.ts';
import { customResourceDefinition } from '../../src/api/crd.ts';
import { loadAllYaml } from '../../src/runtime/yaml.ts';

const read = (path: string) => readFileSync(join(import.meta.dirname, '../..', path), 'utf8');

describe('docs/troubleshooting.md', () => {
  const headings = [...read('docs/troubleshooting.md').matchAll(/^## (\S+)$/gm)].map(([, name]) => name);

  it.each([...new Set([...Object.keys(reasons), ...Object.values(expiryReason)])])('has a section for %s', (reason) => {
    expect(headings.filter((heading) => heading === reason)).toEqual([reason]);
  });

  it.each(podReasons)('explains %s of a replica', (reason) => {
    expect(read('docs/troubleshooting.md')).toContain(`\`${reason}\``);
  });
});

describe('crds/istiovaultcas.yaml', () => {
  const text = read('crds/istiovaultcas.yaml');

  it('is the CRD of the schema', () => {
    expect(loadAllYaml(text)).toEqual([customResourceDefinition()]);
  });

  it('fits into the annotation of kubectl apply', () => {
    expect(Buffer.byteLength(text)).toBeLessThan(262_144);
  });
});

describe('docs/security.md', () => {
  const rows = read('docs/security.md')
    .split('## Threats')[1]
    ?.split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| threat'));

  it.each(rows ?? [])('names tests that exist: %s', (row) => {
    const tests = [...row.matchAll(/`((?:src|test)\/[^`]+\.ts)`/g)].map(([, path = '']) => path);
    expect(tests.length).toBeGreaterThan(0);
    expect(tests.filter((path) => !existsSync(join(import.meta.dirname, '../..', path)))).toEqual([]);
  });
});
