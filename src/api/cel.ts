/**
 * Evaluates the CEL rules of a structural schema (`x-kubernetes-validations`) as the API server does. @marcbachmann/cel-js implements the
 * language. This file adds the parts that Kubernetes defines: where a rule is evaluated, the types and field names of `self`, and Go durations.
 * The CEL libraries of Kubernetes are not implemented; a rule that calls one of their functions does not compile.
 * https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
 */
import { Environment, EvaluationError } from '@marcbachmann/cel-js';
import { Duration } from '@marcbachmann/cel-js/evaluator';
import type { Structural } from './crd.ts';
import { parseAnyGoDuration } from './duration.ts';
import type { CelRule } from './fields.ts';
import { isObject } from './json.ts';
import { celName } from './rules.ts';

/** A violated rule. */
export interface BrokenRule {
  /** Path of the field that the rule names, from the root of the value. */
  path: string;
  message: string;
}

/** A node of the value with its schema. */
interface Node {
  schema: Structural;
  value: unknown;
  /** The value before the change; undefined: there was none. */
  old: unknown;
  path: string;
}

/** Parses a duration as Go does, to the millisecond. @throws EvaluationError if it is invalid or exceeds the 63 bits of Go's nanoseconds */
function goDuration(text: string): Duration {
  const ms = parseAnyGoDuration(text);
  if (ms === undefined) throw new EvaluationError(`"${text}" is no duration that Go can hold (at most 2562047h)`);
  return Duration.fromMilliseconds(ms);
}

const environment = new Environment()
  .registerVariable('self', 'dyn')
  .registerVariable('oldSelf', 'dyn')
  .registerFunction('goDuration(string): google.protobuf.Duration', goDuration, { async: false });

/** Renames calls of duration(): the function of the library has no upper limit and cannot be replaced. */
const withGoDurations = (rule: string): string => rule.replaceAll(/\bduration\(/g, 'goDuration(');

/** Whether the rule is a transition rule, which compares with the old value. The API server skips it if there is no old value. */
const isTransition = ({ rule }: CelRule): boolean => /\boldSelf\b/.test(rule);

/**
 * Compiles a rule into a function.
 * @throws ParseError or TypeError of the library, if the rule is not valid CEL or calls an unknown function
 */
function compile({ rule }: CelRule): (context: Record<string, unknown>) => unknown {
  const compiled = environment.parse(withGoDurations(rule));
  const { error } = compiled.check();
  if (error) throw error;
  return compiled;
}

/** The schema of a field or of a map key; undefined if there is none. */
const schemaBelow = ({ properties, additionalProperties }: Structural, key: string): Structural | undefined =>
  properties?.[key] ?? additionalProperties;

/**
 * Converts a JSON value to CEL: with the CEL names of fields, and with integers as BigInt if the schema says integer. Objects become Maps,
 * because the library detects types by the property `constructor`, which can be a key of a map.
 */
function celValue(schema: Structural, value: unknown): unknown {
  const { items, properties, type } = schema;
  if (Array.isArray(value)) return items ? value.map((item: unknown) => celValue(items, item)) : value;
  if (isObject(value))
    return new Map(
      Object.entries(value).flatMap(([key, below]): [string, unknown][] => {
        const sub = schemaBelow(schema, key);
        return sub && below !== undefined ? [[properties ? celName(key) : key, celValue(sub, below)]] : [];
      }),
    );
  return type === 'integer' ? BigInt(value as number) : value;
}

/**
 * Evaluates a rule. Returns the violation; undefined if the value satisfies the rule. A failed evaluation, for example of an invalid
 * duration, is a violation too. The API server then reports the node that has the rule, and the failure before the message of the rule.
 */
function violation(rule: CelRule, { schema, value, old, path }: Node): BrokenRule | undefined {
  const { fieldPath = '', message } = rule;
  const evaluate = compile(rule);
  const context = { self: celValue(schema, value), oldSelf: old === undefined ? null : celValue(schema, old) };
  try {
    return evaluate(context) === true ? undefined : { path: path + fieldPath, message };
  } catch (error) {
    if (error instanceof EvaluationError) return { path, message: `${error.summary}, evaluating rule: ${message}` };
    throw error;
  }
}

/** The child nodes of a node. Items of a list have no old value: the API server finds none if a list is replaced as a whole. */
function childrenOf({ schema, value, old, path }: Node): Node[] {
  const { items, properties } = schema;
  if (Array.isArray(value))
    return items
      ? value.map((item: unknown, i): Node => ({ schema: items, value: item, old: undefined, path: `${path}[${i}]` }))
      : [];
  if (!isObject(value)) return [];
  const before = new Map(isObject(old) ? Object.entries(old) : []);
  return Object.entries(value).flatMap(([key, below]) => {
    const sub = schemaBelow(schema, key);
    const name = properties ? (path === '' ? key : `${path}.${key}`) : `${path}[${key}]`;
    return sub ? [{ schema: sub, value: below, old: before.get(key), path: name }] : [];
  });
}

/** The violations in a node and everything below it, of the rules that `selects` selects. */
function violationsIn(node: Node, selects: (rule: CelRule) => boolean): BrokenRule[] {
  if (node.value === undefined) return [];
  const own = (node.schema['x-kubernetes-validations'] ?? [])
    .filter((rule) => selects(rule) && !(isTransition(rule) && node.old === undefined))
    .flatMap((rule) => violation(rule, node) ?? []);
  return [...own, ...childrenOf(node).flatMap((child) => violationsIn(child, selects))];
}

/**
 * Returns the rules of a schema that a value violates, except transition rules.
 * @param value JSON that is valid against the schema, with its defaults
 */
export function brokenRulesOf(schema: Structural, value: unknown): BrokenRule[] {
  return violationsIn({ schema, value, old: undefined, path: '' }, (rule) => !isTransition(rule));
}

/** Returns the transition rules of a schema that a change violates. */
export function brokenTransitionsOf(schema: Structural, before: unknown, after: unknown): BrokenRule[] {
  return violationsIn({ schema, value: after, old: before, path: '' }, isTransition);
}
