/**
 * Which field managers own a field of an object, according to `managedFields`, and to the labels and annotations of GitOps tools.
 * https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
 */
import { isDeepStrictEqual } from 'node:util';
import { fieldManager } from '../api/annotations.ts';
import { dig, isObject, str, type JsonObject } from '../api/json.ts';
import type { OtherManager } from '../plan/facts/observed.ts';
import { annotationOf } from './adapter.ts';

/** One entry of `managedFields`. */
interface Entry {
  manager: string;
  operation: string;
  time: string;
  fields: JsonObject;
}

/** The entries of `managedFields`, without those of subresources such as status. */
function entriesOf(object: JsonObject | undefined): Entry[] {
  const entries = dig(object, 'metadata', 'managedFields');
  return (Array.isArray(entries) ? entries : [])
    .filter((entry) => isObject(entry) && str(entry['subresource']) === '')
    .map((entry) => {
      const fields = dig(entry, 'fieldsV1');
      return {
        manager: str(dig(entry, 'manager')),
        operation: str(dig(entry, 'operation')),
        time: str(dig(entry, 'time')),
        fields: isObject(fields) ? fields : {},
      };
    });
}

const isOperatorApply = ({ manager, operation }: Entry): boolean => manager === fieldManager && operation === 'Apply';

/** Whether an entry contains the field or a field below it. An entry with a map alone owns that the map exists, but not its content. */
const manages = ({ fields }: Entry, path: readonly string[]): boolean =>
  isObject(dig(fields, ...path.map((key) => `f:${key}`)));

/**
 * Whether the last client-side apply, by kubectl or a similar tool, set the field to its current value. `managedFields` does not show this: the
 * API server records no manager for a write that does not change the field.
 * https://kubernetes.io/docs/tasks/manage-kubernetes-objects/declarative-config/#how-apply-calculates-differences-and-merges-changes
 */
export function isInLastApplied(object: JsonObject | undefined, path: readonly string[]): boolean {
  const text = annotationOf(object, 'kubectl.kubernetes.io/last-applied-configuration');
  const value = dig(object, ...path);
  if (text === undefined || value === undefined) return false;
  try {
    return isDeepStrictEqual(dig(JSON.parse(text), ...path), value);
  } catch {
    return false; // a user edited the annotation
  }
}

/** Whether another field manager has set the field, according to `managedFields` or to the annotation of client-side apply. */
export const hasOtherManager = (object: JsonObject | undefined, path: readonly string[]): boolean =>
  managerOf(object, path) !== undefined || isInLastApplied(object, path);

/** Whether the operator has set the field, and no other field manager has. */
export const isManagedOnlyByOperator = (object: JsonObject | undefined, path: readonly string[]): boolean =>
  !hasOtherManager(object, path) &&
  entriesOf(object).some((entry) => entry.manager === fieldManager && manages(entry, path));

/** Whether the operator has set the field by server-side apply. */
export const isAppliedByOperator = (object: JsonObject | undefined, path: readonly string[]): boolean =>
  entriesOf(object).some((entry) => isOperatorApply(entry) && manages(entry, path));

/** Returns the paths of all leaves that the operator has set by server-side apply. */
export function appliedPaths(object: JsonObject | undefined): string[][] {
  const leaves = (fields: JsonObject, path: string[]): string[][] => {
    const below = Object.entries(fields).filter(([key]) => key.startsWith('f:'));
    if (below.length === 0) return path.length > 0 ? [path] : [];
    return below.flatMap(([key, value]) => leaves(isObject(value) ? value : {}, [...path, key.slice(2)]));
  };
  return entriesOf(object)
    .filter(isOperatorApply)
    .flatMap(({ fields }) => leaves(fields, []));
}

const tools: readonly (readonly [RegExp, NonNullable<OtherManager['tool']>])[] = [
  [/^argocd-/, 'Argo CD'],
  [/^kustomize-controller$/, 'Flux'],
  [/^helm-controller$/, 'Flux Helm'],
  [/^helm$/i, 'Helm'],
];

/** Returns the GitOps tool whose labels or annotations an object has; undefined: none. */
export function toolOf(object: JsonObject | undefined): OtherManager['tool'] {
  const label = (name: string) => dig(object, 'metadata', 'labels', name);
  if (annotationOf(object, 'argocd.argoproj.io/tracking-id') !== undefined) return 'Argo CD';
  if (label('kustomize.toolkit.fluxcd.io/name') !== undefined) return 'Flux';
  if (label('helm.toolkit.fluxcd.io/name') !== undefined) return 'Flux Helm';
  return label('app.kubernetes.io/managed-by') === 'Helm' ? 'Helm' : undefined;
}

/** Returns the other field manager of a field, the one with the latest write; undefined: there is none. */
export function managerOf(object: JsonObject | undefined, path: readonly string[]): OtherManager | undefined {
  const [latest] = entriesOf(object)
    .filter((entry) => entry.manager !== fieldManager && manages(entry, path))
    .sort((a, b) => (a.time < b.time ? 1 : -1));
  if (!latest) return undefined;
  const toolOfObject = /^kubectl/.test(latest.manager) ? undefined : toolOf(object);
  const tool = tools.find(([name]) => name.test(latest.manager))?.[1] ?? toolOfObject;
  return { name: latest.manager, ...(tool === undefined ? {} : { tool }) };
}
