/** Builds programs of one Go module. */
import { constants, copyFileSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { makeTemporaryDir, removeTemporaryDir } from '../processes.ts';
import { tail } from '../wait.ts';
import { begunIn, downloadsIn, staleFormat, stalePackages, unfinishedIds, withoutPaths } from './packages.ts';
import type { StalePackage } from './packages.ts';
import { run, type RunResult } from './run.ts';
import { availableMemory, compilerEnv, oneAtATime, takeTurn } from './turns.ts';

export interface GoBuild {
  /** What messages call it. */
  readonly title: string;
  /** Folder of the module. */
  readonly module: string;
  readonly flags: readonly string[];
  readonly programs: readonly GoOutput[];
}

interface GoOutput {
  readonly pkg: string;
  /** Path of the binary. */
  readonly out: string;
}

export interface GoBuildOptions {
  readonly signal: AbortSignal;
  /** Gets what the build does now, whenever that has changed. */
  readonly onStatus: (status: string) => void;
  /** The environment of this process unless given. */
  readonly env?: NodeJS.ProcessEnv;
}

/** Static, so that the same binary also runs in an image FROM scratch; read only, so that no build edits go.sum. */
const buildEnv = { CGO_ENABLED: '0', GOFLAGS: '-buildvcs=false -mod=readonly', GOWORK: 'off' };

/** A listing downloads modules, several at a time already. */
const listing = oneAtATime();

/**
 * Builds programs with one `go build`, which compiles once what they share. Other calls wait for each other only where
 * `takeTurn` makes them.
 * @throws when Go is missing, with how to get it; with the tail of the output when the build fails; the signal's reason
 * when it is aborted
 */
export async function buildGo(build: GoBuild, options: GoBuildOptions): Promise<void> {
  const { signal, onStatus } = options;
  const go = async (args: readonly string[], onOutput?: (output: string) => void): Promise<RunResult> => {
    const result = await run('go', args, {
      signal,
      cwd: build.module,
      env: { ...compilerEnv(availableParallelism(), availableMemory()), ...(options.env ?? process.env), ...buildEnv },
      ...(onOutput === undefined ? {} : { onOutput }),
    });
    if (result !== 'missing') return result;
    throw new Error(
      `${build.title} is built from source, and the tool "go" is not in PATH: install Go 1.26 or newer (https://go.dev)`,
    );
  };
  const list = async (): Promise<ReadonlyMap<string, StalePackage>> => {
    const pkgs = build.programs.map(({ pkg }) => pkg);
    const args = ['list', '-deps', ...build.flags, '-f', staleFormat, ...pkgs];
    const result = await go(args, (output) => {
      const count = downloadsIn(output);
      onStatus(count === 0 ? 'looking for what has to be compiled' : `downloading module ${count}`);
    });
    if (result.code === 0) return stalePackages(result.output);
    throw failure(build.title, result.code, result.output);
  };

  let packages = await listing(list);
  const wait = (): void => onStatus(`waiting with ${packages.size} packages for those that another build compiles too`);
  const turn = await takeTurn(unfinishedIds(packages, new Set()), wait, signal);
  const work = makeTemporaryDir('go');
  try {
    // Another build has compiled some of them in the meantime.
    if (turn.waited) {
      packages = await list();
      turn.unfinished = unfinishedIds(packages, new Set());
    }
    onStatus(`compiling package 0 of ${packages.size}`);
    const single = build.programs.length === 1;
    const args = ['build', '-v', ...build.flags, '-o', single ? join(work, 'program') : `${work}/`];
    const result = await go([...args, ...build.programs.map(({ pkg }) => pkg)], (output) => {
      const begun = begunIn(output, packages);
      turn.unfinished = unfinishedIds(packages, begun);
      onStatus(begun.size === packages.size ? 'linking' : `compiling package ${begun.size} of ${packages.size}`);
    });
    if (result.code !== 0) throw failure(build.title, result.code, withoutPaths(result.output, packages));
    for (const { pkg, out } of build.programs) keep(join(work, single ? 'program' : programName(pkg)), out);
  } finally {
    turn.end();
    removeTemporaryDir(work);
  }
}

const failure = (title: string, code: number, output: string): Error =>
  new Error(`building ${title} failed (exit code ${code}):\n${tail(output, 40)}`);

/**
 * The file name that `go build -o folder/` gives a program: the last element of its path that is no major version
 * (`go help build`).
 */
export const programName = (pkg: string): string =>
  pkg
    .split('/')
    .filter((element, i, all) => i < all.length - 1 || !/^v\d+$/.test(element))
    .at(-1) ?? pkg;

/** Moves a file to another file system too; under the final name there is never a part of it. */
function keep(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  const temporary = `${to}.${process.pid}.tmp`;
  copyFileSync(from, temporary, constants.COPYFILE_FICLONE);
  renameSync(temporary, to);
  rmSync(from);
}
