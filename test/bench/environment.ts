/** Where and with what was measured. */
import { execFile } from 'node:child_process';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { serverVersion } from '../stack/servers.ts';

/** The root of the repository. */
export const top = join(import.meta.dirname, '..', '..');

export interface Environment {
  /** In UTC, as 2026-01-31. */
  readonly date: string;
  /** The commit, and whether the measured files differ from it. */
  readonly commit: string;
  /** Cores, CPU model and memory. */
  readonly machine: string;
  /** Node, which runs the operator, and the servers. */
  readonly versions: string;
}

async function git(...args: string[]): Promise<string> {
  return (await promisify(execFile)('git', args, { cwd: top })).stdout.trim();
}

/** The commit of the working tree. @throws Error if this is no repository, or git is missing */
async function commit(): Promise<string> {
  const changed = await git('status', '--porcelain', '--', 'src', 'test', 'scripts', 'package-lock.json');
  return `${await git('rev-parse', '--short=12', 'HEAD')}${changed === '' ? '' : ', with changes'}`;
}

/** Describes this machine and the versions in use. @throws Error if the commit cannot be read */
export async function environment(): Promise<Environment> {
  const [model = 'unknown processor'] = cpus().map((cpu) => cpu.model.trim());
  return {
    date: new Date().toISOString().slice(0, 10),
    commit: await commit(),
    machine: `${availableParallelism()} cores (${model}), ${Math.round(totalmem() / 1024 ** 3)} GiB of memory`,
    versions: `Node ${process.versions.node}, kube-apiserver ${serverVersion('kube-apiserver')}, OpenBao ${serverVersion('openbao')}`,
  };
}
