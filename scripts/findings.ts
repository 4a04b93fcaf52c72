/**
 * Runs the scripts in `findings/`. `npm run findings` runs all in sequence and prints one line for each. `npm run findings NAME…` runs the
 * named scripts and shows their output. Exit code: 1 if a script fails, 2 if a name is unknown.
 */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

const folder = join(import.meta.dirname, '../findings');
const known = readdirSync(folder)
  .filter((file) => file.endsWith('.sh') && file !== 'lib.sh')
  .map((file) => file.slice(0, -'.sh'.length))
  .sort();

interface Result {
  readonly code: number;
  /** Empty if the output was shown while the script ran. */
  readonly output: string;
  readonly interrupted: boolean;
}

/** Runs a script. Forwards signals, so that the script cleans up. @param show prints the output immediately */
const run = (name: string, show: boolean): Promise<Result> =>
  new Promise((resolve, reject) => {
    const child = spawn('bash', [join(folder, `${name}.sh`)], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let interrupted = false;
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => {
        if (show) process.stdout.write(chunk);
        else output += chunk.toString();
      });
    const forward = (signal: NodeJS.Signals): void => {
      interrupted = true;
      child.kill(signal);
    };
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
    for (const signal of signals) process.on(signal, forward);
    child.on('error', reject);
    child.on('close', (code) => {
      for (const signal of signals) process.off(signal, forward);
      resolve({ code: code ?? 1, output, interrupted });
    });
  });

const names = process.argv.slice(2);
const unknown = names.filter((name) => !known.includes(name));
if (unknown.length > 0) {
  console.error(`Unknown: ${unknown.join(', ')}. Known: ${known.join(', ')}.`);
  process.exitCode = 2;
} else {
  const failed: string[] = [];
  const chosen = names.length > 0 ? names : known;
  for (const name of chosen) {
    const start = Date.now();
    const { code, output, interrupted } = await run(name, names.length > 0);
    if (code !== 0) failed.push(name);
    const verdict = code === 0 ? 'holds' : `failed with exit code ${code}`;
    console.log(`${name}: ${verdict} (${Math.round((Date.now() - start) / 1000)} s)`);
    if (code !== 0) process.stdout.write(output);
    if (interrupted) break;
  }
  console.log(failed.length === 0 ? `${chosen.length} hold` : `failed: ${failed.join(', ')}`);
  if (failed.length > 0) process.exitCode = 1;
}
