import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { execFile } from 'node:child_process';
import { mkdtempSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { rows, type Row } from '../../scripts/dependency-rules.mjs';

const top = join(import.meta.dirname, '..', '..');
const cli = join(top, 'node_modules', '.bin', 'depcruise');

interface Violation {
  from: string;
  rule: { name: string };
}

/** Runs the linter's command over the folder `src` of a tree. */
async function violationsIn(tree: string): Promise<Violation[]> {
  const args = [cli, '--config', join(top, 'scripts', 'dependency-rules.mjs'), '--output-type', 'json', 'src'];
  // exit code 0 with this output type, however many violations there are
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: tree, maxBuffer: 1 << 26 });
  return (JSON.parse(stdout) as { summary: { violations: Violation[] } }).summary.violations;
}

/** The folder deep in that of a row in which the test puts a file; rows about files that lie directly in a folder apply to nothing deeper. */
const placeOf = ({ folder }: Row): string => (folder === 'src/plan' ? folder : `${folder}/deep/deeper`);

/** Something of `src` that the files of a row may not import. */
function forbiddenFor({ folder, imports }: Row): string {
  const candidates = ['src/cli/x.ts', ...rows.map((row) => `${row.folder}/x.ts`)];
  const allowed = [...imports, folder].map((path) => (path.endsWith('.ts') ? path : `${path}/`));
  const found = candidates.filter((path) => !allowed.some((one) => path.startsWith(one)));
  return found[found.length - 1]!;
}

describe('imports', () => {
  let tree = '';
  let found: Violation[] = [];
  beforeAll(async () => {
    tree = mkdtempSync(join(tmpdir(), 'istio-vault-ca-imports-'));
    symlinkSync(join(top, 'node_modules'), join(tree, 'node_modules'));
    const write = (path: string, text: string) => {
      mkdirSync(dirname(join(tree, path)), { recursive: true });
      writeFileSync(join(tree, path), text);
    };
    for (const row of rows) {
      write(`${row.folder}/x.ts`, 'export const x = 1;\n');
      const place = placeOf(row);
      const to = relative(place, forbiddenFor(row));
      write(`${place}/folder.ts`, `import { x } from '${to}';\nexport const y = x;\n`);
      write(`${place}/type.ts`, `import type { x } from '${to}';\nexport type Y = typeof x;\n`);
      write(`${place}/package.ts`, "import 'typescript';\n");
      write(`${place}/node.ts`, "import 'node:child_process';\n");
    }
    write('src/cli/x.ts', "import './y.ts';\nexport const x = 1;\n");
    write('src/cli/y.ts', "import './x.ts';\n");
    found = await violationsIn(tree);
  });
  afterAll(() => rmSync(tree, { recursive: true, force: true }));

  test.each(rows.map((row) => [row.folder, row] as const))(
    '%s: what its row does not allow is an error',
    (folder, row) => {
      const broken = (file: string) =>
        found.filter(({ from }) => from === `${placeOf(row)}/${file}`).map(({ rule }) => rule.name);
      expect(broken('folder.ts')).toContain(`${folder} imports another folder`);
      expect(broken('type.ts')).toContain(`${folder} imports another folder`);
      expect(broken('package.ts')).toContain(`${folder} imports a package`);
      if (row.node) expect(broken('node.ts')).toContain(`${folder} imports a module of Node`);
    },
  );

  test('a circle is an error', () => {
    expect(found.filter(({ rule }) => rule.name === 'no circular imports').map(({ from }) => from)).toEqual(
      expect.arrayContaining(['src/cli/x.ts']),
    );
  });

  test('ARCHITECTURE.md shows the rows', () => {
    const text = readFileSync(join(top, 'ARCHITECTURE.md'), 'utf8');
    const shown = [...text.matchAll(/^\| `(src\/[^`]+)` \|[^|]*\| ([^|]*) \|$/gm)].map(([, folder, may]) => [
      folder,
      (may ?? '').trim(),
    ]);
    const short = (path: string): string => `\`${path.slice('src/'.length)}\``;
    const wanted = rows.map(({ folder, imports, packages }) => [
      folder,
      [...imports.map(short), ...packages.map((name) => `npm \`${name}\``)].join(', ') || '–',
    ]);
    expect(shown).toEqual(wanted);
  });
});
