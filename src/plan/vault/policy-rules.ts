/**
 * Reads the text of a Vault policy that somebody else manages, as far as it decides what istiod's Vault Agent may do. Pure.
 * Source: https://developer.hashicorp.com/vault/docs/concepts/policies#policy-syntax
 */
import { isObject, type JsonObject } from '../../api/json.ts';

/** One rule of a policy. */
export interface PolicyRule {
  /** Path in Vault without a leading slash; `*` at the end and `+` for a segment are wildcards. */
  path: string;
  capabilities: string[];
  /** Names of further attributes, such as `min_wrapping_ttl`. */
  conditions: string[];
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
      if (this.#take('=')) this.#value(0);
      else if (name === 'path') {
        const path = plain(this.#next());
        this.#take('=');
        rules.push(ruleOf(path, this.#object(0)));
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

  #object(depth: number): JsonObject {
    if (depth > deepest || this.#next() !== '{') throw new Unreadable();
    const entries: [string, unknown][] = [];
    while (!this.#take('}')) {
      const name = plain(this.#next());
      const isAttribute = this.#take('=') || this.#take(':');
      // a block can have a label, as in `factor "name" { … }`
      if (!isAttribute && this.#peek()?.startsWith('"')) this.#next();
      entries.push([name, isAttribute ? this.#value(depth + 1) : this.#object(depth + 1)]);
      this.#take(',');
    }
    return Object.fromEntries(entries);
  }

  #value(depth: number): unknown {
    if (depth > deepest) throw new Unreadable();
    if (this.#peek() === '{') return this.#object(depth);
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

/** A word, or a string without its quotes. @throws Unreadable */
function plain(token: string): string {
  if (/^[\w.+-]+$/.test(token)) return token;
  if (!token.startsWith('"')) throw new Unreadable();
  return token.slice(1, -1).replace(/\\(.)/g, '$1');
}

function ruleOf(path: string, body: JsonObject): PolicyRule {
  const { capabilities, policy, ...others } = body;
  const listed = Array.isArray(capabilities) ? capabilities.map(String) : [];
  const shorthand = typeof policy === 'string' ? (shorthands[policy] ?? []) : [];
  return {
    path: path.replace(/^\//, ''),
    capabilities: [...new Set([...listed, ...shorthand])],
    // OpenBao has comments on rules
    conditions: Object.keys(others).filter((name) => name !== 'comment'),
  };
}

function jsonRules(text: string): PolicyRule[] {
  const parsed: unknown = JSON.parse(text);
  const paths = isObject(parsed) ? parsed['path'] : undefined;
  if (!isObject(paths)) throw new Unreadable();
  return Object.entries(paths).map(([path, body]) => {
    if (!isObject(body)) throw new Unreadable();
    return ruleOf(path, body);
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
  const deciding = rules.filter((rule) => rule.path === pattern);
  if (pattern === undefined) return undefined;
  const capabilities = [...new Set(deciding.flatMap((rule) => rule.capabilities))];
  return {
    path: pattern,
    capabilities: capabilities.includes('deny') ? ['deny'] : capabilities,
    conditions: [...new Set(deciding.flatMap((rule) => rule.conditions))],
  };
}
