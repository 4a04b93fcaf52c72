/**
 * Control planes whose fields are maps all the way down: each leaf is ours by server-side apply, and its siblings stay whoever's they are.
 * Never forced: what another manager has set to something else is a conflict that a person must decide.
 * https://kubernetes.io/docs/reference/using-api/server-side-apply/
 */
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { ownerAnnotation, previousAnnotation } from '../api/annotations.ts';
import { dig, isObject, type JsonObject } from '../api/json.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import type { ControlPlaneFacts, Unfit } from '../plan/facts/observed.ts';
import {
  annotationOf,
  nest,
  placeOf,
  previousOf,
  show,
  type ControlPlaneAdapter,
  type Target,
  type Write,
} from './adapter.ts';
import { appliedPaths, isApplied, isLastApplied, isOthers, managerOf, toolOf } from './managers.ts';

/** One field that is ours. */
export interface Leaf {
  path: string[];
  value: string | boolean;
}

/** What tells one such kind from another. */
export interface AppliedKind extends Pick<
  ControlPlaneAdapter,
  'gvr' | 'clusterScoped' | 'makesIt' | 'relatives' | 'revisions'
> {
  kind: string;
  leaves: (fields: IstiodFields) => Leaf[];
  /** What an object that the operator makes holds as long as there is nothing to say: whoever reads it must not stumble. */
  empty?: Leaf[];
  /** Revisions of istiod that the object does not reach any more. */
  leftBehind?: (target: Target) => string[];
  /** Why the object is none that can be written to. */
  unfit?: (target: Target) => string | undefined;
  /** What wins over a leaf elsewhere in the object, with another value. */
  shadows?: (object: JsonObject, fields: IstiodFields) => { place: string; value: string }[];
  /** Why nothing seems to carry out what the object says. */
  unreconciled?: (object: JsonObject) => string | undefined;
  /** With `write: Render`: what is still to come; unless given, the leaves that do not stand in the object. */
  missing?: (target: Target, fields: IstiodFields) => string[];
  /** What a person would commit; unless given, the leaves as a part of the object. */
  render?: (fields: IstiodFields) => JsonObject;
}

/** Maps that were not there before the first write: they go again with what is in them, if nobody else has put anything there. */
const previousSchema = z.object({ absent: z.array(z.array(z.string())), made: z.boolean().default(false) });

const key = (path: readonly string[]): string => path.join('\n');

function conflictsOf(object: JsonObject | undefined, leaves: Leaf[]): ControlPlaneFacts['conflicts'] {
  return leaves.flatMap(({ path, value }) => {
    const found = dig(object, ...path);
    const other = managerOf(object, path);
    // what only we have applied is ours to change
    if (found === undefined || found === value || (isApplied(object, path) && !other)) return [];
    return [{ place: placeOf(path), value: show(found), ...(other ? { manager: other.name } : {}) }];
  });
}

/** Every map above a leaf. */
const mapsAbove = (leaves: Leaf[]): string[][] => [
  ...new Map(
    leaves.flatMap(({ path }) => path.slice(1).map((_, i) => [key(path.slice(0, i + 1)), path.slice(0, i + 1)])),
  ).values(),
];

const isEmptyTree = (value: unknown): boolean =>
  value === null || (isObject(value) && Object.values(value).every(isEmptyTree));

/** The object without fields at some paths. */
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

/** An adapter for such a kind. */
export function appliedAdapter(of: AppliedKind): ControlPlaneAdapter {
  const { gvr, clusterScoped, makesIt, relatives, revisions } = of;
  const named = ({ spec, namespace }: Pick<Target, 'spec' | 'namespace'>): JsonObject => ({
    apiVersion: gvr.group === '' ? gvr.version : `${gvr.group}/${gvr.version}`,
    kind: of.kind,
    metadata: { name: spec.name, ...(clusterScoped ? {} : { namespace }) },
  });
  const holding = (target: Pick<Target, 'spec' | 'namespace'>, leaves: { path: string[]; value: unknown }[]) => ({
    kind: 'apply' as const,
    object: mergeAll([named(target), ...leaves.map(({ path, value }) => nest(path, value))]),
  });
  const ours = ({ object }: Target) => appliedPaths(object);

  function look(target: Target, fields: IstiodFields): ControlPlaneFacts | Unfit {
    const { object, spec } = target;
    const owner = annotationOf(object, ownerAnnotation(spec.revision));
    const unfit = of.unfit?.(target);
    // for an object that is for another namespace, the name is that of a resource there: such a one says nothing of its own
    if (unfit !== undefined)
      return { unfit: { reason: 'ControlPlaneUnfit', message: unfit, ...(clusterScoped ? {} : { owner }) } };
    const leaves = of.leaves(fields);
    const applied = ours(target);
    const unreconciled = object && of.unreconciled?.(object);
    const others = (some: Leaf[]) => some.flatMap(({ path }) => managerOf(object, path) ?? [])[0];
    const managedBy = others(leaves);
    const sharedWith = others(leaves.filter(({ path, value }) => dig(object, ...path) === value));
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
      // what only this operator holds nobody has committed
      const committed = ({ path, value }: Leaf) =>
        dig(object, ...path) === value && (!isApplied(object, path) || isOthers(object, path));
      const absent = leaves.filter((leaf) => !committed(leaf)).map(({ path }) => placeOf(path));
      const missing = of.missing?.(target, fields) ?? absent;
      const carriesFields = missing.length === 0 && shadows.length === 0;
      return { ...shared, carriesFields, missing, superfluous: carriesFields && !makesIt, conflicts: shadows };
    }
    const conflicts = [...conflictsOf(object, leaves), ...shadows];
    const stand = leaves.every(({ path, value }) => dig(object, ...path) === value && isApplied(object, path));
    const obsolete = applied.some((path) => !leaves.some((leaf) => isDeepStrictEqual(leaf.path, path)));
    return {
      ...shared,
      carriesFields: stand && !obsolete && shadows.length === 0,
      conflicts,
    };
  }

  function claim(target: Target, owner: string): Write[] {
    const { object, spec } = target;
    // whatever may ever be written
    const every = of.leaves({
      env: { ROOT_CA_DIR: '' },
      podAnnotations: { '': '' },
      holdApplicationUntilProxyStarts: true,
    });
    const absent = mapsAbove(every).filter((path) => dig(object, ...path) === undefined);
    const known = previousOf(target, previousSchema);
    const previous = known ?? { absent, made: object === undefined };
    const annotations = {
      [ownerAnnotation(spec.revision)]: owner,
      [previousAnnotation(spec.revision)]: JSON.stringify(previous),
    };
    return [
      ...(object === undefined ? [holding(target, of.empty ?? [])] : []),
      { kind: 'merge', patch: { metadata: { annotations } } },
    ];
  }

  function release(target: Target): Write[] {
    const { object = {}, spec } = target;
    const { absent, made } = previousOf(target, previousSchema) ?? { absent: [], made: false };
    const paths = ours(target);
    const rest = without(
      object,
      paths.filter((path) => !isOthers(object, path)),
    );
    // the API server has nobody else for it, and would take it away
    const kept = paths.filter((path) => isLastApplied(object, path));
    const leaves = kept.map((path) => ({ path, value: dig(object, ...path) }));
    const contents = ['data', 'binaryData', 'spec'].map((field) => rest[field] ?? {});
    if (makesIt && made && contents.every(isEmptyTree)) return [{ kind: 'delete' }];
    // the longest paths first: what takes a map away takes what is in it
    const emptied = absent
      .filter((path) => path[0] !== 'metadata' && isEmptyTree(dig(rest, ...path)) && dig(object, ...path) !== undefined)
      .sort((a, b) => b.length - a.length);
    const metadata = {
      annotations: { [ownerAnnotation(spec.revision)]: null, [previousAnnotation(spec.revision)]: null },
    };
    return [
      // what is emptied below was judged by the object as it was looked at
      ...(paths.length > 0 ? [{ ...holding(target, leaves), exact: true as const }] : []),
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
    write: (target, fields) => [holding(target, of.leaves(fields))],
    release,
    render: (target, fields) => of.render?.(fields) ?? holding(target, of.leaves(fields)).object,
  };
}

/** Leaves for an env variable each, for an annotation each, and for the switch in the mesh configuration. */
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
