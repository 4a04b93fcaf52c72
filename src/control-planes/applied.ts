/**
 * Adapter for control planes whose fields are nested maps. The operator owns each of its leaves by server-side apply; other leaves keep their
 * owners. It never forces: if another field manager has set a leaf to another value, the user must resolve the conflict.
 * https://kubernetes.io/docs/reference/using-api/server-side-apply/
 */
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { ownerAnnotation, previousAnnotation } from '../api/annotations.ts';
import type { Gvr } from '../api/gvr.ts';
import { dig, isObject, type JsonObject } from '../api/json.ts';
import { grantedBy, missingPermission, permissionOn } from '../api/permissions.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import type { ControlPlaneKind } from '../plan/control-plane/kinds.ts';
import type { ControlPlaneFacts, Unfit } from '../plan/facts/observed.ts';
import {
  annotationOf,
  nest,
  formatPath,
  previousOf,
  formatValue,
  type ControlPlaneAdapter,
  type Target,
  type Write,
} from './adapter.ts';
import { defaultIstiodValues } from '../plan/facts/trust-places.ts';
import { objectReader, istiodValuesOf, type SettingsPaths } from './istiod-values.ts';
import { appliedPaths, isAppliedByOperator, isInLastApplied, hasOtherManager, managerOf, toolOf } from './managers.ts';

/** One field that the operator writes. */
export interface Leaf {
  path: string[];
  value: string | boolean;
}

/** The differences between these kinds of control plane. */
export interface AppliedKind extends Pick<ControlPlaneAdapter, 'makesIt' | 'relatives' | 'revisions'> {
  /** The row of the kind. */
  row: ControlPlaneKind;
  /** Version and plural name of the resource type, whose group is in the row. */
  type: Omit<Gvr, 'group'>;
  leaves: (fields: IstiodFields) => Leaf[];
  /** Content of a created object before the fields are written, so that readers of the object do not fail; default: none. */
  empty?: Leaf[];
  /** Returns the revisions of istiod that a change of the object no longer reaches. */
  leftBehind?: (target: Target) => string[];
  /** Returns the message why the operator cannot use the object; undefined: it can. */
  unfit?: (target: Target) => string | undefined;
  /** Returns the fields of the object that override a leaf with another value. */
  shadows?: (object: JsonObject, fields: IstiodFields) => { place: string; value: string }[];
  /** Returns the message why no controller seems to reconcile the object; undefined: one does. */
  unreconciled?: (object: JsonObject) => string | undefined;
  /** With `write: Render`: returns the paths that are not set yet; default: the leaves that are not committed in the object. */
  missing?: (target: Target, fields: IstiodFields) => string[];
  /** Paths of the values of Istio's chart in the object; undefined: the object has only fields of the operator. */
  settings: SettingsPaths | undefined;
  /** Returns what the user commits; default: the leaves as a part of the object. */
  render?: (fields: IstiodFields) => JsonObject;
}

/**
 * The record of the object before the first write. `absent`: the maps that did not exist; the release removes those that nobody else has
 * filled. `made`: whether the operator created the object.
 */
const previousSchema = z.object({ absent: z.array(z.array(z.string())), made: z.boolean().default(false) });

const key = (path: readonly string[]): string => path.join('\n');

/** The leaves to which another field manager has set another value. */
function conflictsOf(object: JsonObject | undefined, leaves: Leaf[]): ControlPlaneFacts['conflicts'] {
  return leaves.flatMap(({ path, value }) => {
    const current = dig(object, ...path);
    const other = managerOf(object, path);
    // The operator can change a field that only it has applied.
    if (current === undefined || current === value || (isAppliedByOperator(object, path) && !other)) return [];
    return [{ place: formatPath(path), value: formatValue(current), ...(other ? { manager: other.name } : {}) }];
  });
}

/** The paths of all maps above leaves, without duplicates. */
const mapsAbove = (leaves: Leaf[]): string[][] => [
  ...new Map(
    leaves.flatMap(({ path }) => path.slice(1).map((_, i) => [key(path.slice(0, i + 1)), path.slice(0, i + 1)])),
  ).values(),
];

const isEmptyTree = (value: unknown): boolean =>
  value === null || (isObject(value) && Object.values(value).every(isEmptyTree));

/** The object without the fields at some paths. */
function without(object: JsonObject, paths: readonly (readonly string[])[]): JsonObject {
  const at = (value: unknown, above: string[]): unknown => {
    if (!isObject(value)) return value;
    const kept = Object.entries(value).filter(([name]) => !paths.some((path) => key(path) === key([...above, name])));
    return Object.fromEntries(kept.map(([name, below]) => [name, at(below, [...above, name])]));
  };
  return at(object, []) as JsonObject;
}

function mergeAll(patches: JsonObject[]): JsonObject {
  const merge = (a: JsonObject, b: JsonObject): JsonObject => {
    const out = { ...a };
    for (const [name, value] of Object.entries(b)) {
      const before = out[name];
      out[name] = isObject(before) && isObject(value) ? merge(before, value) : value;
    }
    return out;
  };
  return patches.reduce(merge, {});
}

/** Creates the adapter of a kind. */
export function appliedAdapter(of: AppliedKind): ControlPlaneAdapter {
  const { row, makesIt, relatives, revisions } = of;
  const { group, objectKind, clusterScoped } = row;
  const gvr = { group, ...of.type };
  const named = ({ spec, namespace }: Pick<Target, 'spec' | 'namespace'>): JsonObject => ({
    apiVersion: gvr.group === '' ? gvr.version : `${gvr.group}/${gvr.version}`,
    kind: objectKind,
    metadata: { name: spec.name, ...(clusterScoped ? {} : { namespace }) },
  });
  /** A server-side apply after which the operator owns exactly these leaves. */
  const applyLeaves = (target: Pick<Target, 'spec' | 'namespace'>, leaves: { path: string[]; value: unknown }[]) => ({
    kind: 'apply' as const,
    object: mergeAll([named(target), ...leaves.map(({ path, value }) => nest(path, value))]),
  });

  function look(target: Target, fields: IstiodFields): ControlPlaneFacts | Unfit {
    const { object, spec } = target;
    const owner = annotationOf(object, ownerAnnotation(spec.revision));
    const unfit = of.unfit?.(target);
    // The owner annotation of a cluster-scoped object is not reported: it can name a resource of the namespace that the object belongs to.
    if (unfit !== undefined)
      return { unfit: { reason: 'ControlPlaneUnfit', message: unfit, ...(clusterScoped ? {} : { owner }) } };
    if (relatives && target.relatives === undefined) {
      const permission = permissionOn('list', relatives, clusterScoped ? undefined : target.namespace);
      return {
        unfit: { reason: 'Forbidden', message: missingPermission(permission, grantedBy(row.component)), owner },
      };
    }
    const leaves = of.leaves(fields);
    const applied = appliedPaths(object);
    const unreconciled = object && of.unreconciled?.(object);
    const firstManager = (some: Leaf[]) => some.flatMap(({ path }) => managerOf(object, path) ?? [])[0];
    const managedBy = firstManager(leaves);
    const sharedWith = firstManager(leaves.filter(({ path, value }) => dig(object, ...path) === value));
    const tool = toolOf(object);
    const leftBehind = of.leftBehind?.(target) ?? [];
    const isEmpty = (path: string[]) =>
      of.empty?.some((leaf) => key(leaf.path) === key(path) && dig(object, ...path) === leaf.value) === true;
    const writtenBefore = applied.some((path) => !isEmpty(path));
    const shadows = (object && of.shadows?.(object, fields)) ?? [];
    const shared = {
      owner,
      writtenBefore,
      ...(tool ? { tool } : {}),
      ...(leftBehind.length > 0 ? { leftBehind } : {}),
      ...(unreconciled === undefined ? {} : { unreconciled }),
      ...(managedBy ? { managedBy } : {}),
      ...(sharedWith ? { sharedWith } : {}),
    };
    if (spec.write === 'Render') {
      // A leaf that only the operator has applied is not committed.
      const committed = ({ path, value }: Leaf) =>
        dig(object, ...path) === value && (!isAppliedByOperator(object, path) || hasOtherManager(object, path));
      const absent = leaves.filter((leaf) => !committed(leaf)).map(({ path }) => formatPath(path));
      const missing = of.missing?.(target, fields) ?? absent;
      const carriesFields = missing.length === 0 && shadows.length === 0;
      return { ...shared, carriesFields, missing, superfluous: carriesFields && !makesIt, conflicts: shadows };
    }
    const conflicts = [...conflictsOf(object, leaves), ...shadows];
    const allApplied = leaves.every(
      ({ path, value }) => dig(object, ...path) === value && isAppliedByOperator(object, path),
    );
    const obsolete = applied.some((path) => !leaves.some((leaf) => isDeepStrictEqual(leaf.path, path)));
    return {
      ...shared,
      carriesFields: allApplied && !obsolete && shadows.length === 0,
      conflicts,
    };
  }

  function claim(target: Target, owner: string): Write[] {
    const { object, spec } = target;
    // a leaf in every map that the operator can ever write to
    const every = of.leaves({
      env: { ROOT_CA_DIR: '' },
      podAnnotations: { '': '' },
      holdApplicationUntilProxyStarts: true,
    });
    const absent = mapsAbove(every).filter((path) => dig(object, ...path) === undefined);
    const previous = previousOf(target, previousSchema) ?? { absent, made: object === undefined };
    const annotations = {
      [ownerAnnotation(spec.revision)]: owner,
      [previousAnnotation(spec.revision)]: JSON.stringify(previous),
    };
    return [
      ...(object === undefined ? [applyLeaves(target, of.empty ?? [])] : []),
      { kind: 'merge', patch: { metadata: { annotations } } },
    ];
  }

  function release(target: Target): Write[] {
    const { object = {}, spec } = target;
    const { absent, made } = previousOf(target, previousSchema) ?? { absent: [], made: false };
    const paths = appliedPaths(target.object);
    const rest = without(
      object,
      paths.filter((path) => !hasOtherManager(object, path)),
    );
    // Leaves of a client-side apply stay applied: the API server records no other manager for them and would delete them.
    const kept = paths.filter((path) => isInLastApplied(object, path));
    const leaves = kept.map((path) => ({ path, value: dig(object, ...path) }));
    const contents = ['data', 'binaryData', 'spec'].map((field) => rest[field] ?? {});
    if (makesIt && made && contents.every(isEmptyTree)) return [{ kind: 'delete' }];
    // The longest paths come first: null at a map replaces the patches below it.
    const emptied = absent
      .filter((path) => path[0] !== 'metadata' && isEmptyTree(dig(rest, ...path)) && dig(object, ...path) !== undefined)
      .sort((a, b) => b.length - a.length);
    const metadata = {
      annotations: { [ownerAnnotation(spec.revision)]: null, [previousAnnotation(spec.revision)]: null },
    };
    return [
      // `exact`, because `emptied` was computed from the observed version of the object
      ...(paths.length > 0 ? [{ ...applyLeaves(target, leaves), exact: true as const }] : []),
      { kind: 'merge', patch: mergeAll([{ metadata }, ...emptied.map((path) => nest(path, null))]) },
    ];
  }

  return {
    gvr,
    clusterScoped,
    makesIt,
    relatives,
    revisions,
    look,
    claim,
    write: (target, fields) => [applyLeaves(target, of.leaves(fields))],
    release,
    istiodValues: ({ object }) =>
      of.settings ? istiodValuesOf(objectReader(object), of.settings) : defaultIstiodValues,
    render: (target, fields) => of.render?.(fields) ?? applyLeaves(target, of.leaves(fields)).object,
  };
}

/**
 * Returns one leaf for each environment variable, for each annotation, and for `holdApplicationUntilProxyStarts` in the mesh configuration.
 * @param env path of the environment variables
 * @param annotations path of the Pod annotations
 * @param meshConfig path of the mesh configuration
 */
export function leavesUnder(fields: IstiodFields, env: string[], annotations: string[], meshConfig: string[]): Leaf[] {
  const each = (values: Record<string, string>, path: string[]): Leaf[] =>
    Object.entries(values)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => ({ path: [...path, name], value }));
  return [
    ...each(fields.env, env),
    ...each(fields.podAnnotations, annotations),
    ...(fields.holdApplicationUntilProxyStarts
      ? [{ path: [...meshConfig, 'defaultConfig', 'holdApplicationUntilProxyStarts'], value: true }]
      : []),
  ];
}
