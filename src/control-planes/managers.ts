/**
 * Who manages a field of an object: by `managedFields`, and by the marks that GitOps tools leave.
 * https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
 */
import { isDeepStrictEqual } from 'node:util';
import { fieldManager } from '../api/annotations.ts';
import { dig, isObject, str, type JsonObject } from '../api/json.ts';
import type { OtherManager } from '../plan/facts/observed.ts';
import { annotationOf } from './adapter.ts';

interface Entry {
  manager: string;
  operation: string;
  time: string;
  fields: JsonObject;
}

/** Who has written what of the object itself; what was written to its status is left out. */
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

const isOurApply = ({ manager, operation }: Entry): boolean => manager === fieldManager && operation === 'Apply';

/** Whether an entry names the field, or something below it. Who names a map only, holds that it is there, and nothing in it. */
const manages = ({ fields }: Entry, path: readonly string[]): boolean =>
  isObject(dig(fields, ...path.map((key) => `f:${key}`)));

/**
 * Whether a client-side `kubectl apply`, or a tool that works like it, has set the field to what it is. The API server does not tell: who
 * sends what stands there already is not recorded for it.
 * https://kubernetes.io/docs/tasks/manage-kubernetes-objects/declarative-config/#how-apply-calculates-differences-and-merges-changes
 */
export function isLastApplied(object: JsonObject | undefined, path: readonly string[]): boolean {
  const text = annotationOf(object, 'kubectl.kubernetes.io/last-applied-configuration');
  const value = dig(object, ...path);
  if (text === undefined || value === undefined) return false;
  try {
    return isDeepStrictEqual(dig(JSON.parse(text), ...path), value);
  } catch {
    return false; // edited by hand: it says nothing
  }
}

/** Whether somebody else has set the field too, as the API server knows it or as they say themselves. */
export const isOthers = (object: JsonObject | undefined, path: readonly string[]): boolean =>
  managerOf(object, path) !== undefined || isLastApplied(object, path);

/** Whether this operator, and nobody else, has set the field. */
export const isOnlyOurs = (object: JsonObject | undefined, path: readonly string[]): boolean =>
  !isOthers(object, path) && entriesOf(object).some((entry) => entry.manager === fieldManager && manages(entry, path));

/** Whether this operator has applied the field. */
export const isApplied = (object: JsonObject | undefined, path: readonly string[]): boolean =>
  entriesOf(object).some((entry) => isOurApply(entry) && manages(entry, path));

/** Paths of all fields that this operator has applied, but those of `metadata`'s own. */
export function appliedPaths(object: JsonObject | undefined): string[][] {
  const leaves = (fields: JsonObject, path: string[]): string[][] => {
    const below = Object.entries(fields).filter(([key]) => key.startsWith('f:'));
    if (below.length === 0) return path.length > 0 ? [path] : [];
    return below.flatMap(([key, value]) => leaves(isObject(value) ? value : {}, [...path, key.slice(2)]));
  };
  return entriesOf(object)
    .filter(isOurApply)
    .flatMap(({ fields }) => leaves(fields, []));
}

const tools: readonly (readonly [RegExp, NonNullable<OtherManager['tool']>])[] = [
  [/^argocd-/, 'Argo CD'],
  [/^kustomize-controller$/, 'Flux'],
  [/^helm-controller$/, 'Flux Helm'],
  [/^helm$/i, 'Helm'],
];

/** The tool whose labels or annotations an object bears. */
export function toolOf(object: JsonObject | undefined): OtherManager['tool'] {
  const label = (name: string) => dig(object, 'metadata', 'labels', name);
  if (annotationOf(object, 'argocd.argoproj.io/tracking-id') !== undefined) return 'Argo CD';
  if (label('kustomize.toolkit.fluxcd.io/name') !== undefined) return 'Flux';
  if (label('helm.toolkit.fluxcd.io/name') !== undefined) return 'Flux Helm';
  return label('app.kubernetes.io/managed-by') === 'Helm' ? 'Helm' : undefined;
}

/** Who else manages the field, the one that wrote last; undefined: nobody. */
export function managerOf(object: JsonObject | undefined, path: readonly string[]): OtherManager | undefined {
  const [latest] = entriesOf(object)
    .filter((entry) => entry.manager !== fieldManager && manages(entry, path))
    .sort((a, b) => (a.time < b.time ? 1 : -1));
  if (!latest) return undefined;
  const byMark = /^kubectl/.test(latest.manager) ? undefined : toolOf(object);
  const tool = tools.find(([name]) => name.test(latest.manager))?.[1] ?? byMark;
  return { name: latest.manager, ...(tool === undefined ? {} : { tool }) };
}
