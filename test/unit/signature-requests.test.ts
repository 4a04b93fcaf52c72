/** A request that is signed outside of Vault: the ConfigMap that shows it, the CertificateRequest of cert-manager, and whichever place answers. */
import { describe, expect, it } from '@jest/globals';
import { plannedCertificate, type CertificateFacts } from '../../src/plan/facts/certificate.ts';
import { ownEntry, type GivenCertificates, type Observed, type ObservedCertificateRequest } from '../../src/plan/facts/observed.ts'; // prettier-ignore
import { signatureOf } from '../../src/plan/facts/outside-roots.ts';
import { wantedRequest } from '../../src/plan/facts/signature-request.ts';
import { plan } from '../../src/plan/plan.ts';
import { desire, type Desired } from '../../src/plan/facts/desired.ts';
import { simulateStep } from '../../src/plan/simulate.ts';
import type { Step, StepKind } from '../../src/plan/steps.ts';
import { outsideNote, outsideUnreadable, rootAwaited } from '../../src/plan/vault/outside-root-checks.ts';
import { statusOf } from '../../src/plan/status/status.ts';
import { resourceSchema } from '../../src/api/schema.ts';
import { converge, derived, desiredOf, emptyWorld, identity, minimalSpec, someCa, start } from './model.ts';
import { live } from './rotating-world.ts';

const day = 24 * 3_600_000;
const issuer = { certManagerIssuerRef: { name: 'corporate' } };
const object = { signed: { configMapRef: { name: 'signed' } } };
const wanted = (external: object, over: Record<string, unknown> = {}): Desired =>
  desiredOf({ root: { source: 'External', external }, intermediate: { maxWorkloadCertTTL: '24h' }, ...over });
const d = wanted(issuer);
const root = someCa('root', undefined);

/** A world in which the operator may write ConfigMaps. @param content of the ConfigMap with the request */
const worldWith = (content: 'none' | 'foreign' = 'none', lacks?: string): Observed => {
  const empty = emptyWorld();
  return { ...empty, kubernetes: { ...empty.kubernetes, requestMap: { content, lacks } } };
};
const kinds = (steps: readonly { kind: StepKind }[]) => steps.map(({ kind }) => kind);
const waitingWorld = (desired = d): Observed => converge(desired, worldWith()).world;

/** What a CA makes of the request that waits. */
function signed(world: Observed, over: Partial<CertificateFacts> = {}): GivenCertificates {
  const facts = {
    publicKey: ownEntry(world.vault.staging)?.publicKey ?? '',
    notBefore: start,
    notAfter: start + 1825 * day,
    subject: { commonName: 'Istio Intermediate CA', organization: '' },
    selfIssued: false,
    isCa: true,
    maxPathLength: 0,
    canSignCertificates: true,
    keyType: 'rsa' as const,
    keyBits: 2048,
    ...over,
  };
  return { place: 'a place', certificates: [plannedCertificate(facts, root.fingerprint), root] };
}
const nameIn = (desired: Desired, world: Observed): string => wantedRequest(derived(desired, world))?.name ?? '';
/** The world with this state of the CertificateRequest. */
const asked = (world: Observed, state: (name: string) => ObservedCertificateRequest, desired = d): Observed => ({
  ...world,
  kubernetes: { ...world.kubernetes, certificateRequest: state(nameIn(desired, world)) },
});
const given = (world: Observed, certificates: GivenCertificates | undefined): Observed => ({
  ...world,
  kubernetes: { ...world.kubernetes, ...(certificates ? { signed: certificates } : {}) },
});

describe('the way to a signature', () => {
  it('both are made once, after everything in Vault; with the certificate the ConfigMap goes', () => {
    const { world, done } = converge(d, worldWith());
    expect(kinds(done).filter((kind) => /CSR|Request/.test(kind))).toEqual([
      'RecordCSR',
      'PublishCSR',
      'RequestSignature',
    ]);
    const answered = asked(world, (name) => ({ state: 'signed', name, given: signed(world) }));
    const end = converge(d, answered);
    expect(kinds(end.done)).toContain('RemoveCSR');
    expect([live(end.world).generation, end.world.kubernetes.requestMap?.content]).toEqual([1, 'none']);
    expect(plan(d, end.world, start).steps).toEqual([]);
  });

  it('without the right to write ConfigMaps the message says so, and cert-manager is asked all the same', () => {
    const { world, done } = converge(d, worldWith('none', 'The operator lacks permission to create configmaps.'));
    expect(kinds(done).filter((kind) => /CSR|Request/.test(kind))).toEqual(['RecordCSR', 'RequestSignature']);
    expect(outsideNote(derived(d, world))?.message).toMatch(/ConfigMap istio-system\/istioca-csr does not show it: The operator lacks permission/); // prettier-ignore
  });

  it('a ConfigMap of somebody else stays, and is named', () => {
    const { world, done } = converge(d, worldWith('foreign'));
    expect(kinds(done)).not.toContain('PublishCSR');
    expect(outsideNote(derived(d, world))?.message).toContain('is not owned by this resource and was left alone');
  });

  it('of a ConfigMap with other keys only the request is removed, once', () => {
    const world = waitingWorld();
    const answered = asked(world, (name) => ({ state: 'signed', name, given: signed(world) }));
    answered.kubernetes.requestMap = { content: { csr: 'planned request', others: true }, lacks: undefined };
    const { done, last } = converge(d, answered);
    expect(done.filter(({ kind }) => kind === 'RemoveCSR')).toEqual([{ kind: 'RemoveCSR', name: 'istioca-csr', others: true }]); // prettier-ignore
    expect(last.steps).toEqual([]);
  });

  it('a CertificateRequest that goes when its certificate is installed is not made again', () => {
    const world = waitingWorld();
    const { intermediatePki: pki, staging } = world.vault;
    const [certificate] = signed(world).certificates;
    const keyId = pki?.keys[0]?.id ?? '';
    pki?.issuers.push({ id: 'installed', keyId, keyName: '', certificate: certificate! });
    const gone = asked(world, (name) => ({ state: 'absent', name }));
    expect(ownEntry(staging)?.csr).toBeDefined();
    expect(kinds(plan(d, gone, start).steps)).not.toContain('RequestSignature');
  });

  it('does not keep the control plane from its fields, whatever refuses the request', () => {
    const world = waitingWorld();
    const { world: running } = converge(
      d,
      asked(world, (name) => ({ state: 'signed', name, given: signed(world) })),
    );
    const next = wanted(issuer, { intermediate: { maxWorkloadCertTTL: '24h', commonName: 'Other' } });
    const pick = (steps: Step[]) => steps.filter(({ kind }) => !/CSR$|RequestSignature/.test(kind) || kind === 'RecordCSR'); // prettier-ignore
    let at = running;
    for (let i = 0; i < 6; i += 1) for (const step of pick(plan(next, at, start).steps)) at = simulateStep(next, at, step, start); // prettier-ignore
    at.kubernetes.controlPlane!.carriesFields = false;
    expect(kinds(plan(next, at, start).steps)).toEqual(['PublishCSR', 'RequestSignature', 'PatchControlPlane']);
  });

  it('is not begun while cert-manager is not there, or may not be asked', () => {
    for (const state of [{ state: 'notServed' } as const, { state: 'forbidden', name: '', message: 'no' } as const]) {
      const world = waitingWorld();
      const seen = asked(world, (name) => (state.state === 'forbidden' ? { ...state, name } : state));
      expect(plan(d, seen, start).steps).toEqual([]);
    }
  });
});

describe('the name of a CertificateRequest', () => {
  const real = (desired: Desired): string => {
    const world = waitingWorld(desired);
    const staged = ownEntry(world.vault.staging);
    if (staged?.csr) staged.csr.pem = 'a request';
    return nameIn(desired, world);
  };

  it('is another one for each request, issuer, lifetime and resource', () => {
    const over = { intermediate: { maxWorkloadCertTTL: '24h', ttl: '40000h' } };
    const other = { ...identity, uid: 'u-2' };
    const names = [
      real(d),
      real(wanted({ certManagerIssuerRef: { name: 'corporate', kind: 'ClusterIssuer' } })),
      real(wanted({ certManagerIssuerRef: { name: 'corporate', group: 'example.com' } })),
      real(wanted(issuer, over)),
      real(desire(other, d.spec, {})),
    ];
    expect(names.every((name) => /^istioca-1-[0-9a-f]{8}$/.test(name))).toBe(true);
    expect(new Set(names).size).toBe(names.length);
    expect(real(wanted({ certManagerIssuerRef: { name: 'corporate', kind: 'Issuer', group: 'cert-manager.io' } }))).toBe(names[0]); // prettier-ignore
  });

  it.each([253, 240, 239])(
    'is one that the API server takes, for a resource with a name of %d characters',
    (length) => {
      const name = `${'a'.repeat(238)}.${'b'.repeat(20)}`.slice(0, length);
      const desired = desire({ ...identity, name }, d.spec, {});
      expect(real(desired)).toMatch(/^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/);
    },
  );
});

describe('two places', () => {
  const both = wanted({ ...issuer, ...object });
  const world = waitingWorld(both);
  const sound = signed(world);
  const noCa = signed(world, { isCa: false });
  const at = (state: (name: string) => ObservedCertificateRequest, inObject?: GivenCertificates) =>
    derived(both, given(asked(world, state, both), inObject));
  const pending = (name: string) => ({ state: 'waiting', name, approved: true, said: '' }) as const;
  const denied = (name: string) => ({ state: 'failed', name, what: 'was denied', said: '' }) as const;
  const answers = (certificates: GivenCertificates) => (name: string) =>
    ({ state: 'signed', name, given: certificates }) as const;

  it.each<[string, (name: string) => ObservedCertificateRequest, GivenCertificates | undefined, string]>([
    ['neither', pending, undefined, 'awaited'],
    ['cert-manager alone', answers(sound), undefined, 'accepted'],
    ['the object alone', pending, sound, 'accepted'],
    ['the object, after cert-manager denied it', denied, sound, 'accepted'],
    ['cert-manager, with something wrong in the object', answers(sound), noCa, 'accepted'],
    ['both wrong', answers(noCa), noCa, 'refused'],
    ['cert-manager denied it', denied, undefined, 'refused'],
  ])('%s', (_, state, inObject, kind) => expect(signatureOf(at(state, inObject))?.kind).toBe(kind));

  it('the message has both ways', () => {
    const message = outsideNote(at(pending))?.message ?? '';
    expect(message).toMatch(/waits for Issuer corporate to sign it/);
    expect(message).toMatch(/Or hand it in by hand\. .* into ConfigMap istio-system\/signed, key tls.crt/);
  });

  it('one that may not be read is reported until the other one answers', () => {
    const forbidden = (name: string) => ({ state: 'forbidden', name, message: 'no right' }) as const;
    expect(outsideUnreadable(at(forbidden))).toMatchObject({ reason: 'Forbidden', message: 'no right' });
    expect(outsideUnreadable(at(forbidden, sound))).toBeUndefined();
  });
});

it('what may not be read shows in RootReady too, and the request stays in the status', () => {
  const world = asked(waitingWorld(), (name) => ({ state: 'forbidden', name, message: 'no right' }));
  expect(rootAwaited(derived(d, world))).toMatchObject({ condition: 'RootReady', reason: 'Forbidden' });
  const metadata = { ...identity, generation: 1, creationTimestamp: '2030-01-01T00:00:00Z' };
  const resource = resourceSchema.parse({
    apiVersion: 'istiovaultca.io/v1alpha1',
    kind: 'IstioVaultCA',
    metadata,
    spec: minimalSpec({ root: d.spec.root }),
  });
  const input = { resource, desired: d, observed: world, problems: [], now: start };
  expect(statusOf(input).csr).toBe('planned request');
});
