/** Worlds in which the root of a CA from elsewhere changes: what replicas take over, and how time passes through the phases. */
import { digestAnnotation } from '../../src/api/annotations.ts';
import { bundleFacts } from '../../src/plan/facts/certificate.ts';
import { leadsTo } from '../../src/plan/facts/certificate-path.ts';
import type { Desired } from '../../src/plan/facts/desired.ts';
import { ownEntry, type CaEntry, type Observed } from '../../src/plan/facts/observed.ts';
import type { RotationPhase, StateEntry } from '../../src/plan/facts/state-entry.ts';
import { leafOf, meshBundle, podOf, settingsOf, withIstiod } from './istiod-world.ts';
import { converge, start } from './model.ts';

const hour = 3_600_000;

export const live = (world: Observed): CaEntry => ownEntry(world.vault.live)!;
export const state = (world: Observed): StateEntry => ownEntry(world.vault.state)!;
export const phase = (world: Observed): RotationPhase | undefined => state(world).rotation?.phase;
/** Fingerprints of the published roots. */
export const rootsOf = (world: Observed): string[] =>
  bundleFacts(live(world).root).map(({ fingerprint }) => fingerprint);

/** All replicas and namespaces take over the current CA. */
export function follow(world: Observed, desired: Desired): Observed {
  const chain = bundleFacts(live(world).chain);
  const served = { leaf: leafOf(live(world).certificate!), chain, issuer: 'CN=Istio Intermediate CA' };
  const settings = settingsOf(world, desired);
  const annotated = { ...settings, annotations: { ...settings.annotations, [digestAnnotation]: 'unknown' } };
  const over = { settings: annotated, served, signed: { ...served, roots: rootsOf(world) } };
  const pods = ['istiod-0', 'istiod-1'].map((name) => podOf(world, name, over, desired));
  const bundles = [meshBundle(desired.identity.namespace, rootsOf(world))];
  return withIstiod(world, pods, { bundles }, desired);
}

/**
 * Lets time pass until a phase, or until the rotation is over.
 * @param begin milliseconds since the epoch
 * @returns also each settled world on the way
 */
export function runTo(wantedPhase: RotationPhase | undefined, from: Observed, desired: Desired, begin = start) {
  const seen: Observed[] = [];
  let world = from;
  for (let now = begin; now < begin + 300 * hour; now += 25 * hour) {
    world = converge(desired, world, { now }).world;
    seen.push(world);
    if (phase(world) === wantedPhase && (wantedPhase !== undefined || seen.length > 1)) return { world, now, seen };
    world = follow(world, desired);
  }
  throw new Error(`never in ${wantedPhase ?? 'the end'}, but in ${phase(world) ?? 'none'}`);
}

/** Whether a workload with the roots of one world takes a certificate of another one. */
export const takes = (verifier: Observed, prover: Observed): boolean =>
  bundleFacts(live(verifier).root).some((root) =>
    leadsTo(live(prover).certificate!, bundleFacts(live(prover).chain), root),
  );
