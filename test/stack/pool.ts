/**
 * Stacks of servers for the workers of a Jest run, one stack each: tests restart and seal servers, delete CRDs and count requests,
 * which two files must not do to the same servers at the same time. Jest's own process starts a stack when a worker first asks
 * for it, over a unix socket (`setup-worker.ts`).
 */
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { call, expectStatus } from './http.ts';
import { checkRecorded, recordStates, statesFile } from './gitops-health.ts';
import { startStack } from './index.ts';
import { endsAlone, endsWithThis, makeTemporaryDir, removeTemporaryDir } from './processes.ts';
import { share } from './shared.ts';
import type { StackMode } from './types.ts';

/** Names the socket of the pool. */
export const poolVariable = 'TEST_STACK_POOL';

/** A stack of one worker. */
interface Member {
  /** Of the file with its facts. */
  readonly path: string;
  /** Stops it, and checks the recorded states; gives how many there were. */
  stop(): Promise<number>;
}

export interface Pool {
  /** Path of its socket. */
  readonly socketPath: string;
  /**
   * Stops every stack.
   * @returns the number of states of resources that tests brought about
   * @throws when GitOps tools disagree with the documentation about one of them
   */
  stop(): Promise<number>;
}

async function startMember(mode: StackMode): Promise<Member> {
  const stack = await startStack({ mode });
  const { path, close } = await share(stack);
  const states = join(stack.dir, statesFile);
  const recording = recordStates(stack.kube, states);
  return {
    path,
    stop: async () => {
      await recording.stop();
      try {
        return await checkRecorded(states);
      } finally {
        await close();
        await stack.stop();
      }
    },
  };
}

/** Opens a pool without stacks. @param defaultMode of a worker that asks for no mode */
export async function openPool(defaultMode: StackMode): Promise<Pool> {
  const dir = makeTemporaryDir('pool');
  const socketPath = join(dir, 'pool.sock');
  const members = new Map<string, Promise<Member>>();
  const memberOf = (worker: string, mode: StackMode): Promise<Member> => {
    const key = `${mode} ${worker}`;
    const member = members.get(key) ?? startMember(mode);
    members.set(key, member);
    // the next file of the worker tries again
    member.catch(() => members.delete(key));
    return member;
  };
  const server: Server = createServer((request, response) => {
    const { searchParams } = new URL(request.url ?? '/', 'http://localhost');
    endsWithThis(Number(searchParams.get('pid')));
    const mode = (searchParams.get('mode') ?? defaultMode) as StackMode;
    memberOf(searchParams.get('worker') ?? '', mode).then(
      ({ path }) => response.end(JSON.stringify({ path })),
      (error: unknown) =>
        response.writeHead(500).end(JSON.stringify(error instanceof Error ? error.message : String(error))),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socketPath, resolve);
  });
  server.unref();
  return {
    socketPath,
    stop: async () => {
      // Jest has ended them
      endsAlone();
      server.close();
      const started = (await Promise.allSettled(members.values())).flatMap((one) =>
        one.status === 'fulfilled' ? [one.value] : [],
      );
      const stopped = await Promise.allSettled(started.map((member) => member.stop()));
      removeTemporaryDir(dir);
      const failed = stopped.flatMap((one) => (one.status === 'rejected' ? [String(one.reason)] : []));
      if (failed.length > 0) throw new Error(failed.join('\n\n'));
      return stopped.reduce((sum, one) => sum + (one.status === 'fulfilled' ? one.value : 0), 0);
    },
  };
}

/**
 * The path of the facts of a worker's stack, which is started when there is none yet.
 * @param mode that of the pool unless given
 * @throws with the log of a server that did not start
 */
export async function stackOf(socketPath: string, worker: string, mode: StackMode | undefined): Promise<string> {
  const query = new URLSearchParams({ worker, pid: String(process.pid), ...(mode === undefined ? {} : { mode }) });
  const answer = await call(`http://localhost/?${query.toString()}`, { socketPath, timeoutMs: 300_000 });
  return (expectStatus(answer, [200], `stack of worker ${worker}`) as { path: string }).path;
}
