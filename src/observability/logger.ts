/**
 * The log: one JSON object a line, on standard output. Three fences keep secrets out: they travel as `Secret`; errors are
 * reduced to what is known to be harmless and fields with telling names are redacted; each line is scrubbed by looks.
 */
import { pino, stdTimeFunctions, type DestinationStream, type Logger as Pino } from 'pino';
import { isError } from './is-error.ts';
import { scrub } from './scrub.ts';

type LogFields = Record<string, unknown>;

/** What the program logs with. An error goes under `err`; any field that holds an error is reduced alike. */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

export const logLevels = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof logLevels)[number];

export interface LoggerOptions {
  level: LogLevel;
  /** Where lines go; standard output unless given. */
  destination?: DestinationStream;
}

const secretFields = [
  'token',
  'clientToken',
  'client_token',
  'accessor',
  'jwt',
  'password',
  'secret',
  'secretId',
  'secret_id',
  'secret-id',
  'privateKey',
  'private_key',
  'key_data',
  'ca-key.pem',
  'tls.key',
  'pem_bundle',
  'authorization',
  'Authorization',
  'x-vault-token',
  'X-Vault-Token',
];

const redactPaths = secretFields.flatMap((name) => [`["${name}"]`, `*["${name}"]`]);

/** Logs as JSON. */
export function createLogger(options: LoggerOptions): Logger {
  const settings = {
    level: options.level,
    base: null,
    messageKey: 'msg',
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    // Errors come reduced; pino's own serializer would add to them.
    serializers: { err: (value: unknown) => value },
    redact: { paths: redactPaths, censor: '[redacted]' },
    hooks: { streamWrite: scrub },
  };
  return wrap(options.destination === undefined ? pino(settings) : pino(settings, options.destination));
}

function wrap(inner: Pino): Logger {
  return {
    debug: (message, fields) => inner.debug(safeFields(fields), message),
    info: (message, fields) => inner.info(safeFields(fields), message),
    warn: (message, fields) => inner.warn(safeFields(fields), message),
    error: (message, fields) => inner.error(safeFields(fields), message),
  };
}

function safeFields(fields: LogFields = {}): LogFields {
  const entries = Object.entries(fields).map(([name, value]) => [
    name,
    name === 'err' || isError(value) ? safeError(value) : value,
  ]);
  return Object.fromEntries(entries) as LogFields;
}

/** Classes whose text is ours or Node's: the others may quote requests and their headers. */
const knownErrors = new Set([
  'Error',
  'TypeError',
  'RangeError',
  'ReferenceError',
  'SyntaxError',
  'AggregateError',
  'AbortError',
  'TimeoutError',
  'ZodError',
  'ConfigError',
  'KubeError',
  'VaultError',
  'ProblemError',
]);

/** What of an error may be logged. */
export interface SafeError {
  name: string;
  message: string;
  code?: string | number;
  kind?: string;
  stack?: string;
  cause?: SafeError;
}

/**
 * Reduces an error to name, message, `code` or `kind`, and for known classes the stack; never other properties, such as
 * the request an HTTP library hangs on its errors. Messages of unknown classes are cut to 200 characters.
 */
export function safeError(value: unknown, depth = 0): SafeError {
  if (!isError(value)) return { name: 'NotAnError', message: cut(scrub(describe(value)), 200) };
  const known = knownErrors.has(value.name);
  const { code, kind } = value as { code?: unknown; kind?: unknown };
  return {
    name: value.name,
    message: cut(scrub(value.message), known ? 2000 : 200),
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
    ...(typeof kind === 'string' ? { kind } : {}),
    ...(known && value.stack !== undefined ? { stack: cut(scrub(value.stack), 4000) } : {}),
    ...(value.cause !== undefined && depth < 3 ? { cause: safeError(value.cause, depth + 1) } : {}),
  };
}

function describe(value: unknown): string {
  return typeof value === 'string' ? value : `a thrown ${value === null ? 'null' : typeof value}`;
}

const cut = (text: string, most: number): string => (text.length <= most ? text : `${text.slice(0, most)}…`);
