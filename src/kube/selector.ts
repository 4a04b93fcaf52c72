/** Kubernetes label selectors. https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ */
import { dig, isObject } from '../api/json.ts';

function expressionHolds(expression: unknown, labels: Record<string, unknown>): boolean {
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
      return false; // an operator that is not known selects nothing
  }
}

/** Whether a selector selects labels; an absent or empty one selects everything. */
export function selects(selector: unknown, labels: Record<string, unknown>): boolean {
  const exact = dig(selector, 'matchLabels');
  const expressions = dig(selector, 'matchExpressions');
  return (
    Object.entries(isObject(exact) ? exact : {}).every(([key, value]) => labels[key] === value) &&
    (Array.isArray(expressions) ? expressions : []).every((expression) => expressionHolds(expression, labels))
  );
}
