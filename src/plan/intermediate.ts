/**
 * Issuing an intermediate so that a crash is harmless: the key is stored before Vault acts on it, every later step can be
 * repeated, and the live entry alone decides what is current. See docs/adr/0002.
 */
import { isDeepStrictEqual } from 'node:util';
import { rfc3339 } from '../api/time.ts';
import { isSignedBy } from './certificate.ts';
import type { Desired } from './desired.ts';
import { currentRoot, highestGeneration, issuerOf, ownIssuers, soundLive, type OwnIssuer } from './facts.ts';
import { generationName, generationOf } from './identity.ts';
import { own, type Observed, type StagingEntry } from './observed.ts';
import { recordedState } from './state.ts';
import type { Step } from './steps.ts';

/** Why a new generation is needed; undefined when the live one serves. */
function newGenerationReason(d: Desired, o: Observed): string | undefined {
  if (soundLive(d, o)) return undefined;
  return own(o.vault.live) || own(o.vault.state)?.intermediate?.fingerprint
    ? 'the published key was lost'
    : 'first issue';
}

/** Clock difference, in milliseconds, between Vault and here that a comparison of ends must bear. */
const clockSlackMs = 60_000;

function signStep(d: Desired, root: OwnIssuer, staged: StagingEntry, now: number): Step {
  const endsFirst = root.certificate.notAfter - clockSlackMs < now + d.intermediate.ttl * 1000;
  return {
    kind: 'SignIntermediate',
    generation: staged.generation,
    keyName: generationName(d.identity, 'intermediate', staged.generation),
    spec: d.intermediate,
    rootIssuerId: root.id,
    notAfter: endsFirst ? rfc3339(root.certificate.notAfter) : undefined,
  };
}

/** Recorded while the staged entry, which knows the spec it was made for, still stands. */
function recordStep(d: Desired, o: Observed, now: number): Step[] | undefined {
  const state = recordedState(d, o, now);
  return state && [{ kind: 'WriteState', state, cas: o.vault.state.casVersion, reason: 'what was issued' }];
}

/** From a staged key to the published set: exactly one next step. */
function stagedSteps(d: Desired, o: Observed, staged: StagingEntry, now: number): Step[] {
  const root = currentRoot(d, o);
  const { mount } = d.spec.intermediate;
  const pki = o.vault.intermediatePki;
  const live = own(o.vault.live);
  const remove: Step = { kind: 'RemoveStaging', generation: staged.generation, version: o.vault.staging.casVersion };
  if (staged.generation <= (live?.generation ?? 0))
    return [...mountFollowsLive(d, o), ...(recordStep(d, o, now) ?? [remove])];
  // a staged key that cannot be read, or was made for another spec, is given up; its number is never given out again
  if (staged.publicKey === undefined || !isDeepStrictEqual(staged.spec, d.intermediate)) {
    const state = own(o.vault.state);
    if (!state || state.highestGeneration >= staged.generation) return [remove];
    const next = { ...state, highestGeneration: staged.generation };
    return [{ kind: 'WriteState', state: next, cas: o.vault.state.casVersion, reason: 'a generation was given up' }];
  }
  if (!pki) return [];
  const name = generationName(d.identity, 'intermediate', staged.generation);
  if (!pki.keys.some((key) => key.name === name)) {
    return [{ kind: 'ImportKey', mount, from: 'staging', generation: staged.generation, name }];
  }
  if (!root) return [];
  const issuer = ownIssuers(d, 'intermediate', pki).find(
    (i) => i.generation === staged.generation && isSignedBy(i.certificate, root.certificate),
  );
  if (!issuer) return [signStep(d, root, staged, now)];
  return [
    {
      kind: 'PublishLive',
      generation: staged.generation,
      issuerId: issuer.id,
      rootIssuerId: root.id,
      cas: o.vault.live.casVersion,
    },
  ];
}

/**
 * Keys of ours that were imported but never published, and whose staged copy is gone, serve nobody. What was published is in the
 * history, and stays: workloads may still carry its certificates.
 */
function abandonedKeys(d: Desired, o: Observed): Step[] {
  const live = soundLive(d, o);
  const state = own(o.vault.state);
  const { issuers = [], keys = [] } = o.vault.intermediatePki ?? {};
  if (!live || state?.intermediate?.fingerprint !== live.certificate.fingerprint) return [];
  const published = new Set([live.certificate.fingerprint, ...state.history.map((entry) => entry.fingerprint)]);
  return keys.flatMap((key): Step[] => {
    const generation = generationOf(d.identity, 'intermediate', key.name);
    const carried = issuers.filter((issuer) => issuer.keyId === key.id);
    const needed = generation === live.generation || carried.some((i) => published.has(i.certificate.fingerprint));
    if (generation === undefined || needed) return [];
    const { mount } = d.spec.intermediate;
    return [
      { kind: 'CollectGeneration', mount, keyName: key.name, keyId: key.id, issuerIds: carried.map((i) => i.id) },
    ];
  });
}

/** The mount follows the live entry: its key and certificate are in it, and it is the default issuer. */
function mountFollowsLive(d: Desired, o: Observed): Step[] {
  const live = soundLive(d, o);
  const pki = o.vault.intermediatePki;
  if (!live || !pki) return [];
  const { mount } = d.spec.intermediate;
  const issuer = issuerOf(live, o);
  if (!issuer || issuer.keyId === '') {
    const name = generationName(d.identity, 'intermediate', live.generation);
    return pki.keys.some((key) => key.name === name)
      ? [{ kind: 'InstallCertificate', mount, generation: live.generation }]
      : [{ kind: 'ImportKey', mount, from: 'live', generation: live.generation, name }];
  }
  return pki.defaultIssuerId === issuer.id ? [] : [{ kind: 'SetDefaultIssuer', mount, issuerId: issuer.id }];
}

/** What to do now about the intermediate and its key. */
export function intermediateSteps(d: Desired, o: Observed, now: number): Step[] {
  const staged = own(o.vault.staging);
  if (staged) return stagedSteps(d, o, staged, now);
  const reason = newGenerationReason(d, o);
  if (reason !== undefined) {
    const generation = highestGeneration(d, o) + 1;
    return [{ kind: 'StageKey', generation, spec: d.intermediate, cas: o.vault.staging.casVersion, reason }];
  }
  return [...mountFollowsLive(d, o), ...abandonedKeys(d, o), ...(recordStep(d, o, now) ?? [])];
}
