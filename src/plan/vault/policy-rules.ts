/**
 * Reads the text of a Vault policy that somebody else manages, as far as it decides what istiod's Vault Agent may do. Pure.
 * Source: https://developer.hashicorp.com/vault/docs/concepts/policies#policy-syntax
 */
import { isObject } from '../../api/json.ts';

/** One rule of a policy. */
export interface PolicyRule {
  /** Path in Vault without a leading slash; `*` at the end and `+` for a segment are wildcards. */
  path: string;
  capabilities: string[];
  /** Names of attributes with which Vault refuses the reads of Vault Agent, such as `min_wrapping_ttl`. */
  refusing: string[];
  /** Names of further attributes, such as `denied_parameters`. */
  others: string[];
  /** The time from which the rule does not exist any more, milliseconds since the epoch (OpenBao). Absent: it does not end. */
  endsMs?: number;
}

/** The longest policy that is read, in UTF-16 code units. */
export const longestPolicy = 64 * 1024;

/** The capabilities that the deprecated attribute `policy` of a rule stands for. */
const shorthands: Readonly<Record<string, readonly string[]>> = {
  deny: ['deny'],
  read: ['read', 'list'],
  write: ['create', 'read', 'update', 'delete', 'list'],
  sudo: ['create', 'read', 'update', 'delete', 'list', 'sudo'],
};

/**
 * Attributes with which Vault refuses a read that comes without parameters and asks for no wrapped answer, as Vault Agent reads, or that needs
 * somebody's confirmation. An empty value asks for nothing. `allowed_parameters` and `denied_parameters` matter for writes alone.
 */
const refusingAttributes: ReadonlySet<string> = new Set([
  ...['min_wrapping_ttl', 'max_wrapping_ttl', 'required_parameters', 'mfa_methods', 'control_group'],
]);

/** A policy that is not understood. */
class Unreadable extends Error {}

/**
 * Whitespace and comments. The pattern reads every text in one way only, so that its time grows in proportion to the length: a comment of
 * one line ends with its line.
 */
const gapPattern = /(?:\s|(?:#|\/\/)[^\n]*(?:\n|$)|\/\*(?:[^*]|\*(?!\/))*\*\/)*/y;

/** A string, a punctuation mark, or a word. */
const tokenPattern = /"(?:[^"\\\n]|\\.)*"|[{}[\],=:]|[\w.+-]+/y;

function tokensOf(text: string): string[] {
  const tokens: string[] = [];
  for (let at = 0; ; at = tokenPattern.lastIndex) {
    gapPattern.lastIndex = at;
    gapPattern.test(text);
    tokenPattern.lastIndex = gapPattern.lastIndex;
    if (tokenPattern.lastIndex >= text.length) return tokens;
    const [token] = tokenPattern.exec(text) ?? [];
    if (token === undefined) throw new Unreadable();
    tokens.push(token);
  }
}

/** Name and value of an attribute. An attribute can occur several times. */
type Attribute = [name: string, value: unknown];

/** Reads HCL as far as policies use it: attributes, and blocks with at most one label. */
class HclReader {
  readonly #tokens: string[];
  #at = 0;

  constructor(text: string) {
    this.#tokens = tokensOf(text);
  }

  /** @throws Unreadable */
  rules(): PolicyRule[] {
    const rules: PolicyRule[] = [];
    while (this.#peek() !== undefined) {
      const name = plain(this.#next());
      if (name !== 'path' && this.#take('=')) this.#value(0);
      else if (name === 'path') {
        const path = plain(this.#next());
        this.#take('=');
        rules.push(ruleOf(path, this.#entries(0)));
      } else throw new Unreadable();
    }
    return rules;
  }

  #peek = (): string | undefined => this.#tokens[this.#at];

  #next(): string {
    const token = this.#tokens[this.#at];
    if (token === undefined) throw new Unreadable();
    this.#at += 1;
    return token;
  }

  #take(token: string): boolean {
    if (this.#peek() !== token) return false;
    this.#at += 1;
    return true;
  }

  #entries(depth: number): Attribute[] {
    if (depth > deepest || this.#next() !== '{') throw new Unreadable();
    const entries: Attribute[] = [];
    while (!this.#take('}')) {
      const name = plain(this.#next());
      const isAttribute = this.#take('=') || this.#take(':');
      // a block can have a label, as in `factor "name" { … }`
      if (!isAttribute && this.#peek()?.startsWith('"')) this.#next();
      entries.push([name, isAttribute ? this.#value(depth + 1) : this.#entries(depth + 1)]);
      this.#take(',');
    }
    return entries;
  }

  #value(depth: number): unknown {
    if (depth > deepest) throw new Unreadable();
    if (this.#peek() === '{') return this.#entries(depth);
    if (!this.#take('[')) return plain(this.#next());
    const values: unknown[] = [];
    while (!this.#take(']')) {
      values.push(this.#value(depth + 1));
      this.#take(',');
    }
    return values;
  }
}

/** The deepest nesting that is read. */
const deepest = 10;

/**
 * A word, or a string without its quotes. Escape sequences other than `\"` and `\\`, and `${`, which HCL reads in ways of its own, are not
 * understood: no path needs them. @throws Unreadable
 */
function plain(token: string): string {
  if (/^[\w.+-]+$/.test(token)) return token;
  if (!token.startsWith('"') || token.includes('${')) throw new Unreadable();
  return token.slice(1, -1).replace(/\\(.)/g, (_, escaped: string) => {
    if (escaped !== '"' && escaped !== '\\') throw new Unreadable();
    return escaped;
  });
}

/** The value of an attribute that must not occur twice: it is a text; undefined: the attribute is missing. @throws Unreadable */
function textOf(attributes: Attribute[], name: string): string | undefined {
  const [first, ...more] = attributes.filter(([candidate]) => candidate === name);
  if (first === undefined) return undefined;
  const [, value] = first;
  if (more.length > 0 || !['string', 'number'].includes(typeof value)) throw new Unreadable();
  return String(value);
}

/** The items of all lists of a name: Vault combines them. @throws Unreadable if one is no list of texts */
const listsOf = (attributes: Attribute[], wanted: string): string[] =>
  attributes.flatMap(([name, value]) => {
    if (name !== wanted) return [];
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) throw new Unreadable();
    return value;
  });

/** The capabilities that the deprecated attribute stands for. @throws Unreadable */
function capabilitiesOf(shorthand: string | undefined): readonly string[] {
  if (shorthand === undefined) return [];
  const capabilities = Object.hasOwn(shorthands, shorthand) ? shorthands[shorthand] : undefined;
  if (!capabilities) throw new Unreadable();
  return capabilities;
}

/** The end of a rule: seconds since the epoch, or a time as in RFC 3339. @throws Unreadable */
function endOf(expiration: string | undefined): { endsMs?: number } {
  if (expiration === undefined || expiration === '') return {};
  const endsMs = /^\d{1,12}$/.test(expiration) ? Number(expiration) * 1000 : Date.parse(expiration);
  if (Number.isNaN(endsMs)) throw new Unreadable();
  return { endsMs };
}

/** Whether the value of an attribute asks for nothing: an empty list, or no time (`0`, `0s`, an empty text). */
function isEmpty(value: unknown): boolean {
  if (typeof value === 'string') return !/[1-9]/.test(value);
  return Array.isArray(value) ? value.length === 0 : value === 0;
}

/** @throws Unreadable */
function ruleOf(path: string, attributes: Attribute[]): PolicyRule {
  const names = attributes
    // OpenBao has comments on rules
    .filter(([name]) => !['capabilities', 'policy', 'expiration', 'comment'].includes(name))
    .filter(([name, value]) => !(refusingAttributes.has(name) && isEmpty(value)))
    .map(([name]) => name);
  const granted = [...listsOf(attributes, 'capabilities'), ...capabilitiesOf(textOf(attributes, 'policy'))];
  return {
    path: path.replace(/^\//, ''),
    capabilities: [...new Set(granted)],
    refusing: [...new Set(names.filter((name) => refusingAttributes.has(name)))],
    others: [...new Set(names.filter((name) => !refusingAttributes.has(name)))],
    ...endOf(textOf(attributes, 'expiration')),
  };
}

/** The number of keys of all objects within a value. */
function keysWithin(value: unknown): number {
  let count = 0;
  const rest = [value];
  for (let next = rest.pop(); next !== undefined; next = rest.pop()) {
    if (isObject(next)) count += Object.keys(next).length;
    if (typeof next === 'object' && next !== null) for (const inner of Object.values(next)) rest.push(inner);
  }
  return count;
}

/** @throws Unreadable or SyntaxError */
function jsonRules(text: string): PolicyRule[] {
  const parsed: unknown = JSON.parse(text);
  // of a key that occurs twice, `JSON.parse` drops the first value, which Vault does not
  if (tokensOf(text).filter((token) => token === ':').length !== keysWithin(parsed)) throw new Unreadable();
  const paths = isObject(parsed) ? parsed['path'] : undefined;
  if (!isObject(paths)) throw new Unreadable();
  return Object.entries(paths).map(([path, body]) => {
    if (!isObject(body)) throw new Unreadable();
    return ruleOf(path, Object.entries(body));
  });
}

/** The rules of a policy, in HCL or JSON; undefined: the text is too long or is not understood. */
export function readPolicyRules(text: string): PolicyRule[] | undefined {
  if (text.length > longestPolicy) return undefined;
  try {
    return text.trimStart().startsWith('{') ? jsonRules(text) : new HclReader(text).rules();
  } catch (error) {
    if (error instanceof Unreadable || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Whether the path of a rule matches a path without wildcards. */
function matches(pattern: string, path: string): boolean {
  const prefix = pattern.endsWith('*');
  const segments = (prefix ? pattern.slice(0, -1) : pattern).split('/');
  const of = path.split('/');
  if (prefix ? of.length < segments.length : of.length !== segments.length) return false;
  return segments.every((segment, i) => {
    if (segment === '+') return true;
    return prefix && i === segments.length - 1 ? (of[i] ?? '').startsWith(segment) : of[i] === segment;
  });
}

/** Orders patterns as Vault does when several match: the more specific one first. */
function bySpecificity(a: string, b: string): number {
  const wildcard = (pattern: string) => {
    const at = pattern.search(/\+|\*$/);
    return at === -1 ? Infinity : at;
  };
  const [first, second] = [wildcard(a), wildcard(b)];
  if (first !== second) return second > first ? 1 : -1;
  if (a.endsWith('*') !== b.endsWith('*')) return a.endsWith('*') ? 1 : -1;
  const plusses = (pattern: string) => pattern.split('/').filter((segment) => segment === '+').length;
  return plusses(a) - plusses(b) || b.length - a.length || (a < b ? 1 : -1);
}

/** The rule that decides about a path: those of the most specific pattern, combined; undefined: no rule matches. */
export function decidingRule(rules: PolicyRule[], path: string): PolicyRule | undefined {
  const [pattern] = rules
    .map((rule) => rule.path)
    .filter((candidate) => matches(candidate, path))
    .sort(bySpecificity);
  if (pattern === undefined) return undefined;
  const deciding = rules.filter((rule) => rule.path === pattern);
  const capabilities = [...new Set(deciding.flatMap((rule) => rule.capabilities))];
  return {
    path: pattern,
    capabilities: capabilities.includes('deny') ? ['deny'] : capabilities,
    refusing: [...new Set(deciding.flatMap((rule) => rule.refusing))],
    others: [...new Set(deciding.flatMap((rule) => rule.others))],
  };
}

/** Where the part of a path begins that Vault fills in for each login (`{{identity.entity.id}}`); -1: it has none. */
const templateStart = (pattern: string): number => pattern.indexOf('{{');

/** Rules with a path that Vault fills in for each login and that can then match a path: its beginning does. */
export const templatedRules = (rules: PolicyRule[], path: string): PolicyRule[] =>
  rules.filter((rule) => {
    const start = templateStart(rule.path);
    return start !== -1 && matches(`${rule.path.slice(0, start)}*`, path);
  });
