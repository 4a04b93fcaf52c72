/**
 * Parsing of flags: on the command line in the syntax of Go, and as environment variables `ISTIO_VAULT_CA_…`. The command line takes
 * precedence.
 */
import { parseArgs } from 'node:util';
import { z } from 'zod';

/** An invalid flag or environment variable. The message names flag, value and resolution. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** The flags of one command. */
export interface FlagSet<S extends z.ZodObject> {
  /** Converts the text of each flag, and has the defaults. */
  schema: S;
  /** Flags that are true without a value. */
  booleans: readonly string[];
  /** Flags whose occurrences are joined. For every other flag, the last occurrence applies. */
  lists: readonly string[];
  /** One-letter short forms, with the flag of each. */
  letters?: Readonly<Record<string, string>>;
  /** The flag that takes the one argument without a flag; absent: such an argument is an error. */
  argument?: string;
}

/** A boolean flag. */
export const flag = z.enum(['true', 'false'], { error: 'must be true or false' }).transform((text) => text === 'true');

/** A comma-separated list, sorted and without duplicates. */
export const list = z.string().transform((text) => {
  const parts = text.split(',').map((part) => part.trim());
  return [...new Set(parts.filter((part) => part !== ''))].sort();
});

/** The name of the environment variable of a flag. */
function environmentName(flagName: string): string {
  return `ISTIO_VAULT_CA_${flagName.toUpperCase().replaceAll('-', '_')}`;
}

/**
 * Parses the flags of a command.
 * @param argv the arguments after the command
 * @throws ConfigError
 */
export function parseFlags<S extends z.ZodObject>(set: FlagSet<S>, argv: readonly string[], env: Environment) {
  const given = readFlags(set, argv);
  const raw: Record<string, string> = {};
  for (const name of Object.keys(set.schema.shape)) {
    const value = given.get(name) ?? (env[environmentName(name)] || undefined);
    if (value !== undefined) raw[name] = value;
  }
  const parsed = set.schema.safeParse(raw);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const name = String(issue?.path[0]);
  const message = issue?.message ?? 'is not valid';
  if (raw[name] === undefined) throw new ConfigError(`--${name} ${message}`);
  throw new ConfigError(`${given.has(name) ? `--${name}` : environmentName(name)} "${raw[name]}": ${message}`);
}

/** The text of each given flag, by name. @throws ConfigError for unknown flags, other arguments and missing values */
function readFlags({ schema, booleans, lists, letters = {}, argument }: FlagSet<z.ZodObject>, argv: readonly string[]) {
  const names = Object.keys(schema.shape);
  const letterOf = (name: string) => Object.entries(letters).find(([, flagName]) => flagName === name)?.[0];
  // As in Go, a boolean flag without a value is true, and its value can only follow an equals sign.
  const args = argv.map((arg) => (arg.startsWith('--') && booleans.includes(arg.slice(2)) ? `${arg}=true` : arg));
  const options = Object.fromEntries(
    names.map((name) => {
      const short = letterOf(name);
      return [name, { type: 'string' as const, multiple: true, ...(short === undefined ? {} : { short }) }];
    }),
  );
  const forms = names.map((name) => (letterOf(name) === undefined ? `--${name}` : `-${letterOf(name)}, --${name}`));
  const known = `known flags: ${forms.join(', ')}`;
  const { tokens } = parseArgs({ args, options, strict: false, tokens: true });
  const read = new Map<string, string>();
  for (const token of tokens) {
    if (token.kind === 'positional') {
      if (argument === undefined || read.has(argument))
        throw new ConfigError(`unexpected argument "${token.value}"; ${known}`);
      read.set(argument, token.value);
      continue;
    }
    if (token.kind === 'option-terminator') continue;
    const { name, rawName } = token;
    const byLetter = rawName === `-${letterOf(name) ?? ''}`;
    if (!Object.hasOwn(options, name) || !(rawName.startsWith('--') || byLetter)) {
      throw new ConfigError(`unknown flag ${rawName}; ${known}`);
    }
    // `-f=x` means `-f x`, as in kubectl.
    const value = byLetter && token.inlineValue ? token.value.replace(/^=/, '') : token.value;
    // An empty value, which templates can produce, means that the flag is not set.
    if (value === '') continue;
    if (value === undefined || (!token.inlineValue && (byLetter ? /^-./ : /^--/).test(value))) {
      throw new ConfigError(`${rawName} needs a value; write ${byLetter ? `${rawName} …` : `--${name}=…`}`);
    }
    const before = lists.includes(name) ? read.get(name) : undefined;
    read.set(name, before === undefined ? value : `${before},${value}`);
  }
  return read;
}
