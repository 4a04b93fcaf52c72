/**
 * A stand-in for the agent injector's webhook and for the kubelet: neither can run without a cluster's nodes.
 *
 * It reads a pod's annotations as the injector (vault-k8s 1.7.6) documents them, builds the agent configuration that
 * the injector generates, and runs the real agent with it, once as the init container does, or for as long as the
 * sidecar does. The paths that a pod's volumes would have are mapped to folders of this machine. What it does not
 * know of the injector's annotations, it refuses.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, posix } from 'node:path';
import { makeTemporaryDir, removeTemporaryDir, startProcess } from './processes.ts';
import type { RunningServer, VaultServer } from './types.ts';
import { tail } from './wait.ts';

export interface AgentOptions {
  /** The pod's annotations; those that are not the injector's do not matter. */
  readonly annotations: Readonly<Record<string, string>>;
  /** Whose agent binary runs, and the address where the annotations name none. */
  readonly vault: Pick<VaultServer, 'address' | 'agentBinary'>;
  /** The pod's service account token. */
  readonly token: string;
  /** The folder that stands for the pod's secret volume (annotation `secret-volume-path`). */
  readonly dir: string;
  /** `init` runs the agent until it has rendered everything, `sidecar` until it is stopped. */
  readonly mode: 'init' | 'sidecar';
  /** Contents of the Secret that annotation `tls-secret` names: file name to content. */
  readonly tlsSecret?: Readonly<Record<string, string>>;
  /** Milliseconds that an init agent may take; 30000 unless given. */
  readonly deadlineMs?: number;
}

/** An agent; one of mode `init` has ended already. */
export interface Agent extends RunningServer {
  /** False when the annotations ask for no injection: then nothing ran, and there are no files. */
  readonly injected: boolean;
  /** The files that the agent renders. */
  readonly files: readonly string[];
  /** The generated configuration, with mapped paths. */
  readonly config: unknown;
}

const prefix = 'vault.hashicorp.com/';

/** Annotations that shape containers rather than the configuration; they need no kubelet to be harmless here. */
const ignored =
  /^(agent-inject-status|agent-inject-containers|agent-image|agent-(limits|requests)-.*|agent-run-as-.*|agent-set-security-context|agent-share-process-namespace|agent-init-first|agent-service-account-token-volume-name|agent-copy-volume-mounts|agent-revoke-.*|log-format|go-max-procs)$/;

function parseBool(name: string, value: string): boolean {
  if (/^(1|t|T|TRUE|true|True)$/.test(value)) return true;
  if (/^(0|f|F|FALSE|false|False)$/.test(value)) return false;
  throw new Error(`annotation ${prefix}${name}: not a boolean: ${value}`);
}

/** Takes annotations out of a set one by one, so that what is left at the end is known to be unknown. */
class Annotations {
  readonly #left = new Map<string, string>();

  constructor(annotations: Readonly<Record<string, string>>) {
    for (const [name, value] of Object.entries(annotations)) {
      if (name.startsWith(prefix)) this.#left.set(name.slice(prefix.length), value);
    }
  }

  take(name: string): string | undefined {
    const value = this.#left.get(name);
    this.#left.delete(name);
    return value;
  }

  takeBool(name: string, otherwise: boolean): boolean {
    const value = this.take(name);
    return value === undefined ? otherwise : parseBool(name, value);
  }

  /** All with a prefix, by what follows it. */
  takeAll(start: string): Map<string, string> {
    const found = new Map<string, string>();
    for (const [name, value] of [...this.#left]) {
      if (!name.startsWith(start)) continue;
      found.set(name.slice(start.length), value);
      this.#left.delete(name);
    }
    return found;
  }

  /** @throws when something is left that would have a meaning */
  refuseRest(): void {
    const rest = [...this.#left.keys()].filter((name) => !ignored.test(name));
    if (rest.length > 0)
      throw new Error(`the stand-in for the agent injector does not know ${prefix}${rest.join(', ')}`);
  }
}

interface Mapping {
  /** Where files of a mount path of the pod are on this machine. */
  readonly volume: (mountPath: string) => string;
  readonly tlsDir: string;
  readonly home: string;
  readonly tokenPath: string;
}

interface Plan {
  readonly prePopulate: boolean;
  readonly prePopulateOnly: boolean;
  /** Of the agent's container, without the prefix VAULT_ or BAO_. */
  readonly env: Readonly<Record<string, string>>;
  readonly files: readonly string[];
  readonly config: Readonly<Record<string, unknown>>;
}

const orOmit = <T>(name: string, value: T): Record<string, T> =>
  value === undefined || value === '' || value === false ? {} : { [name]: value };

function plan(annotations: Annotations, options: AgentOptions, map: Mapping): Plan {
  const authType = annotations.take('auth-type') ?? 'kubernetes';
  if (authType !== 'kubernetes') throw new Error(`the stand-in for the agent injector knows no auth-type ${authType}`);
  const role = annotations.take('role');
  if (role === undefined || role === '') throw new Error(`annotation ${prefix}role is missing: no Vault role found`);

  const tlsSecret = annotations.take('tls-secret');
  if (tlsSecret !== undefined) {
    if (options.tlsSecret === undefined)
      throw new Error(`the pod cannot start: Secret ${tlsSecret} not found (give tlsSecret)`);
    for (const [name, content] of Object.entries(options.tlsSecret)) writeFileSync(join(map.tlsDir, name), content);
  }
  const inTls = (path: string | undefined): string | undefined =>
    path !== undefined && posix.dirname(path) === '/vault/tls' ? join(map.tlsDir, basename(path)) : path;

  const secretMount = annotations.take('secret-volume-path') ?? '/vault/secrets';
  const paths = annotations.takeAll('agent-inject-secret-');
  const templates = annotations.takeAll('agent-inject-template-');
  const mounts = annotations.takeAll('secret-volume-path-');
  const fileNames = annotations.takeAll('agent-inject-file-');
  const perms = annotations.takeAll('agent-inject-perms-');
  const commands = annotations.takeAll('agent-inject-command-');
  const strict = annotations.takeAll('error-on-missing-key-');
  const left = annotations.takeAll('agent-template-left-delim-');
  const right = annotations.takeAll('agent-template-right-delim-');
  const keepAllCases = annotations.takeBool('preserve-secret-case', false);
  const keepCases = annotations.takeAll('preserve-secret-case-');
  const template = [...new Set([...paths.keys(), ...templates.keys()])].map((name) => {
    const contents =
      templates.get(name) ??
      `{{ with secret "${paths.get(name) ?? ''}" }}{{ range $k, $v := .Data }}{{ $k }}: {{ $v }}\n{{ end }}{{ end }}`;
    const own = keepCases.get(name);
    const keepCase = own === undefined ? keepAllCases : parseBool('preserve-secret-case', own);
    const file = fileNames.get(name) ?? (keepCase ? name : name.toLowerCase());
    return {
      destination: join(map.volume(mounts.get(name) ?? secretMount), file),
      contents,
      left_delimiter: left.get(name) ?? '{{',
      right_delimiter: right.get(name) ?? '}}',
      ...orOmit('perms', perms.get(name)),
      ...orOmit('command', commands.get(name)),
      ...orOmit('error_on_missing_key', strict.has(name) && parseBool('error-on-missing-key', strict.get(name)!)),
    };
  });

  const authConfig = Object.fromEntries(
    [...annotations.takeAll('auth-config-')].map(([name, value]) => [name.replaceAll('-', '_'), value]),
  );
  const connections = annotations.take('template-max-connections-per-host');
  const config = {
    auto_auth: {
      method: {
        type: 'kubernetes',
        mount_path: annotations.take('auth-path') ?? 'auth/kubernetes',
        ...orOmit('namespace', annotations.take('namespace')),
        ...orOmit('min_backoff', annotations.take('auth-min-backoff')),
        ...orOmit('max_backoff', annotations.take('auth-max-backoff')),
        ...orOmit('exit_on_err', annotations.takeBool('agent-auto-auth-exit-on-err', false)),
        config: { ...authConfig, role, token_path: map.tokenPath },
      },
      sink: [{ type: 'file', config: { path: join(map.home, '.vault-token') } }],
    },
    exit_after_auth: options.mode === 'init',
    pid_file: join(map.home, '.pid'),
    vault: {
      address: annotations.take('service') ?? options.vault.address,
      ...orOmit('ca_cert', inTls(annotations.take('ca-cert'))),
      ...orOmit('ca_path', inTls(annotations.take('ca-key'))),
      ...orOmit('client_cert', inTls(annotations.take('client-cert'))),
      ...orOmit('client_key', inTls(annotations.take('client-key'))),
      ...orOmit('tls_skip_verify', annotations.takeBool('tls-skip-verify', false)),
      ...orOmit('tls_server_name', annotations.take('tls-server-name')),
    },
    template,
    template_config: {
      exit_on_retry_failure: annotations.takeBool('template-config-exit-on-retry-failure', true),
      ...orOmit('static_secret_render_interval', annotations.take('template-static-secret-render-interval')),
      ...(connections === undefined ? {} : { max_connections_per_host: Number(connections) }),
    },
  };
  const result = {
    prePopulate: annotations.takeBool('agent-pre-populate', true),
    prePopulateOnly: annotations.takeBool('agent-pre-populate-only', false),
    env: {
      LOG_LEVEL: annotations.take('log-level') ?? 'info',
      ...orOmit('MAX_RETRIES', annotations.take('client-max-retries')),
      ...orOmit('CLIENT_TIMEOUT', annotations.take('client-timeout')),
    },
    files: template.map(({ destination }) => destination),
    config,
  };
  annotations.refuseRest();
  return result;
}

const nothing = (injected: boolean, config: unknown): Agent => ({
  injected,
  files: [],
  config,
  log: () => '',
  stop: () => Promise.resolve(),
});

/**
 * Does for a pod's annotations what injector and kubelet do together: see the head of this file. Returns an agent
 * with `injected: false` where annotation `agent-inject` is absent or not true, and one that rendered nothing where
 * the annotations ask for no container of this mode.
 * @throws when a needed annotation is missing, one is not known, or (mode `init`) the agent fails or takes too long;
 * the message has its log's tail, and the agent is gone
 */
export async function renderWithAgent(options: AgentOptions): Promise<Agent> {
  const annotations = new Annotations(options.annotations);
  const inject = annotations.take('agent-inject');
  if (inject === undefined || !parseBool('agent-inject', inject)) return nothing(false, undefined);

  const work = makeTemporaryDir('agent');
  try {
    const secretMount = options.annotations[`${prefix}secret-volume-path`] ?? '/vault/secrets';
    const map: Mapping = {
      volume: (path) =>
        posix.normalize(path) === posix.normalize(secretMount) ? options.dir : join(work, 'volumes', path),
      tlsDir: join(work, 'tls'),
      home: work,
      tokenPath: join(work, 'service-account-token'),
    };
    mkdirSync(map.tlsDir);
    const { prePopulate, prePopulateOnly, env, files, config } = plan(annotations, options, map);
    if (options.mode === 'init' ? !prePopulate : prePopulateOnly) {
      removeTemporaryDir(work);
      return nothing(true, config);
    }
    for (const file of files) mkdirSync(dirname(file), { recursive: true });
    writeFileSync(map.tokenPath, options.token, { mode: 0o600 });
    writeFileSync(join(work, 'config.json'), JSON.stringify(config), { mode: 0o600 });
    const logPath = join(work, 'agent.log');
    const agent = startProcess({
      name: `agent (${options.mode})`,
      command: options.vault.agentBinary,
      args: ['agent', `-config=${join(work, 'config.json')}`],
      env: {
        HOME: work,
        ...Object.fromEntries(
          Object.entries(env).flatMap(([name, value]) => ['VAULT', 'BAO'].map((start) => [`${start}_${name}`, value])),
        ),
      },
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
