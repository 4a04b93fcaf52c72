/** How flags are read: Go's way on the command line, each also as an `ISTIO_VAULT_CA_…` variable. Flags win. */
import { parseArgs } from 'node:util';
import { z } from 'zod';

/** A mistake in flags or environment; the message names the flag, the value and the remedy. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** The flags of one command. */
export interface FlagSet<S extends z.ZodObject> {
  /** How each is read from its text, and what it is when not given. */
  schema: S;
  /** Those that are true without a value. */
  booleans: readonly string[];
  /** Those that may be given repeatedly; of others the last counts. */
  lists: readonly string[];
  /** One letter that stands for a flag. */
  letters?: Readonly<Record<string, string>>;
}

/** A flag that is true or false. */
export const flag = z.enum(['true', 'false'], { error: 'must be true or false' }).transform((text) => text === 'true');

/** A comma-separated flag: sorted, without repetitions. */
export const list = z.string().transform((text) => {
  const parts = text.split(',').map((part) => part.trim());
  return [...new Set(parts.filter((part) => part !== ''))].sort();
});

/** The environment variable of a flag. */
function environmentName(flagName: string): string {
  return `ISTIO_VAULT_CA_${flagName.toUpperCase().replaceAll('-', '_')}`;
}

/**
 * Reads the flags of a command.
 * @param argv what follows the command
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
  const said = issue?.message ?? 'is not valid';
  if (raw[name] === undefined) throw new ConfigError(`--${name} ${said}`);
  throw new ConfigError(`${given.has(name) ? `--${name}` : environmentName(name)} "${raw[name]}": ${said}`);
}

/** The flags as text by name. */
function readFlags({ schema, booleans, lists, letters = {} }: FlagSet<z.ZodObject>, argv: readonly string[]) {
  const names = Object.keys(schema.shape);
  const letterOf = (name: string) => Object.entries(letters).find(([, flagName]) => flagName === name)?.[0];
  // Go's way: a bare boolean flag is true, and a value follows an equals sign only.
  const args = argv.map((arg) => (arg.startsWith('--') && booleans.includes(arg.slice(2)) ? `${arg}=true` : arg));
  const options = Object.fromEntries(
    names.map((name) => {
      const short = letterOf(name);
      return [name, { type: 'string' as const, multiple: true, ...(short === undefined ? {} : { short }) }];
    }),
  );
  const words = names.map((name) => (letterOf(name) === undefined ? `--${name}` : `-${letterOf(name)}, --${name}`));
  const known = `known flags: ${words.join(', ')}`;
  const { tokens } = parseArgs({ args, options, strict: false, tokens: true });
  const read = new Map<string, string>();
  for (const token of tokens) {
    if (token.kind === 'positional') throw new ConfigError(`unexpected argument "${token.value}"; ${known}`);
    if (token.kind === 'option-terminator') continue;
    const { name, rawName } = token;
    const byLetter = rawName === `-${letterOf(name) ?? ''}`;
    if (!Object.hasOwn(options, name) || !(rawName.startsWith('--') || byLetter)) {
      throw new ConfigError(`unknown flag ${rawName}; ${known}`);
    }
    // `-f=x` is `-f x`, as kubectl has it
    const value = byLetter && token.inlineValue ? token.value.replace(/^=/, '') : token.value;
    // An empty value, as templates write it, is none.
    if (value === '') continue;
    if (value === undefined || (!token.inlineValue && (byLetter ? /^-./ : /^--/).test(value))) {
      throw new ConfigError(`${rawName} needs a value; write ${byLetter ? `${rawName} …` : `--${name}=…`}`);
    }
    const before = lists.includes(name) ? read.get(name) : undefined;
    read.set(name, before === undefined ? value : `${before},${value}`);
  }
  return read;
}
