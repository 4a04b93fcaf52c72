/** Parses the flags and environment variables of each command into a frozen configuration. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { parseGoDuration } from './api/duration.ts';
import { ConfigError, flag, list, parseFlags, type Environment, type FlagSet } from './flags.ts';
import { parseListenAddress } from './observability/health.ts';
import { logLevels, type LogLevel } from './observability/logger.ts';
import { readProxies, type ProxyFor } from './runtime/proxy.ts';

/** The configuration of `run`. Durations are in milliseconds. */
export interface RunConfig {
  /** Sorted, without duplicates; empty: all namespaces. */
  readonly namespaces: readonly string[];
  readonly leaderElect: boolean;
  /** Empty only if leader election is disabled. */
  readonly leaderElectionNamespace: string;
  /** Globs of permitted Vault addresses; empty with `allowAnyVaultAddress`. */
  readonly vaultAddresses: readonly string[];
  readonly allowAnyVaultAddress: boolean;
  /** Globs of addresses that istiod's agent may be given; undefined: the same as `vaultAddresses`, with `allowAnyVaultAddress`. */
  readonly injectorAddresses: readonly string[] | undefined;
  readonly allowHttp: boolean;
  /** `host:port`; `0` disables the server. */
  readonly metricsAddress: string;
  /** `host:port`; `0` disables the server. */
  readonly healthAddress: string;
  readonly logLevel: LogLevel;
  readonly resyncMs: number;
  readonly concurrency: number;
  readonly reconcileTimeoutMs: number;
  readonly deletionDeadlineMs: number;
  readonly backoffBaseMs: number;
  /** The first retry interval after a repeated field conflict (`ContestedField`). */
  readonly contestProbeMs: number;
  /** With `delivery.crl`: how long the list of a new intermediate is in the mesh before istiod signs with it, milliseconds. */
  readonly crlLeadMs: number;
  readonly lease: LeaseTimes;
  /** Path of a kubeconfig file; undefined: see `loadKubeConfig`. */
  readonly kubeconfig: string | undefined;
  /** The proxy of the environment for an address of Vault or of the API server. */
  readonly proxyFor: ProxyFor;
}

/** Times of the leader election, milliseconds; retry period < renew deadline < lease duration. */
interface LeaseTimes {
  /** An operator that sees no renewal for this long takes the Lease over. */
  readonly durationMs: number;
  /** The leader that cannot renew the Lease for this long ends. */
  readonly renewDeadlineMs: number;
  /** Time between two attempts to get or renew the Lease. */
  readonly retryPeriodMs: number;
}

/** The inputs of `parseRunConfig` besides the flags. */
export interface ConfigSources {
  env: Environment;
  /** Returns the namespace of the Pod; undefined outside a cluster. Default: `POD_NAMESPACE`, then the service account volume. */
  podNamespace?: () => string | undefined;
}

const namespacePattern = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

const duration = z.string().transform((text, context) => {
  try {
    const ms = parseGoDuration(text);
    if (ms > 0) return ms;
    context.addIssue({ code: 'custom', message: 'must be longer than 0' });
  } catch (error) {
    context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : 'is not a duration' });
  }
  return z.NEVER;
});

/** Converts a check that throws into a zod refinement with the thrown message. */
const accepts = (check: (text: string) => void) => (text: string, context: z.RefinementCtx<string>) => {
  try {
    check(text);
  } catch (error) {
    context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : 'is not valid' });
  }
};

const address = z.string().superRefine(accepts((text) => void parseListenAddress(text)));
const addressGlob = z.string().superRefine(accepts((text) => void parseAddressGlob(text)));

/** Flags of connections: permitted Vault addresses, and Kubernetes credentials. */
const connection = {
  'vault-addresses': list.pipe(z.array(addressGlob)).prefault(''),
  'injector-addresses': list.pipe(z.array(addressGlob)).optional(),
  'allow-any-vault-address': flag.prefault('false'),
  'allow-http': flag.prefault('false'),
  kubeconfig: z.string().optional(),
};

const logLevel = z.enum(logLevels, { error: `must be one of ${logLevels.join(', ')}` });
const namespace = z.string().regex(namespacePattern, 'must be the name of a namespace');

const runSchema = z.object({
  namespaces: list.pipe(z.array(z.string().regex(namespacePattern, 'must be names of namespaces'))).prefault(''),
  'leader-elect': flag.prefault('true'),
  'leader-election-namespace': namespace.optional(),
  'leader-election-lease-duration': duration.prefault('15s'),
  'leader-election-renew-deadline': duration.prefault('10s'),
  'leader-election-retry-period': duration.prefault('2s'),
  'metrics-address': address.prefault('0.0.0.0:8080'),
  'health-address': address.prefault('0.0.0.0:8081'),
  'log-level': logLevel.prefault('info'),
  resync: duration.prefault('10m'),
  concurrency: z
    .string()
    .regex(/^[1-9][0-9]{0,2}$/, 'must be a number from 1 to 999')
    .transform(Number)
    .prefault('4'),
  'reconcile-timeout': duration.prefault('3m'),
  'deletion-deadline': duration.prefault('10m'),
  'backoff-base': duration.prefault('1s'),
  'contest-probe': duration.prefault('10m'),
  'crl-lead-time': duration.prefault('5m'),
  ...connection,
});

const runFlags: FlagSet<typeof runSchema> = {
  schema: runSchema,
  booleans: ['leader-elect', 'allow-any-vault-address', 'allow-http'],
  lists: ['namespaces', 'vault-addresses', 'injector-addresses'],
};

/**
 * Parses the flags of `run`.
 * @param argv the arguments after `run`
 * @throws ConfigError, ProxyError
 */
export function parseRunConfig(argv: readonly string[], sources: ConfigSources): RunConfig {
  return assemble(parseFlags(runFlags, argv, sources.env), sources);
}

function assemble(
  values: z.output<typeof runSchema>,
  { env, podNamespace = namespaceOfPod(env) }: ConfigSources,
): RunConfig {
  const addresses = values['vault-addresses'];
  if (values['allow-any-vault-address'] === addresses.length > 0) {
    throw new ConfigError(
      'give exactly one of --vault-addresses (such as https://vault.vault.svc:8200) and --allow-any-vault-address',
    );
  }
  refuseHttp('--vault-addresses', addresses, values['allow-http']);
  refuseHttp('--injector-addresses', values['injector-addresses'] ?? [], values['allow-http']);
  const namespace = values['leader-election-namespace'] ?? (values['leader-elect'] ? podNamespace() : undefined);
  if (values['leader-elect'] && namespace === undefined) {
    throw new ConfigError(
      '--leader-election-namespace is required outside of a cluster (or give --leader-elect=false)',
    );
  }
  return Object.freeze({
    lease: leaseTimes(values),
    namespaces: Object.freeze(values.namespaces),
    leaderElect: values['leader-elect'],
    leaderElectionNamespace: namespace ?? '',
    vaultAddresses: Object.freeze(addresses),
    allowAnyVaultAddress: values['allow-any-vault-address'],
    injectorAddresses: values['injector-addresses'] && Object.freeze(values['injector-addresses']),
    allowHttp: values['allow-http'],
    metricsAddress: values['metrics-address'],
    healthAddress: values['health-address'],
    logLevel: values['log-level'],
    resyncMs: values.resync,
    concurrency: values.concurrency,
    reconcileTimeoutMs: values['reconcile-timeout'],
    deletionDeadlineMs: values['deletion-deadline'],
    backoffBaseMs: values['backoff-base'],
    contestProbeMs: values['contest-probe'],
    crlLeadMs: values['crl-lead-time'],
    kubeconfig: values.kubeconfig,
    proxyFor: readProxies(env),
  });
}

/** @throws ConfigError unless retry period < renew deadline < lease duration */
function leaseTimes(values: z.output<typeof runSchema>): LeaseTimes {
  const [durationMs, renewDeadlineMs, retryPeriodMs] = [
    values['leader-election-lease-duration'],
    values['leader-election-renew-deadline'],
    values['leader-election-retry-period'],
  ];
  if (renewDeadlineMs >= durationMs || retryPeriodMs >= renewDeadlineMs) {
    throw new ConfigError(
      '--leader-election-retry-period must be shorter than --leader-election-renew-deadline, and that shorter than --leader-election-lease-duration: else two operators could lead at once',
    );
  }
  return Object.freeze({ durationMs, renewDeadlineMs, retryPeriodMs });
}

function refuseHttp(flagName: string, addresses: readonly string[], allowed: boolean): void {
  const http = addresses.find((glob) => glob.startsWith('http:'));
  if (http === undefined || allowed) return;
  throw new ConfigError(`${flagName} "${http}": not encrypted; write https://, or add --allow-http`);
}

const manifestFlags = {
  filename: z.string({ error: 'is missing; write -f manifest.yaml, or -f - for standard input' }),
  namespace: namespace.optional(),
};
const manifestLetters = { f: 'filename', n: 'namespace' };

const renderSchema = z.object(manifestFlags);
const renderFlags: FlagSet<typeof renderSchema> = {
  schema: renderSchema,
  booleans: [],
  lists: [],
  letters: manifestLetters,
};

/** The configuration of `render`. */
export interface RenderConfig {
  /** Path of the manifest; `-`: standard input. */
  readonly filename: string;
  /** The namespace for a manifest without one; undefined if the flag is not set. */
  readonly namespace: string | undefined;
}

/** Parses the flags of `render`. @throws ConfigError */
export function parseRenderConfig(argv: readonly string[], env: Environment): RenderConfig {
  const values = parseFlags(renderFlags, argv, env);
  return Object.freeze({ filename: values.filename, namespace: values.namespace });
}

/** Flags of the commands that read a manifest and log in to Vault. */
const targetFlags = { ...manifestFlags, 'log-level': logLevel.prefault('warn'), ...connection };
const targetSet = {
  booleans: ['allow-any-vault-address', 'allow-http'],
  lists: ['vault-addresses', 'injector-addresses'],
};

/** The configuration of a command that reads a manifest and logs in to Vault. */
export interface TargetConfig extends RenderConfig, Pick<RunConfig, keyof AddressFlags | 'kubeconfig' | 'proxyFor'> {
  /** Log level; these commands log to standard error. */
  readonly logLevel: LogLevel;
}

/**
 * The part of the configuration that is common to these commands. Without `--vault-addresses`, any Vault address is permitted: the user runs the
 * command with their own permissions, and wrote the address into the manifest.
 * @throws ConfigError, ProxyError
 */
function targetConfig(values: z.output<z.ZodObject<typeof targetFlags>>, env: Environment): TargetConfig {
  const addresses = values['vault-addresses'];
  if (values['allow-any-vault-address'] && addresses.length > 0)
    throw new ConfigError('give at most one of --vault-addresses and --allow-any-vault-address');
  refuseHttp('--vault-addresses', addresses, values['allow-http']);
  refuseHttp('--injector-addresses', values['injector-addresses'] ?? [], values['allow-http']);
  return {
    filename: values.filename,
    namespace: values.namespace,
    vaultAddresses: Object.freeze(addresses),
    allowAnyVaultAddress: addresses.length === 0,
    injectorAddresses: values['injector-addresses'] && Object.freeze(values['injector-addresses']),
    allowHttp: values['allow-http'],
    logLevel: values['log-level'],
    kubeconfig: values.kubeconfig,
    proxyFor: readProxies(env),
  };
}

const planSchema = z.object({
  ...targetFlags,
  output: z.enum(['text', 'json'], { error: 'must be text or json' }).prefault('text'),
});
const planFlags: FlagSet<typeof planSchema> = {
  schema: planSchema,
  ...targetSet,
  letters: { ...manifestLetters, o: 'output' },
};

/** The configuration of `plan`. */
export interface PlanConfig extends TargetConfig {
  readonly output: 'text' | 'json';
}

/** Parses the flags of `plan`. @throws ConfigError, ProxyError */
export function parsePlanConfig(argv: readonly string[], env: Environment): PlanConfig {
  const values = parseFlags(planFlags, argv, env);
  return Object.freeze({ ...targetConfig(values, env), output: values.output });
}

const noRecipient = 'is missing; write --recipient=age1…, the public key of whoever may restore';

const backupSchema = z.object({
  ...targetFlags,
  recipient: z
    .string({ error: noRecipient })
    .pipe(list)
    .pipe(
      z
        .array(
          z.string().regex(/^age1[a-z0-9]+$/, 'must be public keys that begin with age1, as age-keygen prints them'),
        )
        .min(1, noRecipient),
    ),
  output: z.string().optional(),
});
const backupFlags: FlagSet<typeof backupSchema> = {
  schema: backupSchema,
  ...targetSet,
  lists: [...targetSet.lists, 'recipient'],
  letters: { ...manifestLetters, o: 'output' },
};

/** The configuration of `backup`. */
export interface BackupConfig extends TargetConfig {
  /** Public keys of age; at least one. */
  readonly recipients: readonly string[];
  /** Path of the file to write; undefined: standard output. */
  readonly output: string | undefined;
}

/** Parses the flags of `backup`. @throws ConfigError, ProxyError */
export function parseBackupConfig(argv: readonly string[], env: Environment): BackupConfig {
  const values = parseFlags(backupFlags, argv, env);
  return Object.freeze({ ...targetConfig(values, env), recipients: values.recipient, output: values.output });
}

const restoreSchema = z.object({
  ...targetFlags,
  identity: z.string({ error: 'is missing; write --identity=FILE, the file that age-keygen wrote' }),
  backup: z.string({ error: 'is missing; name the file that the command backup wrote' }),
  'from-cluster': z.string().optional(),
});
const restoreFlags: FlagSet<typeof restoreSchema> = {
  schema: restoreSchema,
  ...targetSet,
  letters: { ...manifestLetters, i: 'identity' },
  argument: 'backup',
};

/** The configuration of `restore`. */
export interface RestoreConfig extends TargetConfig {
  /** Path of the file with the private keys of age. */
  readonly identity: string;
  /** Path of the backup. */
  readonly backup: string;
  /** UID of the other cluster that the backup may be of; undefined: it must be of this cluster. */
  readonly fromCluster: string | undefined;
}

/** Parses the flags of `restore`. @throws ConfigError, ProxyError */
export function parseRestoreConfig(argv: readonly string[], env: Environment): RestoreConfig {
  const values = parseFlags(restoreFlags, argv, env);
  const { identity, backup } = values;
  return Object.freeze({ ...targetConfig(values, env), identity, backup, fromCluster: values['from-cluster'] });
}

function namespaceOfPod(env: ConfigSources['env']): () => string | undefined {
  return () => {
    const named = env['POD_NAMESPACE'] ?? '';
    if (named !== '') return named;
    try {
      return readFileSync('/var/run/secrets/kubernetes.io/serviceaccount/namespace', 'utf8').trim() || undefined;
    } catch {
      return undefined;
    }
  };
}

/** Returns the name of the Lease. Operators with different sets of namespaces have different Leases. */
export function leaseName(namespaces: readonly string[]): string {
  if (namespaces.length === 0) return 'istio-vault-ca';
  const sorted = [...new Set(namespaces)].sort().join(',');
  return `istio-vault-ca-${createHash('sha256').update(sorted).digest('hex').slice(0, 8)}`;
}

interface AddressGlob {
  scheme: string;
  host: RegExp;
  port: string;
}

const defaultPorts: Readonly<Record<string, string>> = { https: '443', http: '80' };

/**
 * Parses a glob such as `https://vault-*.vault.svc:8200`. In the host, `*` matches one or more characters of one label. As the port, `*`
 * matches every port. Without a port, the default port of the scheme applies.
 * @throws RangeError if the text is not a glob
 */
function parseAddressGlob(text: string): AddressGlob {
  const match =
    /^(https?):\/\/(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_*-]+(?:\.[A-Za-z0-9_*-]+)*)(?::([0-9]{1,5}|\*))?\/?$/.exec(text);
  if (match === null) {
    throw new RangeError(`"${text}" must be scheme, host and port, such as https://*.vault.svc:8200`);
  }
  const [, scheme = '', host = '', port = defaultPorts[scheme] ?? ''] = match;
  const canonical = host.startsWith('[') ? new URL(`${scheme}://${host}`).hostname : host.toLowerCase();
  const pattern = canonical.replace(/[.[\]:]/g, '\\$&').replace(/\*+/g, '[a-z0-9_-]+');
  return { scheme, host: new RegExp(`^${pattern}$`), port: port === '*' ? port : String(Number(port)) };
}

/** The flags that permit addresses. */
type AddressFlags = Pick<RunConfig, 'vaultAddresses' | 'allowAnyVaultAddress' | 'injectorAddresses' | 'allowHttp'>;

/** Whether the operator may connect to an address. */
export const addressAllowed = (config: AddressFlags, url: string): boolean =>
  permitted(url, config.allowAnyVaultAddress ? 'any' : config.vaultAddresses, config.allowHttp);

/**
 * Whether istiod's agent may be given an address. The agent sends it a token of istiod's service account, and takes istiod's CA from it.
 */
export const injectorAddressAllowed = (config: AddressFlags, url: string): boolean =>
  config.injectorAddresses ? permitted(url, config.injectorAddresses, config.allowHttp) : addressAllowed(config, url);

/**
 * Whether an address matches one of the globs. The host is compared in its canonical form. Addresses with user information, a query, a
 * fragment, or characters that URL parsers interpret differently are not permitted.
 */
function permitted(url: string, globs: readonly string[] | 'any', allowHttp: boolean): boolean {
  if (!/^https?:\/\/[A-Za-z0-9_.:[\]-]+(?:\/[A-Za-z0-9._~/-]*)?$/.test(url) || !URL.canParse(url)) return false;
  const { protocol, hostname, port } = new URL(url);
  const scheme = protocol.slice(0, -1);
  if (scheme === 'http' && !allowHttp) return false;
  if (globs === 'any') return true;
  return globs.map(parseAddressGlob).some((glob) => {
    const portFits = glob.port === '*' || glob.port === (port === '' ? defaultPorts[scheme] : port);
    return glob.scheme === scheme && portFits && glob.host.test(hostname);
  });
}
