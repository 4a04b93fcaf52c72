/**
 * A stand-in for the webhook of Vault Agent Injector and for the kubelet, for tests without Pods; `node/` has one with
 * Pods. Neither can run without the nodes of a cluster.
 *
 * It reads the annotations of a Pod as the injector documents them (`injection.ts`), builds the agent configuration that
 * the injector generates, and runs the real Vault Agent with it: once like the init container, or continuously like the
 * sidecar. The paths of the volumes of a Pod are mapped to folders of this machine.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { agentHome, injectionOf, tlsMount, tokenMount, type AgentMode } from './injection.ts';
import { mapPaths, mapStrings } from './pod-paths.ts';
import { makeTemporaryDir, removeTemporaryDir, startProcess } from './processes.ts';
import type { RunningServer, VaultServer } from './types.ts';
import { tail } from './wait.ts';

export interface AgentOptions {
  /** The annotations of the Pod; annotations of others than the injector are ignored. */
  readonly annotations: Readonly<Record<string, string>>;
  /** The server whose agent binary runs, and whose address is used if the annotations name none. */
  readonly vault: Pick<VaultServer, 'address' | 'agentBinary'>;
  /** The pod's service account token. */
  readonly token: string;
  /** The folder in place of the secret volume of the Pod (annotation `secret-volume-path`). */
  readonly dir: string;
  /** `init` runs the agent until it has rendered everything, `sidecar` until it is stopped. */
  readonly mode: AgentMode;
  /** Contents of the Secret that annotation `tls-secret` names: file name to content. */
  readonly tlsSecret?: Readonly<Record<string, string>>;
  /** Timeout of an init agent, milliseconds; default 30000. */
  readonly deadlineMs?: number;
}

/** An agent; in mode `init` it has already ended. */
export interface Agent extends RunningServer {
  /** False if the annotations request no injection: then nothing ran, and there are no files. */
  readonly injected: boolean;
  /** The files that the agent renders. */
  readonly files: readonly string[];
  /** The generated configuration, with mapped paths. */
  readonly config: unknown;
}

const nothing = (injected: boolean, config: unknown): Agent => ({
  injected,
  files: [],
  config,
  log: () => '',
  stop: () => Promise.resolve(),
});

/** The environment variables of an agent under the names of both products: OpenBao's agent reads BAO_… instead of VAULT_…. */
export function agentEnv(env: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).flatMap(([name, value]) => [
      [name, value],
      ...(name.startsWith('VAULT_') ? [[name.replace('VAULT_', 'BAO_'), value]] : []),
    ]),
  ) as Record<string, string>;
}

/**
 * Does for the annotations of a Pod what injector and kubelet do together: see the head of this file. Returns an agent
 * with `injected: false` if annotation `agent-inject` is absent or not true, and one that rendered nothing if the
 * annotations request no container of this mode.
 * @throws if a required annotation is missing, one is unknown, or (mode `init`) the agent fails or times out. The
 * message contains the end of its log, and the agent has ended
 */
export async function renderWithAgent(options: AgentOptions): Promise<Agent> {
  const injection = injectionOf(options.annotations, options.vault.address);
  if (injection === undefined) return nothing(false, undefined);
  if (injection.tlsSecret !== undefined && options.tlsSecret === undefined)
    throw new Error(`the pod cannot start: Secret ${injection.tlsSecret} not found (give tlsSecret)`);

  const work = makeTemporaryDir('agent');
  try {
    const [general = '', ...others] = injection.mounts;
    const mounts = new Map([
      ...others.map((path) => [path, join(work, 'volumes', path)] as const),
      [general, options.dir],
      [tlsMount, join(work, 'tls')],
      [agentHome, work],
      [tokenMount, join(work, 'serviceaccount')],
    ]);
    for (const dir of mounts.values()) mkdirSync(dir, { recursive: true });
    for (const [name, content] of Object.entries(options.tlsSecret ?? {}))
      writeFileSync(join(work, 'tls', name), content);
    const map = mapPaths(mounts);
    const config = mapStrings(injection.config(options.mode, posix.join(tokenMount, 'token')), map);
    if (options.mode === 'init' ? !injection.init : !injection.sidecar) {
      removeTemporaryDir(work);
      return nothing(true, config);
    }
    const files = injection.files.map(map);
    for (const file of files) mkdirSync(dirname(file), { recursive: true });
    writeFileSync(map(posix.join(tokenMount, 'token')), options.token, { mode: 0o600 });
    writeFileSync(join(work, 'config.json'), JSON.stringify(config), { mode: 0o600 });
    const logPath = join(work, 'agent.log');
    const agent = startProcess({
      name: `agent (${options.mode})`,
      command: options.vault.agentBinary,
      args: ['agent', `-config=${join(work, 'config.json')}`],
      env: { HOME: work, ...agentEnv(injection.env) },
      cwd: work,
      logPath,
    });
    if (options.mode === 'sidecar') {
      let text: string | undefined;
      return {
        injected: true,
        files,
        config,
        log: () => text ?? agent.log(),
        stop: async () => {
          await agent.stop();
          text ??= agent.log();
          removeTemporaryDir(work);
        },
      };
    }
    const deadlineMs = options.deadlineMs ?? 30_000;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), deadlineMs);
    });
    const end = await Promise.race([agent.exited, late]);
    clearTimeout(timer);
    if (end === 'late') await agent.stop();
    const text = agent.log();
    if (end !== 0) {
      const how = end === 'late' ? `has not rendered everything after ${deadlineMs / 1000} s` : `ended with ${end}`;
      throw new Error(`the init agent ${how}; log:\n${tail(text)}`);
    }
    removeTemporaryDir(work);
    return { injected: true, files, config, log: () => text, stop: () => Promise.resolve() };
  } catch (error) {
    removeTemporaryDir(work);
    throw error;
  }
}
