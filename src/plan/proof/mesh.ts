/** istiod and its mesh as a whole: how far a rollout is, which namespaces belong to it, and what a root rotation has to see. Pure. */
import { derivedOnce, type DerivedState } from '../facts/derived.ts';
import { istiodFields, type IstiodFields } from '../control-plane/istiod-fields.ts';
import { expectedCa, issuerOfLeaf, evaluateHandshake } from './handshake.ts';
import {
  digestOf,
  type IstiodDeployment,
  type IstiodSettings,
  type MeshBundle,
  type ObservedIstiod,
} from '../facts/observed-istiod.ts';

/** Names for people, so many of them. */
export const several = (names: string[], most = 5): string =>
  `${names.slice(0, most).join(', ')}${names.length > most ? ` and ${names.length - most} more` : ''}`;

/** Deployments that shall have replicas; those that were scaled to none count only when there is no other. */
export const wanted = ({ deployments }: ObservedIstiod): IstiodDeployment[] =>
  deployments.filter(({ replicas }) => replicas.desired > 0);

interface MissingFields {
  env: string[];
  annotations: string[];
}

/** Fields of ours that a template does not have, or has otherwise, by their names. */
export function missingFields({ env, annotations }: IstiodSettings, fields: IstiodFields): MissingFields {
  const lacking = (asked: Record<string, string>, has: Record<string, string>) =>
    Object.entries(asked)
      .filter(([name, value]) => has[name]?.trim() !== value.trim())
      .map(([name]) => name);
  return { env: lacking(fields.env, env), annotations: lacking(fields.podAnnotations, annotations) };
}

/** Fields of ours that a Deployment of istiod does not have, in words. */
export function lackedBy(s: DerivedState, deployment: IstiodDeployment, digest: string | undefined): string[] {
  // what the control plane does not reach any more takes up new files by itself, and is judged by what it serves
  const reached = !s.kubernetes.controlPlane?.leftBehind?.includes(deployment.revision);
  const { env, annotations } = missingFields(deployment.settings, istiodFields(s.spec, reached ? digest : undefined));
  return [...env.map((name) => `env ${name}`), ...annotations];
}

/** What a rollout still lacks; undefined: every replica is of the newest template, is there, and no older one is. */
export function rolloutLeft(deployment: IstiodDeployment, { pods }: ObservedIstiod): string | undefined {
  const { observed, deadlinePassed, replicas } = deployment;
  const late = deadlinePassed ? ' (its progress deadline has passed)' : '';
  if (!observed) return `its controller has not seen the newest template yet${late}`;
  const there = pods.filter((pod) => pod.deployment === deployment.name).length;
  if (replicas.updated < replicas.desired || there < replicas.desired)
    return `not every pod of the newest template is there${late}`;
  if (replicas.current > replicas.updated) return `pods of an older template are still there${late}`;
  if (replicas.available < replicas.desired) return `not every pod is available${late}`;
  return undefined;
}

const stillEnding = ({ ending }: ObservedIstiod): string | undefined =>
  ending.length === 0 ? undefined : `pods that are being deleted are still there: ${several(ending)}`;

/**
 * Bundles of the namespaces of this mesh: not of those that hold the root of another IstioVaultCA; and where not every IstioVaultCA is seen,
 * only of those that hold a root of ours.
 */
export function bundlesOfMesh(s: DerivedState, istiod: ObservedIstiod): MeshBundle[] | 'unreadable' {
  const { bundles, rootsOfOthers, confinedTo } = istiod;
  if (bundles === 'unreadable') return 'unreadable';
  const ours = s.ownRoots.map(({ certificate }) => certificate.fingerprint);
  const holds = ({ roots }: MeshBundle, some: readonly string[]) => roots.some((root) => some.includes(root));
  return bundles.filter((bundle) => {
    if (bundle.namespace === s.identity.namespace) return true;
    if (holds(bundle, rootsOfOthers)) return false;
    return confinedTo.length === 0 || confinedTo.includes(bundle.namespace) || holds(bundle, ours);
  });
}

/** What a root rotation waits for. Fingerprints are SHA-256 of the DER. */
export interface MeshView {
  replicas: {
    name: string;
    /** The intermediate whose certificate it was seen to serve; empty: one that it did not show; undefined: it did not answer. */
    serves: string | undefined;
    /** The roots that it holds; undefined: not known. */
    roots: string[] | undefined;
    /** Why they are not known, where it was asked. */
    why?: string;
  }[];
  /** What of a rollout is not done; undefined: every replica that is asked for is there. */
  unfinished: string | undefined;
  namespaces: { namespace: string; roots: string[] }[] | 'unreadable';
  istiods: { name: string; multiRoot: boolean; version: string }[];
}

/**
 * The mesh as a root rotation has to see it; undefined while istiod was not looked at. A replica is known to hold the live root bundle when
 * its pod was made with the digest of the live set, which is patched only after the live write, and it serves the live intermediate; where
 * no digest tells, when it hands that bundle out.
 */
export const meshView = derivedOnce((s: DerivedState): MeshView | undefined => {
  const { istiod } = s.kubernetes;
  if (!istiod) return undefined;
  const ca = expectedCa(s);
  const deployments = wanted(istiod);
  const replicas = istiod.pods.map((pod) => {
    const proven =
      ca !== undefined &&
      pod.served !== undefined &&
      'leaf' in pod.served &&
      evaluateHandshake(pod.served, ca, s.now).kind === 'Proven';
    const withDigest = ca?.digest !== undefined && digestOf(pod.settings) === ca.digest;
    const served =
      pod.served !== undefined && 'leaf' in pod.served ? (issuerOfLeaf(pod.served)?.fingerprint ?? '') : undefined;
    const { handedOut } = pod;
    const roots = Array.isArray(handedOut) ? handedOut : undefined;
    const why = handedOut && 'unreachable' in handedOut ? handedOut.unreachable : undefined;
    return {
      name: pod.name,
      serves: proven ? ca.live.fingerprint : served,
      roots: proven && withDigest ? ca.roots.map((root) => root.fingerprint) : roots,
      ...(why === undefined ? {} : { why }),
    };
  });
  const lacking = deployments.filter((deployment) => lackedBy(s, deployment, ca?.digest).length > 0);
  return {
    replicas,
    unfinished:
      deployments.length === 0
        ? 'there is no istiod'
        : lacking.length > 0
          ? `Deployment ${several(lacking.map(({ name }) => name))} has not got the fields of the live CA`
          : (deployments.flatMap((deployment) => rolloutLeft(deployment, istiod) ?? [])[0] ?? stillEnding(istiod)),
    namespaces: bundlesOfMesh(s, istiod),
    istiods: deployments.map(({ name, multiRoot, version }) => ({ name, multiRoot, version })),
  };
});
