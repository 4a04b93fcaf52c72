/** Flags and environment of `run` as a frozen configuration. Flags win over `ISTIO_VAULT_CA_…` variables. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { parseGoDuration } from './api/duration.ts';
import { parseListenAddress } from './observability/health.ts';
import { logLevels, type LogLevel } from './observability/logger.ts';

/** A mistake in flags or environment; the message names the flag, the value and the remedy. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** What `run` was told. Durations in milliseconds. */
export interface RunConfig {
  /** Sorted, without repetitions; empty for all namespaces. */
  readonly namespaces: readonly string[];
  readonly leaderElect: boolean;
  /** Empty only without leader election. */
  readonly leaderElectionNamespace: string;
  /** Globs of Vault addresses that may be connected to; empty with `allowAnyVaultAddress`. */
  readonly vaultAddresses: readonly string[];
  readonly allowAnyVaultAddress: boolean;
  readonly allowHttp: boolean;
  /** `host:port`, or `0` for off. */
  readonly metricsAddress: string;
  /** `host:port`, or `0` for off. */
  readonly healthAddress: string;
  readonly logLevel: LogLevel;
  readonly resyncMs: number;
  readonly concurrency: number;
  readonly deletionDeadlineMs: number;
  readonly backoffBaseMs: number;
  /** undefined for the usual order. */
  readonly kubeconfig: string | undefined;
}

/** What `parseRunConfig` reads besides its flags. */
export interface ConfigSources {
  env: Readonly<Record<string, string | undefined>>;
  /** The namespace of the pod this runs in; undefined outside of a cluster. */
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

const flag = z.enum(['true', 'false'], { error: 'must be true or false' }).transform((text) => text === 'true');

const list = z.string().transform((text) => {
  const parts = text.split(',').map((part) => part.trim());
  return [...new Set(parts.filter((part) => part !== ''))].sort();
});

/** A check as zod wants it: the thrown message becomes the issue's. */
const accepts = (check: (text: string) => void) => (text: string, context: z.RefinementCtx<string>) => {
  try {
    check(text);
  } catch (error) {
    context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : 'is not valid' });
  }
};

const address = z.string().superRefine(accepts((text) => void parseListenAddress(text)));
const addressGlob = z.string().superRefine(accepts((text) => void parseAddressGlob(text)));

/** Every flag: how it is read and what it is when not given. */
const flags = z.object({
  namespaces: list.pipe(z.array(z.string().regex(namespacePattern, 'must be names of namespaces'))).prefault(''),
  'leader-elect': flag.prefault('true'),
  'leader-election-namespace': z.string().regex(namespacePattern, 'must be the name of a namespace').optional(),
  'vault-addresses': list.pipe(z.array(addressGlob)).prefault(''),
  'allow-any-vault-address': flag.prefault('false'),
  'allow-http': flag.prefault('false'),
  'metrics-address': address.prefault('0.0.0.0:8080'),
  'health-address': address.prefault('0.0.0.0:8081'),
  'log-level': z.enum(logLevels, { error: `must be one of ${logLevels.join(', ')}` }).prefault('info'),
  resync: duration.prefault('10m'),
  concurrency: z
    .string()
    .regex(/^[1-9][0-9]{0,2}$/, 'must be a number from 1 to 999')
    .transform(Number)
    .prefault('4'),
  'deletion-deadline': duration.prefault('10m'),
  'backoff-base': duration.prefault('1s'),
  kubeconfig: z.string().optional(),
});

type FlagName = keyof typeof flags.shape;

const flagNames = Object.keys(flags.shape) as FlagName[];
const booleanFlags: readonly string[] = flagNames.filter((name) => /^(leader-elect|allow-.*)$/.test(name));
const listFlags: readonly string[] = ['namespaces', 'vault-addresses'];

/** The environment variable of a flag. */
function environmentName(flagName: string): string {
  return `ISTIO_VAULT_CA_${flagName.toUpperCase().replaceAll('-', '_')}`;
}

/**
 * Reads the flags of `run`.
 * @param argv what follows `run` on the command line
 * @throws ConfigError
 */
export function parseRunConfig(argv: readonly string[], sources: ConfigSources): RunConfig {
  const given = readFlags(argv);
  const raw: Record<string, string> = {};
  for (const name of flagNames) {
    const value = given.get(name) ?? (sources.env[environmentName(name)] || undefined);
    if (value !== undefined) raw[name] = value;
  }
  const parsed = flags.safeParse(raw);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const name = String(issue?.path[0]);
    throw new ConfigError(`${source(name, given)} "${raw[name] ?? ''}": ${issue?.message ?? 'is not valid'}`);
  }
  return assemble(parsed.data, sources.podNamespace ?? namespaceOfPod(sources.env));
}

function assemble(values: z.output<typeof flags>, podNamespace: () => string | undefined): RunConfig {
  const addresses = values['vault-addresses'];
  if (values['allow-any-vault-address'] === addresses.length > 0) {
    throw new ConfigError(
      'give exactly one of --vault-addresses (such as https://vault.vault.svc:8200) and --allow-any-vault-address',
    );
  }
  const http = addresses.find((glob) => glob.startsWith('http:'));
  if (http !== undefined && !values['allow-http']) {
    throw new ConfigError(`--vault-addresses "${http}": not encrypted; write https://, or add --allow-http`);
  }
  const namespace = values['leader-election-namespace'] ?? (values['leader-elect'] ? podNamespace() : undefined);
  if (values['leader-elect'] && namespace === undefined) {
    throw new ConfigError(
      '--leader-election-namespace is required outside of a cluster (or give --leader-elect=false)',
    );
  }
  return Object.freeze({
    namespaces: Object.freeze(values.namespaces),
    leaderElect: values['leader-elect'],
    leaderElectionNamespace: namespace ?? '',
    vaultAddresses: Object.freeze(addresses),
    allowAnyVaultAddress: values['allow-any-vault-address'],
    allowHttp: values['allow-http'],
    metricsAddress: values['metrics-address'],
    healthAddress: values['health-address'],
    logLevel: values['log-level'],
    resyncMs: values.resync,
    concurrency: values.concurrency,
    deletionDeadlineMs: values['deletion-deadline'],
    backoffBaseMs: values['backoff-base'],
    kubeconfig: values.kubeconfig,
  });
}

/** The flags as text by name; lists may be given repeatedly, of others the last counts, as in Go. */
function readFlags(argv: readonly string[]): Map<string, string> {
  // Go's way: a bare boolean flag is true, and a value follows an equals sign only.
  const args = argv.map((arg) => (arg.startsWith('--') && booleanFlags.includes(arg.slice(2)) ? `${arg}=true` : arg));
  const options = Object.fromEntries(flagNames.map((name) => [name, { type: 'string' as const, multiple: true }]));
  const known = `known flags: ${flagNames.map((name) => `--${name}`).join(', ')}`;
  const { tokens } = parseArgs({ args, options, strict: false, tokens: true });
  const read = new Map<string, string>();
  for (const token of tokens) {
    if (token.kind === 'positional') throw new ConfigError(`unexpected argument "${token.value}"; ${known}`);
    if (token.kind === 'option-terminator') continue;
    const { name, value } = token;
    if (!Object.hasOwn(options, name) || !token.rawName.startsWith('--')) {
      throw new ConfigError(`unknown flag ${token.rawName}; ${known}`);
    }
    // An empty value, as templates write it, is none.
    if (value === '') continue;
    if (value === undefined || (!token.inlineValue && value.startsWith('--'))) {
      throw new ConfigError(`--${name} needs a value; write --${name}=…`);
    }
    const before = listFlags.includes(name) ? read.get(name) : undefined;
    read.set(name, before === undefined ? value : `${before},${value}`);
  }
  return read;
}

function source(name: string, given: ReadonlyMap<string, string>): string {
  return given.has(name) ? `--${name}` : environmentName(name);
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

/** The name of the leader's Lease: one for each set of namespaces. */
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
 * A glob such as `https://vault-*.vault.svc:8200`: in the host `*` stands for one or more characters of one label, as
 * port for any; without a port the scheme's own is meant.
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

/**
 * Whether the program may connect to the address. The host is compared as URL parsers write it; addresses with user
 * information, query, fragment or characters that parsers read differently are refused.
 */
export function addressAllowed(
  config: Pick<RunConfig, 'vaultAddresses' | 'allowAnyVaultAddress' | 'allowHttp'>,
  url: string,
): boolean {
  if (!/^https?:\/\/[A-Za-z0-9_.:[\]-]+(?:\/[A-Za-z0-9._~/-]*)?$/.test(url) || !URL.canParse(url)) return false;
  const { protocol, hostname, port } = new URL(url);
  const scheme = protocol.slice(0, -1);
  if (scheme === 'http' && !config.allowHttp) return false;
  if (config.allowAnyVaultAddress) return true;
  return config.vaultAddresses.map(parseAddressGlob).some((glob) => {
    const portFits = glob.port === '*' || glob.port === (port === '' ? defaultPorts[scheme] : port);
    return glob.scheme === scheme && portFits && glob.host.test(hostname);
  });
}
