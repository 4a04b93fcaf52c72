/** Matching of Kubernetes label selectors. https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ */
import { dig, isObject } from '../api/json.ts';

function expressionMatches(expression: unknown, labels: Record<string, unknown>): boolean {
  const key = String(dig(expression, 'key'));
  const values = dig(expression, 'values');
  const listed = Array.isArray(values) && values.includes(labels[key]);
  switch (dig(expression, 'operator')) {
    case 'In':
      return Object.hasOwn(labels, key) && listed;
    case 'NotIn':
      return !Object.hasOwn(labels, key) || !listed;
    case 'Exists':
      return Object.hasOwn(labels, key);
    case 'DoesNotExist':
      return !Object.hasOwn(labels, key);
    default:
      return false; // an unknown operator matches nothing
  }
}

/** Whether a label selector matches labels; an absent or empty selector matches everything. */
export function selects(selector: unknown, labels: Record<string, unknown>): boolean {
  const matchLabels = dig(selector, 'matchLabels');
  const expressions = dig(selector, 'matchExpressions');
  return (
    Object.entries(isObject(matchLabels) ? matchLabels : {}).every(([key, value]) => labels[key] === value) &&
    (Array.isArray(expressions) ? expressions : []).every((expression) => expressionMatches(expression, labels))
  );
}

/** Whether a label selector asks only for these keys, so that labels with exactly these keys suffice to evaluate it. */
export function usesOnly(selector: unknown, keys: readonly string[]): boolean {
  const matchLabels = dig(selector, 'matchLabels');
  const expressions = dig(selector, 'matchExpressions');
  const used = [
    ...Object.keys(isObject(matchLabels) ? matchLabels : {}),
    ...(Array.isArray(expressions) ? expressions : []).map((expression) => String(dig(expression, 'key'))),
  ];
  return used.every((key) => keys.includes(key));
}
