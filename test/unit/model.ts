/** Worlds, that is, observations to begin with, for properties of the planner. `src/plan/simulate.ts` applies steps to them. */
import { specSchema, type Spec } from '../../src/api/schema.ts';
import { desire, type Desired } from '../../src/plan/facts/desired.ts';
import { plannedCertificate, type CertificateFacts } from '../../src/plan/facts/certificate.ts';
import { caEntryDefect } from '../../src/plan/facts/ca-entry.ts';
import { DerivedState } from '../../src/plan/facts/derived.ts';
import { DerivedVault } from '../../src/plan/facts/derived-vault.ts';
import { identityHash } from '../../src/plan/facts/identity.ts';
import { ownEntry, type Mount, type Observed, type Pki, type Slot } from '../../src/plan/facts/observed.ts';
import { plan } from '../../src/plan/plan.ts';
import type { Plan, Step } from '../../src/plan/steps.ts';
import { simulateStep } from '../../src/plan/simulate.ts';

export const minimalSpec = (over: Record<string, unknown> = {}): Spec =>
  specSchema.parse({
    vault: { address: 'https://vault.vault.svc:8200', auth: { kubernetes: { role: 'istio-vault-ca' } } },
    controlPlane: { kind: 'TetrateControlPlane', name: 'controlplane' },
    ...over,
  });

export const identity = { cluster: 'c-1', namespace: 'istio-system', name: 'istioca', uid: 'u-1' };
export const desiredOf = (over: Record<string, unknown> = {}, annotations: Record<string, string> = {}): Desired =>
  desire(identity, minimalSpec(over), annotations);

const emptySlot = () => ({ casVersion: 0, entry: undefined });

/** A Vault without objects of the resource, and a control plane without its fields. */
export function emptyWorld(): Observed {
  return {
    vault: {
      product: 'OpenBao',
      standby: false,
      version: '2.7.2',
      time: start,
      missingCapabilities: [],
      missingOptional: [],
      auditDevice: undefined,
      kvMount: undefined,
      rootMount: undefined,
      intermediateMount: undefined,
      authMount: { type: 'kubernetes', description: '', maxLeaseTtl: 0 },
      rootPki: undefined,
      intermediatePki: undefined,
      live: emptySlot(),
      staging: emptySlot(),
      state: emptySlot(),
      policy: undefined,
      role: undefined,
      unreadable: [],
      authConfig: undefined,
      reviewerWritten: undefined,
      liveVersions: undefined,
      liveOlder: [],
      pkiRoles: [],
      liveRevoked: false,
      lists: {},
      listSettings: {},
      revokedIntermediates: [],
      remains: undefined,
    },
    kubernetes: {
      controlPlane: { owner: undefined, carriesFields: false, writtenBefore: false, conflicts: [] },
      controlPlaneServed: true,
      rendered: 'none',
      ownerIs: 'us',
      istiodServiceAccounts: [],
      maxWorkloadCertTtlMs: 'unknown',
      meshRoots: undefined,
      injector: {
        found: true,
        selectsNamespace: true,
        selectsPods: true,
        name: 'vault.hashicorp.com',
        matchConditions: [],
      },
      kubernetesCa: undefined,
      reviewerHash: undefined,
      tokenIssuer: undefined,
      goneOwners: [],
      istiodUses: [],
      istiod: undefined,
    },
  };
}

const day = 24 * 3_600_000;
/** The present time of a new world, milliseconds since the epoch. */
export const start = Date.parse('2030-01-01T00:00:00Z');

/** A CA certificate, valid for ten years (a root) or five (an intermediate). @param issuer undefined: self-signed */
export function someCa(
  name: string,
  issuer: CertificateFacts | undefined,
  days = issuer ? 1825 : 3650,
): CertificateFacts {
  const about = {
    publicKey: `key of ${name}`,
    notBefore: start,
    notAfter: start + days * day,
    subject: { commonName: name, organization: '' },
    selfIssued: issuer === undefined,
    isCa: true,
    maxPathLength: undefined,
    canSignCertificates: true,
    keyType: 'rsa' as const,
    keyBits: 2048,
  };
  return plannedCertificate(about, issuer?.fingerprint);
}

/** The objects that the manual procedure creates: a complete CA without markers and without names of keys. */
export function handMadeWorld(d: Desired): Observed {
  const world = emptyWorld();
  const root = someCa('hand-made root', undefined);
  const intermediate = someCa('hand-made intermediate', root);
  const pki = (id: string, certificate: CertificateFacts) => ({
    issuers: [{ id: `issuer-${id}`, keyId: `key-${id}`, keyName: '', certificate }],
    keys: [{ id: `key-${id}`, name: '' }],
    defaultIssuerId: `issuer-${id}`,
  });
  const { version } = d.spec.keyStore;
  Object.assign(world.vault, {
    kvMount: { type: 'kv', description: '', maxLeaseTtl: 0, kvVersion: version },
    rootMount: { type: 'pki', description: '', maxLeaseTtl: 8760 * 3600 },
    intermediateMount: { type: 'pki', description: '', maxLeaseTtl: 43800 * 3600 },
    rootPki: pki('root', root),
    intermediatePki: pki('intermediate', intermediate),
    live: {
      casVersion: version === 2 ? 1 : 0,
      entry: 'foreign',
      mark: '',
      foreign: { publicKey: intermediate.publicKey, generation: 0, root: '', others: [] },
    },
    policy: 'path "kv/istioca" { capabilities = ["read", "list"] }',
    role: {
      serviceAccountNames: ['istiod-service-account'],
      serviceAccountNamespaces: [d.identity.namespace],
      policies: [d.spec.policy.name],
      tokenTtl: 86_400,
      audience: '',
      otherFields: [],
    },
  });
  world.kubernetes.meshRoots = [root];
  return world;
}

/** A world of `identity`, changed as if a deleted resource had created the objects. */
export function leftBehind({ vault, kubernetes }: Observed): Observed {
  const gone = { ...identity, name: 'gone', uid: 'u-9' };
  const theirs = (text: string) =>
    text
      .replace(`name=${identity.name} uid=${identity.uid}`, `name=${gone.name} uid=${gone.uid}`)
      .replace(identityHash(identity), identityHash(gone));
  const mount = (m: Mount | undefined) => m && { ...m, description: theirs(m.description) };
  const pki = (p: Pki | undefined): Pki | undefined =>
    p && {
      ...p,
      issuers: p.issuers.map((issuer) => ({ ...issuer, keyName: theirs(issuer.keyName) })),
      keys: p.keys.map(({ id, name }) => ({ id, name: theirs(name) })),
    };
  const slot = <T>({ casVersion, entry, mark }: Slot<T>): Slot<T> => ({
    casVersion,
    entry: entry && 'foreign',
    ...(entry ? { mark: theirs(mark ?? '') } : {}),
  });
  const live = ownEntry(vault.live);
  const foreign = live && { publicKey: live.publicKey, generation: live.generation, root: live.root, others: [] };
  return {
    vault: {
      ...vault,
      rootMount: mount(vault.rootMount),
      intermediateMount: mount(vault.intermediateMount),
      rootPki: pki(vault.rootPki),
      intermediatePki: pki(vault.intermediatePki),
      policy: vault.policy && theirs(vault.policy),
      live: { ...slot(vault.live), ...(foreign ? { foreign } : {}) },
      staging: slot(vault.staging),
      state: slot(vault.state),
    },
    kubernetes: {
      ...kubernetes,
      controlPlane: kubernetes.controlPlane && { ...kubernetes.controlPlane, owner: undefined },
      goneOwners: [`${gone.namespace}/${gone.name}`],
    },
  };
}

/** The derived state of a world. @param now milliseconds since the epoch */
export const derived = (d: Desired, o: Observed, now = start): DerivedState => new DerivedState(d, o, now);

/** Result of {@link converge}. */
export interface Way {
  /** The world at the end. */
  world: Observed;
  done: Step[];
  /** The last plan, which has no steps. */
  last: Plan;
}

/**
 * Runs iterations until a plan has no steps.
 * @param pick selects the steps of an iteration that are executed; a crash prevents the others
 */
export function converge(
  d: Desired,
  from: Observed,
  {
    now = start,
    pick = (steps: Step[]) => steps,
    next = plan,
  }: {
    now?: number;
    pick?: (steps: Step[], round: number) => Step[];
    next?: (d: Desired, o: Observed, now: number) => Plan;
  } = {},
): Way {
  let world = from;
  const done: Step[] = [];
  for (let round = 0; round < 90; round += 1) {
    const last = next(d, world, now);
    if (last.steps.length === 0) return { world, done, last };
    for (const step of pick(last.steps, round)) {
      world = simulateStep(d, world, step, now);
      done.push(step);
    }
  }
  const ends = done.slice(-6).map((step) => step.kind);
  throw new Error(`no end after 90 rounds; last steps: ${ends.join(', ')}`);
}

/** The part of a world that must be equal at the end, whichever steps led there. */
export const essence = (d: Desired, { vault, kubernetes }: Observed) => ({
  mounts: [vault.kvMount, vault.rootMount, vault.intermediateMount],
  policy: vault.policy,
  role: vault.role,
  roots: vault.rootPki?.issuers.length,
  rootKeys: vault.rootPki?.keys.length,
  issuers: vault.intermediatePki?.issuers.length,
  keys: vault.intermediatePki?.keys.length,
  staging: vault.staging.entry,
  liveDefect: caEntryDefect(ownEntry(vault.live)),
  live: new DerivedVault(d, vault).currentCa !== undefined,
  recorded: ownEntry(vault.state)?.intermediate?.fingerprint === ownEntry(vault.live)?.certificate?.fingerprint,
  defaultIsLive:
    vault.intermediatePki?.issuers.find((i) => i.id === vault.intermediatePki?.defaultIssuerId)?.certificate
      .fingerprint === new DerivedVault(d, vault).currentCa?.certificate.fingerprint,
  fields: kubernetes.controlPlane?.carriesFields,
});
