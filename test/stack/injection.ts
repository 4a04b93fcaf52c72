/**
 * The effect of a Pod's annotations according to the documentation of Vault Agent Injector (vault-k8s 1.7.6): the
 * containers, and the configuration of the agent in them. All paths are inside the Pod. An unknown annotation of the injector
 * is an error.
 */
import { posix } from 'node:path';

export const injectorPrefix = 'vault.hashicorp.com/';
/** Where the injector mounts the agent's home, the Secret of annotation `tls-secret`, and the agent's own token. */
export const agentHome = '/home/vault';
export const tlsMount = '/vault/tls';
export const tokenMount = '/var/run/secrets/kubernetes.io/serviceaccount';

export type AgentMode = 'init' | 'sidecar';

export interface Injection {
  /** Whether there is an init container, and whether it comes before others. */
  readonly init: boolean;
  readonly initFirst: boolean;
  readonly sidecar: boolean;
  readonly image: string;
  /** Name of the Secret that is mounted at `tlsMount`. */
  readonly tlsSecret: string | undefined;
  /** Name of a projected volume whose token is used instead of the pod's own. */
  readonly tokenVolume: string | undefined;
  /** Names of the containers that get the rendered files; default: all. */
  readonly containers: readonly string[] | undefined;
  /** Mount paths of rendered files, the general one (`secret-volume-path`) first. */
  readonly mounts: readonly string[];
  /** The rendered files. */
  readonly files: readonly string[];
  /** Of the agent's container, besides its configuration. */
  readonly env: Readonly<Record<string, string>>;
  /** @param tokenPath of the service account token */
  readonly config: (mode: AgentMode, tokenPath: string) => Readonly<Record<string, unknown>>;
}

/** Annotations that affect containers and not the configuration. They are ignored, because there is no container runtime. */
const ignored =
  /^(agent-inject-status|agent-(limits|requests)-.*|agent-run-as-.*|agent-set-security-context|agent-share-process-namespace|agent-copy-volume-mounts|agent-revoke-.*|go-max-procs)$/;

function parseBool(name: string, value: string): boolean {
  if (/^(1|t|T|TRUE|true|True)$/.test(value)) return true;
  if (/^(0|f|F|FALSE|false|False)$/.test(value)) return false;
  throw new Error(`annotation ${injectorPrefix}${name}: not a boolean: ${value}`);
}

/** Takes annotations out of a set one by one, so that the remaining ones are unknown. */
class Annotations {
  readonly #left = new Map<string, string>();

  constructor(annotations: Readonly<Record<string, string>>) {
    for (const [name, value] of Object.entries(annotations)) {
      if (name.startsWith(injectorPrefix)) this.#left.set(name.slice(injectorPrefix.length), value);
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

  /** All annotations with a prefix, by the rest of their names. */
  takeAll(start: string): Map<string, string> {
    const found = new Map<string, string>();
    for (const [name, value] of [...this.#left]) {
      if (!name.startsWith(start)) continue;
      found.set(name.slice(start.length), value);
      this.#left.delete(name);
    }
    return found;
  }

  /** @throws if an annotation is left that has an effect */
  refuseRest(): void {
    const rest = [...this.#left.keys()].filter((name) => !ignored.test(name));
    if (rest.length > 0)
      throw new Error(`the stand-in for the agent injector does not know ${injectorPrefix}${rest.join(', ')}`);
  }
}

const orOmit = <T>(name: string, value: T): Record<string, T> =>
  value === undefined || value === '' || value === false ? {} : { [name]: value };

interface Templates {
  readonly template: readonly Readonly<Record<string, unknown> & { destination: string }>[];
  readonly mounts: readonly string[];
}

function templates(annotations: Annotations): Templates {
  const general = posix.normalize(annotations.take('secret-volume-path') ?? '/vault/secrets');
  const paths = annotations.takeAll('agent-inject-secret-');
  const contents = annotations.takeAll('agent-inject-template-');
  const mounts = annotations.takeAll('secret-volume-path-');
  const fileNames = annotations.takeAll('agent-inject-file-');
  const perms = annotations.takeAll('agent-inject-perms-');
  const commands = annotations.takeAll('agent-inject-command-');
  const strict = annotations.takeAll('error-on-missing-key-');
  const left = annotations.takeAll('agent-template-left-delim-');
  const right = annotations.takeAll('agent-template-right-delim-');
  const keepAllCases = annotations.takeBool('preserve-secret-case', false);
  const keepCases = annotations.takeAll('preserve-secret-case-');
  const template = [...new Set([...paths.keys(), ...contents.keys()])].map((name) => {
    const own = keepCases.get(name);
    const keepCase = own === undefined ? keepAllCases : parseBool('preserve-secret-case', own);
    const file = fileNames.get(name) ?? (keepCase ? name : name.toLowerCase());
    return {
      destination: posix.join(mounts.get(name) ?? general, file),
      contents:
        contents.get(name) ??
        `{{ with secret "${paths.get(name) ?? ''}" }}{{ range $k, $v := .Data }}{{ $k }}: {{ $v }}\n{{ end }}{{ end }}`,
      left_delimiter: left.get(name) ?? '{{',
      right_delimiter: right.get(name) ?? '}}',
      ...orOmit('perms', perms.get(name)),
      ...orOmit('command', commands.get(name)),
      ...orOmit('error_on_missing_key', strict.has(name) && parseBool('error-on-missing-key', strict.get(name)!)),
    };
  });
  return { template, mounts: [...new Set([general, ...[...mounts.values()].map((path) => posix.normalize(path))])] };
}

/**
 * Reads a pod's annotations.
 * @param address of Vault, where the annotations name none
 * @returns undefined if annotation `agent-inject` is absent or not true
 * @throws if a required annotation is missing, or one is unknown
 */
export function injectionOf(of: Readonly<Record<string, string>>, address: string): Injection | undefined {
  const annotations = new Annotations(of);
  const inject = annotations.take('agent-inject');
  if (inject === undefined || !parseBool('agent-inject', inject)) return undefined;

  const authType = annotations.take('auth-type') ?? 'kubernetes';
  if (authType !== 'kubernetes') throw new Error(`the stand-in for the agent injector knows no auth-type ${authType}`);
  const role = annotations.take('role');
  if (role === undefined || role === '')
    throw new Error(`annotation ${injectorPrefix}role is missing: no Vault role found`);

  const { template, mounts } = templates(annotations);
  const method = {
    type: 'kubernetes',
    mount_path: annotations.take('auth-path') ?? 'auth/kubernetes',
    ...orOmit('namespace', annotations.take('namespace')),
    ...orOmit('min_backoff', annotations.take('auth-min-backoff')),
    ...orOmit('max_backoff', annotations.take('auth-max-backoff')),
    ...orOmit('exit_on_err', annotations.takeBool('agent-auto-auth-exit-on-err', false)),
  };
  const authConfig = Object.fromEntries(
    [...annotations.takeAll('auth-config-')].map(([name, value]) => [name.replaceAll('-', '_'), value]),
  );
  const vault = {
    address: annotations.take('service') ?? address,
    ...orOmit('ca_cert', annotations.take('ca-cert')),
    ...orOmit('ca_path', annotations.take('ca-key')),
    ...orOmit('client_cert', annotations.take('client-cert')),
    ...orOmit('client_key', annotations.take('client-key')),
    ...orOmit('tls_skip_verify', annotations.takeBool('tls-skip-verify', false)),
    ...orOmit('tls_server_name', annotations.take('tls-server-name')),
  };
  const connections = annotations.take('template-max-connections-per-host');
  const template_config = {
    exit_on_retry_failure: annotations.takeBool('template-config-exit-on-retry-failure', true),
    ...orOmit('static_secret_render_interval', annotations.take('template-static-secret-render-interval')),
    ...(connections === undefined ? {} : { max_connections_per_host: Number(connections) }),
  };
  const injection: Injection = {
    init: annotations.takeBool('agent-pre-populate', true),
    initFirst: annotations.takeBool('agent-init-first', false),
    sidecar: !annotations.takeBool('agent-pre-populate-only', false),
    image: annotations.take('agent-image') ?? 'hashicorp/vault:2.0.4',
    tlsSecret: annotations.take('tls-secret'),
    tokenVolume: annotations.take('agent-service-account-token-volume-name'),
    containers: annotations.take('agent-inject-containers')?.split(','),
    mounts,
    files: template.map(({ destination }) => destination),
    env: {
      VAULT_LOG_LEVEL: annotations.take('log-level') ?? 'info',
      VAULT_LOG_FORMAT: annotations.take('log-format') ?? 'standard',
      ...orOmit('VAULT_MAX_RETRIES', annotations.take('client-max-retries')),
      ...orOmit('VAULT_CLIENT_TIMEOUT', annotations.take('client-timeout')),
    },
    config: (mode, tokenPath) => ({
      auto_auth: {
        method: { ...method, config: { ...authConfig, role, token_path: tokenPath } },
        sink: [{ type: 'file', config: { path: posix.join(agentHome, '.vault-token') } }],
      },
      exit_after_auth: mode === 'init',
      pid_file: posix.join(agentHome, '.pid'),
      vault,
      template,
      template_config,
    }),
  };
  annotations.refuseRest();
  return injection;
}
