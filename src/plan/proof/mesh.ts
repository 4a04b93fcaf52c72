/** State of istiod and its mesh as a whole: rollout progress, namespaces of the mesh, and the input of a root rotation. Pure. */
import { derivedOnce, type DerivedState } from '../facts/derived.ts';
import { istiodFields, type IstiodFields } from '../control-plane/istiod-fields.ts';
import { evaluateHandshake, evidenceOf, expectedCa, isServed, isSignerUnknown, issuerOfLeaf } from './handshake.ts';
import {
  digestOf,
  type IstiodDeployment,
  type IstiodSettings,
  type MeshBundle,
  type ObservedIstiod,
  type UnknownBundles,
} from '../facts/observed-istiod.ts';
import { listNames } from '../facts/list-names.ts';
import { bundlesOfThisMesh } from '../facts/mesh-bundles.ts';
import type { TrustPlace } from '../facts/trust-places.ts';

/** Returns the istiod Deployments that are not scaled to 0 replicas. */
export const scaledUp = ({ deployments }: ObservedIstiod): IstiodDeployment[] =>
  deployments.filter(({ replicas }) => replicas.desired > 0);

interface MissingFields {
  env: string[];
  annotations: string[];
}

/** Returns the names of operator-managed fields that a Pod template lacks or sets to another value. */
export function missingFields({ env, annotations }: IstiodSettings, fields: IstiodFields): MissingFields {
  const lacking = (desired: Record<string, string>, actual: Record<string, string>) =>
    Object.entries(desired)
      .filter(([name, value]) => actual[name]?.trim() !== value.trim())
      .map(([name]) => name);
  return { env: lacking(fields.env, env), annotations: lacking(fields.podAnnotations, annotations) };
}

/** Returns the operator-managed fields that an istiod Deployment lacks, in words for a message. @param digest of the current CA */
export function describeMissingFields(
  s: DerivedState,
  deployment: IstiodDeployment,
  digest: string | undefined,
): string[] {
  // a revision that the control plane no longer configures never gets a new digest; its istiod reloads the files, and its handshakes decide
  const reached = !s.kubernetes.controlPlane?.leftBehind?.includes(deployment.revision);
  const { env, annotations } = missingFields(deployment.settings, istiodFields(s.spec, reached ? digest : undefined));
  return [...env.map((name) => `env ${name}`), ...annotations];
}

/**
 * Returns what a rollout still waits for; `undefined`: it is complete. Complete means that every replica exists, is available and has the
 * newest Pod template, and that no Pod of an older template exists.
 */
export function unfinishedRollout(deployment: IstiodDeployment, { pods }: ObservedIstiod): string | undefined {
  const { observed, deadlinePassed, replicas } = deployment;
  const late = deadlinePassed ? ' (its progress deadline has passed)' : '';
  if (!observed) return `its controller has not seen the newest template yet${late}`;
  const existing = pods.filter((pod) => pod.deployment === deployment.name).length;
  if (replicas.updated < replicas.desired || existing < replicas.desired)
    return `not every pod of the newest template is there${late}`;
  if (replicas.current > replicas.updated) return `pods of an older template are still there${late}`;
  if (replicas.available < replicas.desired) return `not every pod is available${late}`;
  return undefined;
}

const stillEnding = ({ ending }: ObservedIstiod): string | undefined =>
  ending.length === 0 ? undefined : `pods that are being deleted are still there: ${listNames(ending)}`;

/** The mesh as a root rotation evaluates it. Fingerprints are SHA-256 of the DER encoding. */
export interface MeshView {
  replicas: {
    name: string;
    /**
     * Fingerprint of the intermediate that signed the served certificate. Empty: the replica did not send the intermediate; `undefined`: no
     * handshake succeeded.
     */
    serves: string | undefined;
    /** Fingerprints of the roots that it distributes; `undefined`: unknown. */
    roots: string[] | undefined;
    /** Why the roots are unknown although the replica was asked. */
    why?: string;
  }[];
  /** What a rollout still waits for; `undefined`: every desired replica exists and is current. */
  unfinished: string | undefined;
  bundles: MeshBundle[] | UnknownBundles;
  /** Where istiod publishes the roots. */
  places: TrustPlace[];
  /** istiod discovers its own namespace. */
  homeDiscovered: boolean;
}

/**
 * Returns the mesh as a root rotation evaluates it; `undefined`: istiod was not observed. A replica holds the current trust bundle if its
 * Pod carries the digest of the current CA and it serves the current intermediate. The operator writes that digest only after it has
 * published the CA. Without the digest, the answer of the replica about its distributed roots decides.
 */
export const meshView = derivedOnce((s: DerivedState): MeshView | undefined => {
  const { istiod } = s.kubernetes;
  if (!istiod) return undefined;
  const ca = expectedCa(s);
  const deployments = scaledUp(istiod);
  const replicas = istiod.pods.map((pod) => {
    const withDigest = ca?.digest !== undefined && digestOf(pod.settings) === ca.digest;
    // a certificate that somebody else gave the replica shows nothing, and must not revoke what was seen before
    const known = isSignerUnknown(pod, s) ? undefined : evidenceOf(pod);
    const verified = ca !== undefined && known && evaluateHandshake(known, ca, s.now).kind === 'Proven';
    const servedIntermediate = known && (issuerOfLeaf(known)?.fingerprint ?? '');
    const { signed } = pod;
    const roots = isServed(signed) ? signed.roots : undefined;
    const why = signed && 'unreachable' in signed ? signed.unreachable : undefined;
    return {
      name: pod.name,
      serves: verified ? ca.intermediate.fingerprint : servedIntermediate,
      roots: verified && withDigest ? ca.roots.map((root) => root.fingerprint) : roots,
      ...(why === undefined ? {} : { why }),
    };
  });
  const lacking = deployments.filter((deployment) => describeMissingFields(s, deployment, ca?.digest).length > 0);
  return {
    replicas,
    unfinished:
      deployments.length === 0
        ? 'there is no istiod'
        : lacking.length > 0
          ? `Deployment ${listNames(lacking.map(({ name }) => name))} has not got the fields of the live CA`
          : (deployments.flatMap((deployment) => unfinishedRollout(deployment, istiod) ?? [])[0] ??
            stillEnding(istiod)),
    bundles: bundlesOfThisMesh(s, istiod),
    places: istiod.places,
    homeDiscovered: istiod.homeDiscovered,
  };
});
