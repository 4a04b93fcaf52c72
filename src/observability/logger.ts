/**
 * The log: one JSON object per line, on standard output. Three measures keep secrets out. Secrets are passed as `Secret`. Errors are reduced
 * to harmless parts, and fields with names of secrets are redacted. Each line is searched for patterns of secrets (`text/redact.ts`).
 */
import { pino, stdTimeFunctions, type DestinationStream, type Logger as Pino } from 'pino';
import { isError } from './is-error.ts';
import { cut, head } from '../text/bounded.ts';
import { redact } from '../text/redact.ts';
import { readableStack } from './stack.ts';

type LogFields = Record<string, unknown>;

/** The logger of the program. Pass errors in the field `err`. An error in any other field is reduced in the same way. */
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
  /** Default: standard output. */
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

/** Creates a logger that writes JSON lines. */
export function createLogger(options: LoggerOptions): Logger {
  const settings = {
    level: options.level,
    base: null,
    messageKey: 'msg',
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    // `safeFields` has reduced the error; pino's default serializer would add properties.
    serializers: { err: (value: unknown) => value },
    redact: { paths: redactPaths, censor: '[redacted]' },
    hooks: { streamWrite: redact },
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

/** Error classes whose messages come from this program or Node. Messages of other classes can contain requests with headers. */
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

/** The parts of an error that are logged. */
export interface SafeError {
  name: string;
  message: string;
  code?: string | number;
  kind?: string;
  stack?: string;
  cause?: SafeError;
}

/**
 * Reduces an error to name, message, `code`, `kind` and causes, and for known classes the stack. Other properties are dropped, such as the
 * request that HTTP libraries attach. Messages of unknown classes are truncated to 200 characters.
 * @param depth the number of errors above this cause; at most three causes are kept
 */
export function safeError(value: unknown, depth = 0): SafeError {
  if (!isError(value)) return { name: 'NotAnError', message: shown(describe(value), 200) };
  const known = knownErrors.has(value.name);
  const { code, kind } = value as { code?: unknown; kind?: unknown };
  return {
    name: value.name,
    message: shown(value.message, known ? 2000 : 200),
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
    ...(typeof kind === 'string' ? { kind } : {}),
    ...(known && value.stack !== undefined ? { stack: shown(readableStack(value.stack), 4000) } : {}),
    ...(value.cause !== undefined && depth < 3 ? { cause: safeError(value.cause, depth + 1) } : {}),
  };
}

function describe(value: unknown): string {
  return typeof value === 'string' ? value : `a thrown ${value === null ? 'null' : typeof value}`;
}

/** A text without secrets, truncated. Redaction looks at somewhat more than is shown, because it can make a text shorter. */
const shown = (text: string, longest: number): string => cut(redact(head(text, 4 * longest)), longest);
