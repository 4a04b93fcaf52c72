/** Programs that build or download servers. */
import { join } from 'node:path';
import { makeTemporaryDir, removeTemporaryDir, startProcess } from '../processes.ts';

export interface RunResult {
  readonly code: number;
  /** Standard output and standard error. */
  readonly output: string;
}

export interface RunOptions {
  /** Stops the program when aborted. */
  readonly signal: AbortSignal;
  /** A temporary folder unless given. */
  readonly cwd?: string;
  /** The environment of this process unless given. */
  readonly env?: NodeJS.ProcessEnv;
  /** Gets everything that was printed so far: every half second, and once more at the end. */
  readonly onOutput?: (output: string) => void;
}

/**
 * Runs a program to its end. The program ends with this process, however this process ends.
 * @returns `missing` when there is no such program
 * @throws the signal's reason when it is aborted
 */
export async function run(
  command: string,
  args: readonly string[],
  options: RunOptions,
): Promise<RunResult | 'missing'> {
  const { signal, onOutput } = options;
  signal.throwIfAborted();
  const dir = makeTemporaryDir('build');
  const env = Object.fromEntries(
    Object.entries(options.env ?? process.env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
  let onAbort = (): void => undefined;
  let timer: NodeJS.Timeout | undefined;
  try {
    const child = startProcess({
      name: command,
      command,
      args,
      cwd: options.cwd ?? dir,
      env,
      logPath: join(dir, 'log'),
    });
    // The timer also keeps this process alive, which a child of `startProcess` does not.
    timer = setInterval(() => onOutput?.(child.log()), 500);
    onAbort = () => void child.stop();
    signal.addEventListener('abort', onAbort);
    const code = await child.exited;
    signal.throwIfAborted();
    const output = child.log();
    onOutput?.(output);
    return { code: typeof code === 'number' ? code : 1, output };
  } catch (error) {
    if (error instanceof Error && error.message.includes('could not be started')) return 'missing';
    throw error;
  } finally {
    clearInterval(timer);
    signal.removeEventListener('abort', onAbort);
    removeTemporaryDir(dir);
  }
}
