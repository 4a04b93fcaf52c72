/**
 * Evaluates the CEL rules of a structural schema (`x-kubernetes-validations`) as the API server does.
 * The language is that of @marcbachmann/cel-js; this file adds what Kubernetes defines around it: where a rule is evaluated, the types and
 * names that `self` has, and durations of Go. Kubernetes' own CEL libraries are not there; a rule that calls one does not compile.
 * https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
 */
import { Environment, EvaluationError } from '@marcbachmann/cel-js';
import { Duration } from '@marcbachmann/cel-js/evaluator';
import type { Structural } from './crd.ts';
import { parseAnyGoDuration } from './duration.ts';
import type { CelRule } from './fields.ts';
import { isObject } from './json.ts';
import { celName } from './rules.ts';

/** A rule that a value breaks. */
export interface BrokenRule {
  /** Of the field that the rule blames, from the root of the value on. */
  path: string;
  message: string;
}

/** A value at its place in the schema. */
interface Place {
  schema: Structural;
  value: unknown;
  /** The value that stands there before the change; undefined: none. */
  old: unknown;
  path: string;
}

/** A duration as Go parses it, to the millisecond. @throws EvaluationError also when it exceeds the 63 bits of Go's nanoseconds */
function goDuration(text: string): Duration {
  const ms = parseAnyGoDuration(text);
  if (ms === undefined) throw new EvaluationError(`"${text}" is no duration that Go can hold (at most 2562047h)`);
  return Duration.fromMilliseconds(ms);
}

const environment = new Environment()
  .registerVariable('self', 'dyn')
  .registerVariable('oldSelf', 'dyn')
  .registerFunction('goDuration(string): google.protobuf.Duration', goDuration, { async: false });

/** The library's own duration() knows no largest value and cannot be replaced, so its calls are renamed. */
const withGoDurations = (rule: string): string => rule.replaceAll(/\bduration\(/g, 'goDuration(');

/** Whether a rule compares with the value before; the API server skips such a rule where there is none. */
const isTransition = ({ rule }: CelRule): boolean => /\boldSelf\b/.test(rule);

/**
 * A rule as a function.
 * @throws ParseError or TypeError of the library, for a rule that is no CEL or calls a function that is not there
 */
function compile({ rule }: CelRule): (context: Record<string, unknown>) => unknown {
  const compiled = environment.parse(withGoDurations(rule));
  const { error } = compiled.check();
  if (error) throw error;
  return compiled;
}

/** The schema of a field or of a key of a map. */
const schemaBelow = ({ properties, additionalProperties }: Structural, key: string): Structural | undefined =>
  properties?.[key] ?? additionalProperties;

/**
 * A JSON value with the types that its schema gives it in CEL: fields by their CEL names, integers apart from doubles.
 * Objects are Maps, since the library tells types by the property `constructor`, which may be a key of a map.
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
 * How a value breaks a rule; undefined when it obeys it. A rule whose evaluation fails, such as at a duration that is none, is broken too:
 * the API server then blames the place where the rule stands, and says the failure before the rule's message.
 */
function breach(rule: CelRule, { schema, value, old, path }: Place): BrokenRule | undefined {
  const { fieldPath = '', message } = rule;
  const obeys = compile(rule);
  const context = { self: celValue(schema, value), oldSelf: old === undefined ? null : celValue(schema, old) };
  try {
    return obeys(context) === true ? undefined : { path: path + fieldPath, message };
  } catch (error) {
    if (error instanceof EvaluationError) return { path, message: `${error.summary}, evaluating rule: ${message}` };
    throw error;
  }
}

/** The values below a place. Items of a list have no value before: the API server finds none for a list that is replaced whole. */
function placesBelow({ schema, value, old, path }: Place): Place[] {
  const { items, properties } = schema;
  if (Array.isArray(value))
    return items
      ? value.map((item: unknown, i): Place => ({ schema: items, value: item, old: undefined, path: `${path}[${i}]` }))
      : [];
  if (!isObject(value)) return [];
  const before = new Map(isObject(old) ? Object.entries(old) : []);
  return Object.entries(value).flatMap(([key, below]) => {
    const sub = schemaBelow(schema, key);
    const name = properties ? (path === '' ? key : `${path}.${key}`) : `${path}[${key}]`;
    return sub ? [{ schema: sub, value: below, old: before.get(key), path: name }] : [];
  });
}

function brokenAt(place: Place, kinds: (rule: CelRule) => boolean): BrokenRule[] {
  if (place.value === undefined) return [];
  const here = (place.schema['x-kubernetes-validations'] ?? [])
    .filter((rule) => kinds(rule) && !(isTransition(rule) && place.old === undefined))
    .flatMap((rule) => breach(rule, place) ?? []);
  return [...here, ...placesBelow(place).flatMap((below) => brokenAt(below, kinds))];
}

/**
 * The rules of a schema that a value breaks, those that compare with the value before excepted.
 * @param value JSON that fits the schema, with its defaults
 */
export function brokenRulesOf(schema: Structural, value: unknown): BrokenRule[] {
  return brokenAt({ schema, value, old: undefined, path: '' }, (rule) => !isTransition(rule));
}

/** The rules of a schema that the change of a value breaks: only those that compare with the value before. */
export function brokenTransitionsOf(schema: Structural, before: unknown, after: unknown): BrokenRule[] {
  return brokenAt({ schema, value: after, old: before, path: '' }, isTransition);
}
