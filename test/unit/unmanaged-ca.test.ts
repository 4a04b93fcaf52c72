/** Root, intermediate and key store that others manage (`manage: false`): what is said of them, that nothing of them is written, and how they come back. */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { annotations as known } from '../../src/api/annotations.ts';
import type { StageCondition } from '../../src/api/conditions.ts';
import { rootSourceOf } from '../../src/plan/facts/desired.ts';
import { bundleFacts, type CertificateFacts } from '../../src/plan/facts/certificate.ts';
import { generationOfAnyRoot } from '../../src/plan/facts/identity.ts';
import { ownEntry, type CaEntry, type Observed } from '../../src/plan/facts/observed.ts';
import type { RotationPhase } from '../../src/plan/facts/state-entry.ts';
import { plan } from '../../src/plan/plan.ts';
import { statusOf } from '../../src/plan/status/status.ts';
import { clone, simulateStep } from '../../src/plan/simulate.ts';
import type { Step } from '../../src/plan/steps.ts';
import { operatorPolicy } from '../../src/plan/vault/capabilities.ts';
import { cleanup, possiblyLeft } from '../../src/plan/vault/cleanup.ts';
import { follow, rootsOf, runTo } from './rotating-world.ts';
import { converge, derived, desiredOf, emptyWorld, minimalSpec, someCa, start } from './model.ts';

type Over = Record<string, unknown>;
const rootOfOthers: Over = { root: { manage: false } };
const caOfOthers: Over = { ...rootOfOthers, intermediate: { manage: false } };
const storeOfOthers: Over = { ...caOfOthers, keyStore: { manage: false } };
const allOfOthers: Over = { ...storeOfOthers, policy: { manage: false }, kubernetesAuth: { manage: false } };

const existing: Over = { root: { source: 'Existing' } };
const external: Over = { root: { source: 'External', external: { signed: { configMapRef: { name: 'signed' } } } } };
const imported: Over = { intermediate: { source: 'Import', importRef: { secretRef: { name: 'cacerts' } } } };

/** Vault with the CA that the operator made, and a control plane with its fields. */
const made = () => converge(desiredOf(), emptyWorld()).world;

/** An entry without a marker, as the operator sees it if it manages the CA. */
function withForeignEntry(vault: Observed['vault']): void {
  const entry = ownEntry(vault.live);
  if (!entry || vault.live.mark !== '') return;
  const { publicKey, generation, root } = entry;
  vault.live = { ...vault.live, entry: 'foreign', foreign: { publicKey, generation, root, others: [] } };
}

/** What the operator sees of a world with a spec: of what others manage, only what it reads. */
function seen(world: Observed, over: Over): Observed {
  const spec = minimalSpec(over);
  const { keyStore, intermediate } = spec;
  const source = rootSourceOf(spec);
  const { vault, kubernetes } = clone(world);
  const { rootPki } = vault;
  if (intermediate.source === 'Import')
    Object.assign(vault, { intermediateMount: undefined, intermediatePki: undefined });
  if (source !== 'Generate' || intermediate.source === 'Import')
    Object.assign(vault, { rootMount: undefined, rootPki: undefined });
  if (source === 'Existing') {
    const found = (rootPki?.issuers ?? []).map(({ id, keyName, certificate }) => ({ id, name: keyName, certificate, above: [] })); // prettier-ignore
    const id = rootPki?.defaultIssuerId === '' ? undefined : rootPki?.defaultIssuerId;
    // the operator generated the root once, so that the mount looks like that of an owner
    const ids = found.flatMap((issuer) => (generationOfAnyRoot(issuer.name) === undefined ? [] : issuer.id));
    vault.existing = { found, wantedId: id, defaultId: id, ...(ids.length > 0 ? { owners: { ids, complete: true } } : {}) }; // prettier-ignore
  }
  if (intermediate.manage) withForeignEntry(vault);
  if (!keyStore.manage) Object.assign(vault, { state: { casVersion: 0, entry: undefined }, staging: { casVersion: 0, entry: undefined } }); // prettier-ignore
  return { vault, kubernetes };
}

/** Steps until none is left, each seen as the spec has it. */
function run(from: Observed, over: Over, annotations: Record<string, string> = {}, next = plan) {
  const d = desiredOf(over, annotations);
  const done: Step[] = [];
  let world = clone(from);
  if (d.spec.intermediate.manage) withForeignEntry(world.vault);
  for (let round = 0; round < 40; round += 1) {
    const last = next(d, seen(world, over), start);
    if (last.steps.length === 0) return { world, done, last };
    done.push(...last.steps);
    const before = world;
    for (const step of last.steps) world = simulateStep(d, world, step, start);
    // what the simulation takes for absent stays as it is
    world.vault.existing = before.vault.existing!;
  }
  throw new Error(`no end: ${done.slice(-6).map(({ kind }) => kind).join(', ')}`); // prettier-ignore
}

/** A condition of a world in which nothing is left to do. */
function conditionOf(
  world: Observed,
  over: Over,
  type: StageCondition,
  annotations: Record<string, string> = {},
  now = start,
) {
  const d = desiredOf(over, annotations);
  const observed = seen(world, over);
  const resource = { metadata: { name: 'a', namespace: 'b', uid: 'u', generation: 1, resourceVersion: '1', annotations }, spec: d.spec } as unknown as Parameters<typeof statusOf>[0]['resource']; // prettier-ignore
  const { problems } = plan(d, observed, now);
  const found = statusOf({ resource, desired: d, observed, problems, now }).conditions;
  return found?.find((one) => one.type === type);
}

const entryOf = (world: Observed): CaEntry => ownEntry(world.vault.live)!;

/** Others replace the intermediate, in its mount and in the entry, which then has no marker. */
function renewedByOthers(from: Observed, over: Partial<CaEntry> = {}, days = 1825): Observed {
  const world = clone(from);
  const [root] = bundleFacts(entryOf(world).root);
  const certificate = { ...someCa('theirs', root, days), subject: { commonName: 'Istio Intermediate CA', organization: '' } }; // prettier-ignore
  const pki = world.vault.intermediatePki!;
  pki.issuers.push({ id: 'theirs', keyId: 'their key', keyName: '', certificate });
  pki.keys.push({ id: 'their key', name: '' });
  pki.defaultIssuerId = 'theirs';
  const entry = { generation: 0, keyRef: '', certificate, chain: certificate.pem, root: root!.pem, publicKey: certificate.publicKey }; // prettier-ignore
  world.vault.live = { casVersion: world.vault.live.casVersion + 1, entry: { ...entry, ...over }, mark: '' };
  return world;
}

/** What a step touches of the root, the intermediate or the key store. */
function touches(step: Step): ('root' | 'intermediate' | 'keyStore')[] {
  const ofMount = 'mount' in step && step.kind !== 'MountKV' ? ({ pki: ['root'], istioca: ['intermediate'] } as const)[step.mount] : undefined; // prettier-ignore
  if (ofMount) return [...ofMount];
  switch (step.kind) {
    case 'MountKV':
    case 'WriteState':
      return ['keyStore'];
    case 'DeleteEntry':
      return step.entry === 'live' ? ['intermediate', 'keyStore'] : ['keyStore'];
    case 'Unmount':
      return ['keyStore'];
    case 'StageKey':
    case 'ImportCA':
    case 'RecordCSR':
    case 'SignIntermediate':
    case 'PublishLive':
    case 'RemoveStaging':
    case 'LimitVersions':
    case 'DestroyVersions':
      return ['intermediate', 'keyStore'];
    default:
      return [];
  }
}

/** Changes that others can make, and things that can be missing. */
const changes: ((world: Observed) => void)[] = [
  ({ vault }) => void (vault.live = { casVersion: 3, entry: undefined }),
  ({ vault }) => void (vault.rootPki = vault.rootPki && { issuers: [], keys: [], defaultIssuerId: '' }),
  ({ vault }) => void (vault.intermediatePki = vault.intermediatePki && { issuers: [], keys: [], defaultIssuerId: '' }),
  ({ vault }) => Object.assign(vault, { rootMount: undefined, rootPki: undefined }),
  ({ vault }) => Object.assign(vault, { intermediateMount: undefined, intermediatePki: undefined }),
  ({ vault }) => void (vault.kvMount = undefined),
  ({ vault }) => void (vault.state = { casVersion: 9, entry: undefined }),
  ({ vault }) => void (vault.role = undefined),
  ({ vault }) => void (vault.policy = undefined),
  ({ vault }) => void (vault.authMount = undefined),
  ({ vault }) => void (vault.liveVersions = 10),
  ({ vault }) => void (vault.liveOlder = [1, 2]),
  ({ vault }) => void (vault.liveRevoked = true),
  ({ vault }) => {
    if (vault.rootMount) vault.rootMount.description = 'theirs';
  },
  ({ vault }) => {
    if (vault.intermediateMount) vault.intermediateMount.description = 'theirs';
  },
  ({ vault }) => {
    if (vault.rootPki) vault.rootPki.followsLatest = true;
  },
  ({ vault }) => {
    const entry = ownEntry(vault.live);
    if (entry) Object.assign(vault.live, { mark: '', entry: { ...entry, publicKey: 'other' } });
  },
  ({ vault }) => {
    const entry = ownEntry(vault.live);
    if (entry) Object.assign(vault.live, { mark: '' });
  },
  ({ kubernetes }) => void (kubernetes.controlPlane = undefined),
  ({ kubernetes }) => {
    if (kubernetes.controlPlane) kubernetes.controlPlane.carriesFields = false;
  },
];

const texts = [known.rotateRoot, known.rotateIntermediate, known.rollbackRotation, known.allowReissue, known.confirmDeleteRoot]; // prettier-ignore

describe('what is not managed is never written', () => {
  const spec = fc.record({
    root: fc.boolean(),
    intermediate: fc.boolean(),
    keyStore: fc.boolean(),
    adopt: fc.boolean(),
  });

  it('whatever is observed, in a reconcile and in a deletion', () => {
    fc.assert(
      fc.property(
        spec.filter(({ intermediate, keyStore, adopt }) => keyStore || (!intermediate && !adopt)),
        fc.constantFrom(made(), renewedByOthers(made()), emptyWorld()),
        fc.subarray(changes, { maxLength: 4 }),
        fc.subarray(texts),
        fc.constantFrom({}, { delivery: { source: 'PKI' } }, { deletionPolicy: 'Delete' }),
        fc.constantFrom<Over>({}, existing, external, imported),
        fc.constantFrom(plan, cleanup),
        (manages, world, changed, annotated, more, source, next) => {
          const { adopt, ...parts } = manages;
          const over: Over = { ...more, adopt };
          for (const [part, manage] of Object.entries(parts)) over[part] = { ...(source[part] as object), manage };
          const from = clone(world);
          for (const change of changed) change(from);
          from.vault.remains = { otherEntries: [], otherRoles: [], rootMountRoles: [], signed: [] };
          const d = desiredOf(over, Object.fromEntries(annotated.map((name) => [name, 'now'])));
          const { steps } = next(d, seen(from, over), start);
          const written = steps.flatMap(touches).filter((part) => !parts[part]);
          expect({ steps: steps.map(({ kind }) => kind), written }).toEqual({ steps: expect.anything(), written: [] });
        },
      ),
      { numRuns: 600 },
    );
  });

  it.each([
    ['root', rootOfOthers, /"(sys\/mounts\/)?pki/],
    ['intermediate', caOfOthers, undefined],
    ['everything', allOfOthers, undefined],
  ] as const)('no right to write it is asked for: %s', (_what, over, absent) => {
    const text = operatorPolicy(minimalSpec(over), { authMount: true, authConfig: true, auditDevice: true, rootGoes: true, signerId: undefined }); // prettier-ignore
    if (absent) expect(text).not.toMatch(absent);
    const paths = over === allOfOthers ? /./ : over === caOfOthers ? /istioca\/|"(sys\/mounts\/)?(pki|istioca)|data\/istioca"/ : /^$/; // prettier-ignore
    const rules = text.split('\n\n').filter((rule) => paths.test(rule) && !/"(auth\/token|sys\/capabilities-self)/.test(rule)); // prettier-ignore
    expect(rules.filter((rule) => /create|update|patch|delete|sudo/.test(rule))).toEqual([]);
  });

  it('a deletion leaves it, and names none of it', () => {
    const world = made();
    world.vault.remains = { otherEntries: [], otherRoles: [], rootMountRoles: [], signed: [] };
    const confirmed = { [known.confirmDeleteRoot]: derived(desiredOf(), world).signer!.certificate.serial };
    const { world: left, done } = run(world, { ...caOfOthers, deletionPolicy: 'Delete' }, confirmed, cleanup);
    expect(done.map(({ kind }) => kind)).toEqual(['ReleaseControlPlane', 'DeleteRole', 'DeletePolicy', 'DeleteEntry', 'DeleteEntry']); // prettier-ignore
    expect(left.vault.live).toEqual(world.vault.live);
    expect(possiblyLeft(desiredOf(allOfOthers))).toEqual([]);
  });
});

describe('a CA of others', () => {
  it.each([
    [
      'with a state entry',
      caOfOthers,
      'WriteState ClaimControlPlane WritePolicy WriteRole PatchControlPlane WriteState',
    ],
    ['without one', storeOfOthers, 'ClaimControlPlane WritePolicy WriteRole PatchControlPlane'],
    ['and nothing else', allOfOthers, 'ClaimControlPlane PatchControlPlane'],
  ] as const)('is given to istiod, %s', (_what, over, kinds) => {
    const theirs = renewedByOthers(made());
    const fresh = emptyWorld();
    const { rootMount, rootPki, intermediateMount, intermediatePki, kvMount, live } = theirs.vault;
    Object.assign(fresh.vault, { rootMount, rootPki, intermediateMount, intermediatePki, kvMount, live });
    if (over === allOfOthers) {
      fresh.vault.policy = theirs.vault.policy;
      fresh.vault.role = theirs.vault.role;
    }
    const { done, world, last } = run(fresh, over);
    expect(done.map(({ kind }) => kind).sort()).toEqual(kinds.split(' ').sort());
    expect(last.problems).toEqual([]);
    for (const type of ['RootReady', 'IntermediateReady', 'KeyStored', 'ControlPlanePatched'] as const)
      expect(conditionOf(world, over, type)).toMatchObject({ type, status: 'True' });
  });

  it.each([
    ['an issuer of others', { ...caOfOthers, ...existing }],
    ['a root outside of Vault', { ...caOfOthers, ...external }],
    [
      'a CA that is in the key store alone',
      { intermediate: { ...(imported['intermediate'] as object), manage: false } },
    ],
    ['the same, without a state entry', { keyStore: { manage: false }, intermediate: { ...(imported['intermediate'] as object), manage: false } }], // prettier-ignore
  ])('is given to istiod under %s, and nothing is asked for', (_what, over) => {
    const { world, done, last } = run(renewedByOthers(made()), over);
    expect(done.filter(({ kind }) => !/^(WriteState|PatchControlPlane)$/.test(kind))).toEqual([]);
    expect(last.problems).toEqual([]);
    expect(world.kubernetes.controlPlane?.carriesFields).toBe(true);
    for (const type of ['RootReady', 'IntermediateReady', 'KeyStored'] as const)
      expect(conditionOf(world, over, type)).toMatchObject({ type, status: 'True' });
  });

  it.each([
    ['with a state entry', { intermediate: { manage: false } }],
    ['without one', { intermediate: { manage: false }, keyStore: { manage: false } }],
  ])('can be under a root that the operator generates once, %s', (_what, over: Over) => {
    const { world, done } = run(emptyWorld(), over);
    expect(done.filter(({ kind }) => kind === 'GenerateRoot')).toHaveLength(1);
    expect(conditionOf(world, over, 'RootReady')?.status).toBe('True');
    expect(conditionOf(world, over, 'IntermediateReady')).toMatchObject({ status: 'False', reason: 'CADiffers' });
    const theirs = clone(world);
    const { rootPki } = theirs.vault;
    const [root] = rootPki!.issuers;
    const signed = (by: CertificateFacts) => {
      const certificate = {
        ...someCa('theirs', by),
        subject: { commonName: 'Istio Intermediate CA', organization: '' },
      };
      Object.assign(theirs.vault, {
        kvMount: theirs.vault.kvMount ?? { type: 'kv', description: '', maxLeaseTtl: 0, kvVersion: 2 },
        intermediateMount: { type: 'pki', description: '', maxLeaseTtl: 0 },
        intermediatePki: { issuers: [{ id: 'theirs', keyId: 'k', keyName: '', certificate }], keys: [], defaultIssuerId: 'theirs' }, // prettier-ignore
        live: { casVersion: 1, mark: '', entry: { generation: 0, keyRef: '', certificate, chain: certificate.pem, root: by.pem, publicKey: certificate.publicKey } }, // prettier-ignore
      });
      return theirs;
    };
    const other = run(signed(someCa('other root', undefined)), over);
    expect(other.done).toEqual([]);
    expect(conditionOf(other.world, over, 'IntermediateReady')?.message).toContain('is not under root');
    const under = run(signed(root!.certificate), over);
    expect(under.done.map(({ kind }) => kind).filter((kind) => kind !== 'WriteState')).toEqual(['PatchControlPlane']);
    expect(under.last.problems).toEqual([]);
  });

  const world = (over: Partial<CaEntry> = {}, days?: number) =>
    run(renewedByOthers(made(), over, days), caOfOthers).world;
  const foreignRoot = someCa('other root', undefined);
  const of = (change: (vault: Observed['vault']) => void, from = world()): Observed => {
    change(from.vault);
    return from;
  };
  const certificate = (from: Observed): CertificateFacts => entryOf(from).certificate!;

  it.each<[string, StageCondition, string, () => Observed, Over?]>([
    [
      'no entry',
      'KeyStored',
      'KV entry kv/istioca does not exist',
      () => of((vault) => (vault.live = { casVersion: 0, entry: undefined })),
    ],
    [
      'no key store',
      'KeyStored',
      'mount kv/ does not exist',
      () => of((vault) => (vault.kvMount = undefined)),
      storeOfOthers,
    ],
    [
      'a key alone',
      'KeyStored',
      'no ca-cert.pem, no cert-chain.pem, no root-cert.pem',
      () => world({ certificate: undefined, chain: '', root: '' }),
    ],
    ['another key', 'KeyStored', 'is not the key of its ca-cert.pem', () => world({ publicKey: 'other' })],
    ['no key', 'KeyStored', 'has no ca-key.pem that is a private key', () => world({ publicKey: undefined })],
    [
      'a key that istiod cannot read',
      'KeyStored',
      'has another block before the key',
      () => world({ unreadableKey: true }),
    ],
    ['another chain', 'KeyStored', 'does not begin with its ca-cert.pem', () => world({ chain: foreignRoot.pem })],
    [
      'an entry that Vault deletes',
      'KeyStored',
      'Vault deletes KV entry kv/istioca on 2030',
      () => of((vault) => (vault.live.lifetime = { from: start, to: start + 1 })),
    ],
    [
      'another root',
      'IntermediateReady',
      'is not signed by a root of root-cert.pem',
      () => world({ root: foreignRoot.pem }),
    ],
    [
      'no mount',
      'IntermediateReady',
      'mount istioca/ does not exist',
      () => of((vault) => Object.assign(vault, { intermediateMount: undefined, intermediatePki: undefined })),
    ],
    [
      'a mount without it',
      'IntermediateReady',
      'no issuer with the certificate of the CA entry',
      () => of((vault) => (vault.intermediatePki = { issuers: [], keys: [], defaultIssuerId: '' })),
    ],
    [
      'a mount without it, PKI',
      'IntermediateReady',
      'mount istioca/ has no default issuer',
      () => of((vault) => (vault.intermediatePki = { issuers: [], keys: [], defaultIssuerId: '' })),
      { ...caOfOthers, delivery: { source: 'PKI' } },
    ],
    ['one that has ended', 'IntermediateReady', 'has expired on', () => world({}, -1)],
    ['one that was revoked', 'IntermediateReady', 'was revoked', () => of((vault) => (vault.liveRevoked = true))],
    [
      'another name',
      'IntermediateReady',
      'spec.intermediate.commonName is "Mine", and the certificate has "Istio Intermediate CA"',
      world,
      { ...caOfOthers, intermediate: { manage: false, commonName: 'Mine' } },
    ],
    [
      'another kind of key',
      'RootReady',
      'spec.root.key is "ec 256", and the certificate has "rsa 4096"',
      world,
      { ...caOfOthers, root: { manage: false, key: { type: 'ec' } } },
    ],
    [
      'no root',
      'RootReady',
      'mount pki/ has no default issuer, or does not exist',
      () => of((vault) => (vault.rootPki = undefined)),
    ],
    [
      'an issuing CA in place of the root',
      'RootReady',
      'is no root',
      () =>
        of((vault) =>
          Object.assign(vault.rootPki!.issuers[0]!, { certificate: { ...certificate(world()), selfIssued: false } }),
        ),
    ],
    [
      'an issuer that did not sign',
      'RootReady',
      'is not under "other root"',
      () => of((vault) => Object.assign(vault.rootPki!.issuers[0]!, { certificate: foreignRoot })),
    ],
  ])('%s is said in %s', (_what, type, text, from, over = caOfOthers) => {
    const at = from();
    const found = conditionOf(at, over, type);
    expect(found).toMatchObject({ status: 'False', message: expect.stringContaining(text) });
    expect(found?.reason).toMatch(/^(CADiffers|IssuerRevoked)$/);
    expect(run(at, over).done.filter((step) => touches(step).some((part) => part !== 'keyStore'))).toEqual([]);
  });

  it('istiod does not get what is not whole, and keeps what it has', () => {
    const before = world();
    const at = clone(before);
    at.kubernetes.controlPlane!.carriesFields = false;
    expect(run(at, caOfOthers).done.map(({ kind }) => kind)).toEqual(['PatchControlPlane']);
    Object.assign(entryOf(at), { publicKey: 'half written' });
    expect(run(at, caOfOthers).done).toEqual([]);
  });

  it('a renewal by others moves the digest, and a root that no workload trusts does not', () => {
    const before = world();
    before.kubernetes.meshRoots = bundleFacts(entryOf(before).root);
    const digestOf = (at: Observed) => {
      at.kubernetes.controlPlane!.carriesFields = false;
      return run(at, caOfOthers).done.flatMap((step) => (step.kind === 'PatchControlPlane' ? [step.digest] : []));
    };
    const [first] = digestOf(clone(before));
    const [second] = digestOf(renewedByOthers(before, {}, 1000));
    expect(second).toMatch(/^[0-9a-f]{64}$/);
    expect(second).not.toBe(first);
    const replaced = clone(before);
    replaced.kubernetes.meshRoots = [foreignRoot];
    expect(digestOf(clone(replaced))).toEqual([]);
    expect(conditionOf(replaced, caOfOthers, 'RootReady')).toMatchObject({ reason: 'CADiffers', message: expect.stringContaining('than workloads trust, "other root"') }); // prettier-ignore
    const confirmed = { [known.confirmRootChange]: foreignRoot.fingerprint };
    expect(conditionOf(replaced, caOfOthers, 'RootReady', confirmed)?.status).toBe('True');
  });

  it.each([
    ['in a mount of others', { ...caOfOthers }],
    ['in the mount of an IstioVaultCA', { ...caOfOthers, ...existing }],
  ])('a root that no workload trusts is kept from istiod, with an issuer %s', (_what, over: Over) => {
    const other = someCa('theirs', foreignRoot);
    const at = run(world({ certificate: other, chain: other.pem, root: foreignRoot.pem, publicKey: other.publicKey }), over).world; // prettier-ignore
    at.vault.intermediatePki!.issuers.push({ id: 'x', keyId: 'x', keyName: '', certificate: other });
    at.kubernetes.meshRoots = at.vault.rootPki!.issuers.map((issuer) => issuer.certificate);
    at.kubernetes.controlPlane!.carriesFields = false;
    expect(run(at, over).done).toEqual([]);
    expect(conditionOf(at, over, 'RootReady')?.message).toContain('than workloads trust');
  });

  it('its end is said, first beside a condition that holds', () => {
    const at = (days: number) => conditionOf(world({}, days), { ...caOfOthers, intermediate: { manage: false, renewBefore: '240h' } }, 'IntermediateReady'); // prettier-ignore
    expect(at(20)).toMatchObject({ status: 'True', reason: 'IntermediateValid' });
    expect(at(20)?.message).toContain('which they must renew from 2030-01-11 on');
    expect(at(9)).toMatchObject({ status: 'True', reason: 'IntermediateExpiresSoon' });
    expect(at(4)).toMatchObject({ status: 'False', reason: 'IntermediateExpiresSoon' });
  });

  it('actions are not taken, which is said, and do not begin later', () => {
    const asked = { [known.rotateRoot]: 'x', [known.rotateIntermediate]: 'y' };
    const { world: at, done } = run(world(), caOfOthers, asked);
    expect(done.map(({ kind }) => kind)).toEqual(['WriteState']);
    expect(conditionOf(at, caOfOthers, 'RootReady', asked)?.message).toContain(`annotation ${known.rotateRoot} has no effect`); // prettier-ignore
    expect(conditionOf(at, caOfOthers, 'IntermediateReady', asked)?.message).toContain(`annotation ${known.rotateIntermediate} has no effect`); // prettier-ignore
  });

  it('the published procedure is a whole CA with PKI delivery', () => {
    const key = { certificate: undefined, chain: '', root: '' };
    const over = { ...caOfOthers, delivery: { source: 'PKI' } };
    const at = run(world(key), over).world;
    for (const type of ['RootReady', 'IntermediateReady', 'KeyStored', 'ControlPlanePatched'] as const)
      expect(conditionOf(at, over, type)).toMatchObject({ type, status: 'True' });
  });
});

describe('handing over, and taking back', () => {
  it.each([
    ['the root', rootOfOthers],
    ['the CA', caOfOthers],
    ['the intermediate', { intermediate: { manage: false } }],
  ])('%s: nothing but the state entry changes, there and back', (_what, over) => {
    const before = made();
    const there = run(before, over);
    expect(new Set(there.done.map(({ kind }) => kind))).toEqual(new Set(['WriteState']));
    expect(there.last.problems).toEqual([]);
    const back = run(there.world, {});
    expect(new Set(back.done.map(({ kind }) => kind))).toEqual(new Set(['WriteState']));
    expect(back.last.problems).toEqual([]);
    const state = (world: Observed) => ownEntry(world.vault.state)!;
    expect([...state(back.world).made].sort()).toEqual([...state(before).made].sort());
    expect({ ...state(back.world), made: [] }).toEqual({ ...state(before), made: [] });
    expect({ ...back.world.vault, state: 0, existing: 0 }).toEqual({ ...before.vault, state: 0, existing: 0 });
  });

  const lifetime = { maxWorkloadCertTTL: '24h' };
  const asked = { [known.rotateRoot]: 'a' };
  /** A rotation of the operator at the beginning of a phase; undefined: at its end. */
  const rotated = (phase: RotationPhase | undefined) => {
    const d = desiredOf({ intermediate: lifetime }, asked);
    return runTo(phase, follow(made(), d), d);
  };
  const stateOf = (world: Observed) => ownEntry(world.vault.state)!;

  it('the root after a rotation: the retired one is not trusted again, nor followed when it is the default issuer', () => {
    const { world } = rotated(undefined);
    const over = { ...rootOfOthers, intermediate: lifetime };
    const there = run(world, over, asked);
    expect(new Set(there.done.map(({ kind }) => kind))).toEqual(new Set(['WriteState']));
    expect(rootsOf(there.world)).toEqual(rootsOf(world));
    const retired = there.world.vault.rootPki!.issuers.find(({ certificate }) => certificate.fingerprint !== rootsOf(world)[0])!; // prettier-ignore
    there.world.vault.rootPki!.defaultIssuerId = retired.id;
    expect(run(there.world, over, asked).done).toEqual([]);
    expect(conditionOf(there.world, over, 'RootReady', asked)?.message).toContain(`annotation ${known.rotateRoot} moves`); // prettier-ignore
  });

  it('the root in a rotation: that stands still, whatever the default issuer is', () => {
    const { world } = rotated('Switching');
    const old = world.vault.rootPki!.issuers.find(({ certificate }) => certificate.fingerprint === stateOf(world).root?.fingerprint)!; // prettier-ignore
    world.vault.rootPki!.defaultIssuerId = old.id;
    const there = run(world, { ...rootOfOthers, intermediate: lifetime }, asked).world;
    expect(stateOf(there).rotation).toEqual(stateOf(world).rotation);
  });

  it('the intermediate in a rotation, under the new root: that is the root, and stays the default issuer', () => {
    const { world, now } = rotated('Switching');
    const over = { intermediate: { manage: false, ...lifetime } };
    const there = run(world, over, asked);
    expect(new Set(there.done.map(({ kind }) => kind))).toEqual(new Set(['WriteState']));
    expect(derived(desiredOf(over, asked), there.world).signer?.certificate.fingerprint).toBe(stateOf(world).rotation?.to.fingerprint); // prettier-ignore
    expect(conditionOf(there.world, over, 'IntermediateReady', asked, now)).toMatchObject({ status: 'True', reason: 'IntermediateValid' }); // prettier-ignore
  });

  it('the intermediate in a rotation: since when the mesh trusts both roots is forgotten', () => {
    const { world } = rotated('Distributing');
    stateOf(world).rotation = { ...stateOf(world).rotation!, reachedAt: '2030-01-01T00:00:00Z' };
    const { reachedAt, ...rotation } = stateOf(world).rotation!;
    expect(reachedAt).toBeDefined();
    const there = run(world, { intermediate: { manage: false, ...lifetime } }, asked).world;
    expect(stateOf(there).rotation).toEqual(rotation);
  });

  it('the intermediate: a root that is to change is not asked for with an annotation that has no effect', () => {
    const over = { intermediate: { manage: false } };
    const { world } = run(made(), over);
    const message = conditionOf(world, { ...over, root: { commonName: 'New' } }, 'RootReady')?.message;
    expect(message).toContain(`replaced: spec.intermediate.manage: true, without which the operator rotates no root, then annotation ${known.rotateRoot}`); // prettier-ignore
  });

  it('what others published stays until spec.adopt, and then is the CA of this resource', () => {
    const theirs = renewedByOthers(run(made(), caOfOthers).world);
    const { world } = run(theirs, caOfOthers);
    const refused = run(world, {});
    expect(refused.done).toEqual([]);
    expect(refused.last.problems.map(({ reason }) => reason)).toEqual(['MountNotOwned']);
    const adopted = run(world, { adopt: true });
    expect(adopted.last.problems).toEqual([]);
    expect(adopted.done.filter(({ kind }) => /StageKey|Generate|Sign/.test(kind))).toEqual([]);
    expect(entryOf(adopted.world).certificate).toEqual(entryOf(theirs).certificate);
    expect(adopted.world.vault.live.mark).toContain('origin=adopted');
  });

  it('a root mount without the marker stays until spec.adopt', () => {
    const { world } = run(made(), rootOfOthers);
    world.vault.rootMount!.description = 'theirs';
    expect(run(world, {}).last.problems.map(({ reason }) => reason)).toEqual(['MountNotOwned']);
    const adopted = run(world, { adopt: true });
    expect(adopted.last.problems).toEqual([]);
    expect(adopted.done.map(({ kind }) => kind)).toEqual(['WriteState', 'TuneMount']);
    expect(adopted.world.vault.rootMount?.description).toContain('origin=adopted');
  });

  it('rotate-root moves to the default issuer of others, and never generates a root, also when they give it back', () => {
    const { world } = run(made(), rootOfOthers);
    const certificate = { ...someCa('Istio Root CA', undefined), keyBits: 4096 };
    world.vault.rootPki!.issuers.push({ id: 'next', keyId: 'next key', keyName: '', certificate });
    world.vault.rootPki!.defaultIssuerId = 'next';
    const asked = { [known.rotateRoot]: 'now' };
    const d = desiredOf(rootOfOthers, asked);
    const observed = follow(seen(world, rootOfOthers), d);
    expect(conditionOf(world, rootOfOthers, 'RootReady')?.message).toContain(`annotation ${known.rotateRoot} moves`);
    const [step, ...others] = plan(d, observed, start).steps;
    expect(others).toEqual([]);
    const rotation = step?.kind === 'WriteState' ? step.state.rotation : undefined;
    expect(rotation).toMatchObject({
      phase: 'Issuing',
      to: { fingerprint: certificate.fingerprint, issuerId: 'next' },
    });
    world.vault.state = clone({
      ...world.vault.state,
      entry: { ...ownEntry(world.vault.state)!, rotation: rotation! },
    });
    // the mount still has the mark, so its default issuer is the root that signs
    expect(run(world, {}).done.map(({ kind }) => kind).filter((kind) => kind !== 'WriteState')).toEqual(['SetDefaultIssuer']); // prettier-ignore
  });

  it('a root rotation stands still, and says so', () => {
    const before = made();
    const state = ownEntry(before.vault.state)!;
    const to = { generation: 2, spec: state.root!.spec };
    state.rotation = { phase: 'Issuing', startedAt: '2030-01-01T00:00:00Z', to, back: false, longestMs: 0 };
    for (const [over, field] of [
      [rootOfOthers, 'spec.root.manage'],
      [caOfOthers, 'spec.intermediate.manage'],
    ] as const) {
      const { world, done } = run(before, over);
      expect(done.filter((step) => step.kind !== 'WriteState')).toEqual([]);
      expect(ownEntry(world.vault.state)?.rotation).toEqual(state.rotation);
      const d = desiredOf(over);
      const observed = seen(world, over);
      const resource = { metadata: { name: 'a', namespace: 'b', annotations: {} }, spec: d.spec } as unknown as Parameters<typeof statusOf>[0]['resource']; // prettier-ignore
      const { rotation } = statusOf({ resource, desired: d, observed, problems: [], now: start });
      expect(rotation).toMatchObject({ phase: 'Paused', waitingFor: expect.stringContaining(field) });
    }
  });
});
