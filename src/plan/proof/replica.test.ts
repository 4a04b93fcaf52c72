import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import {
  container,
  d,
  deploymentOf,
  ended,
  initialising,
  leafOf,
  liveOf,
  now,
  podOf,
  provisioned,
  rootOf,
  running,
  servesItself,
  servesLive,
  settingsOf,
  waiting,
  withIstiod,
} from '../../../test/unit/istiod-world.ts';
import { converge, desiredOf, someCa, derived } from '../../../test/unit/model.ts';
import { failingPhases, istiodPhases, podReasons } from '../../api/istiod.ts';
import { isSignedBy } from '../facts/certificate.ts';
import { expectedCa, evaluateHandshake } from './handshake.ts';
import { classify, olderThan, type EvaluationInput } from './replica.ts';
import { logRequestsOf } from './log-requests.ts';
import { nextChangeAt } from './containers.ts';
import { logRequests } from './ready.ts';
import type { Observed } from '../facts/observed.ts';
import type { IstiodContainer, IstiodPod, Served } from '../facts/observed-istiod.ts';

const world = provisioned();
const secondsAgo = (s: number) => now - s * 1000;

const scene = (over: Partial<EvaluationInput> = {}, o: Observed = world, at = now): EvaluationInput => ({
  s: derived(d, o, at),
  deployment: deploymentOf(o, 1),
  ca: expectedCa(derived(d, o)),
  ...over,
});
const pod = (over: Parameters<typeof podOf>[2] = {}) => podOf(world, 'istiod-1', over);
const said = (p: IstiodPod, s: EvaluationInput = scene()) => {
  const { phase, reason, container: of } = classify(p, s);
  return [phase, reason, ...(of === undefined ? [] : [of])].join(' ');
};

const login = [
  'agent.auth.handler: error authenticating: error="Error making API request. Code: 403. Errors: * service account name not authorized"',
];
const without = (settings: ReturnType<typeof settingsOf>, ...names: string[]) => ({
  ...settings,
  annotations: Object.fromEntries(Object.entries(settings.annotations).filter(([name]) => !names.includes(name))),
});
const inject = 'vault.hashicorp.com/agent-inject';
const crashed = (exitCode = 1, secondsSince = 30): Partial<IstiodContainer> => ({
  restarts: 1,
  last: { exitCode, reason: 'Error', endedMs: secondsAgo(secondsSince) },
});

/** The handshake data of a replica that somebody else gave a certificate under the root. @param issuer of that certificate */
const underRoot = (issuer = rootOf(world)): Served => ({
  leaf: leafOf(issuer),
  chain: issuer.fingerprint === rootOf(world).fingerprint ? [] : [issuer],
  issuer: 'CN=somebody',
});

describe('each phase', () => {
  it.each<[string, Parameters<typeof podOf>[2], string]>([
    ['proven by the handshake', {}, 'Proven Handshake'],
    // Vault Agent's init container
    ['hangs 9 s with errors', initialising({ state: running(secondsAgo(9)), log: login }), 'Pending VaultInit vault-agent-init'],
    ['hangs 10 s with errors', initialising({ state: running(secondsAgo(10)), log: login }), 'VaultInitFailed LoginRefused vault-agent-init'],
    ['hangs 44 s without the log', initialising({ state: running(secondsAgo(44)), log: 'unreadable' }), 'Pending VaultInit vault-agent-init'],
    ['hangs 45 s without the log', initialising({ state: running(secondsAgo(45)), log: 'unreadable' }), 'VaultInitFailed Hanging vault-agent-init'],
    ['hangs 44 s without an error', initialising({ state: running(secondsAgo(44)), log: [] }), 'Pending VaultInit vault-agent-init'],
    ['hangs 45 s without an error', initialising({ state: running(secondsAgo(45)), log: [] }), 'VaultInitFailed Hanging vault-agent-init'],
    ['may not read', initialising({ state: running(secondsAgo(20)), log: ['(view) vault.read(kv/data/istioca): Code: 403. Errors: * permission denied'] }), 'VaultInitFailed ReadRefused vault-agent-init'],
    ['finds nothing', initialising({ state: waiting('CrashLoopBackOff'), log: ['no secret exists at kv/data/istioca'] }), 'VaultInitFailed SecretMissing vault-agent-init'],
    ['reaches nobody', initialising({ state: running(secondsAgo(20)), log: ['dial tcp: lookup vault: no such host'] }), 'VaultInitFailed VaultUnreachable vault-agent-init'],
    ['trusts nobody', initialising({ state: running(secondsAgo(20)), log: ['tls: failed to verify certificate: x509: certificate signed by unknown authority'] }), 'VaultInitFailed VaultTLS vault-agent-init'],
    ['meets a sealed Vault', initialising({ state: running(secondsAgo(20)), log: ['Code: 503. Errors: * Vault is sealed'] }), 'VaultInitFailed VaultSealed vault-agent-init'],
    ['finds nothing in a mount called sealed', initialising({ state: running(secondsAgo(20)), log: ['no secret exists at sealed-kv/data/istioca'] }), 'VaultInitFailed SecretMissing vault-agent-init'],
    ['crashes', initialising({ state: waiting('CrashLoopBackOff') }), 'VaultInitFailed CrashLoopBackOff vault-agent-init'],
    ['has no image', initialising({ state: waiting('ErrImagePull') }), 'VaultInitFailed ErrImagePull vault-agent-init'],
    ['has ended badly', initialising({ state: ended(2) }), 'VaultInitFailed Error vault-agent-init'],
    ['crashed and runs again', initialising({ state: running(secondsAgo(1)), ...crashed() }), 'VaultInitFailed Error vault-agent-init'],
    ['is being made', initialising({ state: waiting('ContainerCreating') }), 'Pending ContainerCreating vault-agent-init'],
    ['no node takes it', { ...initialising({ state: waiting('') }), unschedulable: '0/3 nodes are available' }, 'Pending Unschedulable'],
    // Vault Agent's sidecar container
    ['agent crashes', { containers: { 'vault-agent': { ready: false, state: waiting('CrashLoopBackOff') } } }, 'VaultAgentFailed CrashLoopBackOff vault-agent'],
    ['agent has ended', { containers: { 'vault-agent': { ready: false, state: ended(1) } } }, 'VaultAgentFailed Error vault-agent'],
    ['agent was restarted once', { containers: { 'vault-agent': crashed(137) } }, 'Proven Handshake'],
    ['agent restarts again and again', { containers: { 'vault-agent': { ...crashed(), restarts: 2 } } }, 'VaultAgentFailed RestartsAgain vault-agent'],
    ['agent once restarted often', { containers: { 'vault-agent': { ...crashed(1, 600), restarts: 9 } } }, 'Proven Handshake'],
    ['agent does not become ready', { containers: { 'vault-agent': { ready: false, state: running(secondsAgo(45)) } } }, 'VaultAgentFailed NotReady vault-agent'],
    // istiod
    ['istiod lacks a file', { served: undefined, containers: { discovery: { ready: false, state: waiting('CrashLoopBackOff'), log: ['failed to create an istiod CA: incomplete signing CA bundle detected'] } } }, 'IstiodCrash IncompleteBundle discovery'],
    ['istiod has another key', { served: undefined, containers: { discovery: { ready: false, state: ended(255), log: ['the cert does not match the key: tls: private key does not match public key'] } } }, 'IstiodCrash KeyMismatch discovery'],
    ['istiod has another root', { served: undefined, containers: { discovery: { ready: false, state: ended(255), log: ['cannot verify the cert with the provided root chain and cert pool'] } } }, 'IstiodCrash ChainNotVerified discovery'],
    ['istiod refuses the files', { served: undefined, containers: { discovery: { ready: false, state: ended(255), log: ['failed to create discovery service: failed to create CA: …'] } } }, 'IstiodCrash CALoadFailed discovery'],
    ['istiod crashes, who knows why', { served: undefined, containers: { discovery: { ready: false, state: waiting('CrashLoopBackOff') } } }, 'IstiodCrash CrashLoopBackOff discovery'],
    ['istiod crashed and runs again', { served: undefined, containers: { discovery: { ready: false, ...crashed(255) } } }, 'IstiodCrash Error discovery'],
    ['istiod starts', { served: { unreachable: 'ECONNREFUSED' }, containers: { discovery: { ready: false, state: running(secondsAgo(59)) } } }, 'Pending Starting discovery'],
    ['istiod starts for ever', { served: { unreachable: 'ECONNREFUSED' }, containers: { discovery: { ready: false, state: running(secondsAgo(60)) } } }, 'IstiodCrash NotReady discovery'],
    // the certificates that it serves
    ['cannot be reached', { served: { unreachable: 'ETIMEDOUT' } }, 'Pending ProbeBlocked discovery'],
    ['serves what --tlsCertFile gives it', { tlsCertFile: true, served: servesItself() }, 'Pending OtherCertificate discovery'],
    ['serves that, and signs with the files', { tlsCertFile: true, served: servesItself(), containers: { discovery: { log: ['Use local CA certificate'] } } }, 'Pending OtherCertificate discovery'],
    ['serves that, and signs by itself', { tlsCertFile: true, served: servesItself(), containers: { discovery: { log: ['Use self-signed certificate as the CA certificate'] } } }, 'SelfSignedFallback FilesMissing discovery'],
    ['serves what --tlsCertFile gives it, and has no agent', { tlsCertFile: true, injected: false, served: servesItself(), containers: { discovery: { log: 'unreadable' } } }, 'SelfSignedFallback NotInjected discovery'],
    ['has refused an update of its files', { served: servesItself(), containers: { discovery: { log: ['Use local CA certificate', 'Multi root is disabled, updating new ROOT-CA not supported'] } } }, 'SelfSignedFallback FilesMissing discovery'],
    ['serves what a Secret gives it, and signs with the files', { served: servesItself(), containers: { discovery: { log: ['Use local CA certificate'] } } }, 'Pending OtherCertificate discovery'],
    ['serves what a Secret gives it, and its log may not be read', { served: { ...servesItself(), issuer: 'CN=csr,O=cert-manager' }, containers: { discovery: { log: 'unreadable' } } }, 'Pending OtherCertificate discovery'],
    ['serves a certificate like its own, and its log may not be read', { served: { ...servesItself(), issuer: 'O=cluster.local' }, containers: { discovery: { log: 'unreadable' } } }, 'SelfSignedFallback FilesMissing discovery'],
    ['reads files of somebody else', { served: servesItself(), settings: { ...settingsOf(world), env: { ROOT_CA_DIR: '/etc/cacerts' } }, containers: { discovery: { log: ['Use local CA certificate'] } } }, 'SelfSignedFallback WrongDirectory discovery'],
    ['serves what somebody else gives it, under this root, and signs with the files', { served: underRoot(), signed: { ...servesLive(world), roots: [] } }, 'Proven Signature'],
    ['serves that, and signs with another intermediate', { served: underRoot(), signed: { ...underRoot(someCa('other', rootOf(world))), roots: [] } }, 'StaleCA OlderIntermediate discovery'],
    ['serves that, and signs with another CA', { served: underRoot(), signed: { ...servesItself(), roots: [] }, containers: { discovery: { log: [] } } }, 'SelfSignedFallback FilesMissing discovery'],
    ['serves that, and refuses to sign', { served: underRoot(), signed: { unreachable: 'asked to sign a certificate: ETIMEDOUT' } }, 'Pending OtherCertificate discovery'],
    ['serves that, is not asked, and says that it signs by itself', { served: underRoot(), tlsCertFile: true, containers: { discovery: { log: ['Use self-signed certificate as the CA certificate'] } } }, 'SelfSignedFallback FilesMissing discovery'],
    ['serves that, and is not asked, as with mode: Plan', { served: underRoot() }, 'Pending OtherCertificate discovery'],
    ['serves what --tlsCertFile gives it, of this CA, and is not asked', { tlsCertFile: true }, 'Pending OtherCertificate discovery'],
    ['serves that, and signs with the files', { tlsCertFile: true, signed: { ...servesLive(world), roots: [] } }, 'Proven Signature'],
    ['serves that, and has signed for a minute that is over by this clock', { served: underRoot(), signed: { ...servesLive(world), leaf: leafOf(liveOf(world).certificate, now - 1), roots: [] } }, 'Proven Signature'],
    ['serves the live CA, and has signed with it for a rotation', { signed: { ...servesLive(world), roots: [] } }, 'Proven Handshake'],
    ['was not asked', { served: undefined }, 'Pending NotProbed discovery'],
    ['signs by itself', { served: servesItself() }, 'SelfSignedFallback FilesMissing discovery'],
    ['signs by itself, in another directory', { served: servesItself(), settings: { ...settingsOf(world), env: { ROOT_CA_DIR: '/etc/elsewhere' } } }, 'SelfSignedFallback WrongDirectory discovery'],
    ['signs by itself, without a directory', { served: servesItself(), settings: { ...settingsOf(world), env: {} } }, 'SelfSignedFallback WrongDirectory discovery'],
    ['signs by itself, not injected', { served: servesItself(), injected: false }, 'SelfSignedFallback NotInjected discovery'],
    ['signs by itself, not told', { served: servesItself(), injected: false, settings: without(settingsOf(world), inject) }, 'SelfSignedFallback NotPropagated discovery'],
    ['says that it signs by itself', { served: { unreachable: 'ETIMEDOUT' }, containers: { discovery: { log: ['info Use self-signed certificate as the CA certificate'] } } }, 'SelfSignedFallback FilesMissing discovery'],
    ['says that it does not', { served: { unreachable: 'ETIMEDOUT' }, containers: { discovery: { log: ['info Use local CA certificate'] } } }, 'Pending ProbeBlocked discovery'],
    ['was not injected', { injected: false, served: undefined, containers: { discovery: { ready: false, state: waiting('ContainerCreating') } } }, 'NotInjected NotInjected'],
    ['signs by itself while its agent fails', { served: servesItself(), containers: { 'vault-agent': { ready: false, state: ended(1) } } }, 'SelfSignedFallback FilesMissing discovery'],
  ])('%s', (_name, over, expected) => {
    expect(said(pod(over))).toBe(expected);
  }); // prettier-ignore

  it('of a pod that nobody told anything, before the control plane carries the fields', () => {
    const before = structuredClone(world);
    before.kubernetes.controlPlane = { owner: 'istioca', carriesFields: false, writtenBefore: false, conflicts: [] };
    const untold = pod({ served: servesItself(), settings: without(settingsOf(world), inject) });
    expect(said(untold, scene({}, before))).toBe('Pending NotConfigured');
    before.kubernetes.controlPlane = undefined;
    expect(said(untold, scene({}, before))).toBe('Pending NotConfigured');
  });

  it('of an istiod that hangs, with the log of now and not of an instance that ended well', () => {
    const last = { exitCode: 0, reason: 'Completed', endedMs: secondsAgo(100) };
    const hangs = pod({
      served: undefined,
      containers: { discovery: { ready: false, state: running(secondsAgo(60)), last } },
    });
    const { reason, message } = classify(hangs, scene());
    expect([reason, message.includes('--previous')]).toEqual(['NotReady', false]);
    expect(logRequestsOf(hangs, scene())).toEqual([{ container: 'discovery', previous: false, from: 'end' }]);
  });

  it('is not Proven while there is nothing to compare with', () => {
    expect(said(pod(), scene({ ca: undefined }))).toBe('Pending NoLiveCA');
  });
});

describe('what is not the live CA', () => {
  const renewed = converge(
    desiredOf({}, { 'istiovaultca.io/rotate-intermediate': 'now' }),
    structuredClone(world),
  ).world;
  const ca = expectedCa(derived(d, renewed))!;
  const old = liveOf(world).certificate;
  const other = someCa('another intermediate', rootOf(world));

  it.each<[string, () => Parameters<typeof evaluateHandshake>[0], string]>([
    ['the generation before', () => servesLive(world), 'OlderIntermediate'],
    ['an intermediate of our root that is not known', () => ({ leaf: leafOf(other), chain: [other], issuer: '' }), 'OlderIntermediate'],
    ['the live one with the chain of another', () => ({ leaf: leafOf(ca.intermediate), chain: [], issuer: '' }), 'ChainMismatch'],
    ['the live one with a chain of somebody else', () => ({ leaf: leafOf(ca.intermediate), chain: [old], issuer: '' }), 'ChainMismatch'],
    ['one that has run out', () => ({ leaf: leafOf(ca.intermediate, now), chain: [ca.intermediate], issuer: '' }), 'CertificateExpired'],
  ])('%s is stale', (_name, served, reason) => {
    expect(evaluateHandshake(served(), ca, now)).toMatchObject({ kind: 'Stale', reason });
  }); // prettier-ignore

  it('names the generations', () => {
    const result = classify(podOf(renewed, 'istiod-1', { served: servesLive(world) }), scene({}, renewed));
    expect(result).toMatchObject({ phase: 'StaleCA', reason: 'OlderIntermediate' });
    expect(result.message).toContain('generation 1, live is generation 2');
  });

  it('another root of ours is told apart from somebody else’s', () => {
    const second = structuredClone(renewed);
    const root = someCa('second root', undefined);
    second.vault.rootPki!.issuers.push({ ...second.vault.rootPki!.issuers[0]!, id: 'second', certificate: root });
    const under = someCa('under the second root', root);
    const served = { leaf: leafOf(under), chain: [under], issuer: '' };
    expect(evaluateHandshake(served, expectedCa(derived(d, second))!, now)).toMatchObject({
      kind: 'Stale',
      reason: 'OtherRoot',
    });
    expect(evaluateHandshake(served, ca, now).kind).toBe('Foreign');
  });

  it.each([
    ['1.17.8', 'only when it starts'],
    ['1.18.0', 'refreshInterval'.slice(0, 0) + 'within 1m'],
    ['', 'within 1m'],
  ])('with Istio %s says how files are taken up', (version, text) => {
    const never = desiredOf({ rollout: 'Never' });
    const deployment = deploymentOf(renewed, 1, { version });
    const s = scene({ s: derived(never, renewed, now), ca: { ...ca, digest: undefined }, deployment }, renewed);
    expect(classify(podOf(renewed, 'istiod-1', { served: servesLive(world) }), s).message).toContain(text);
  });

  it('says that the pod was made before the change', () => {
    const stale = podOf(renewed, 'istiod-1', { served: servesLive(world), settings: settingsOf(world) });
    expect(classify(stale, scene({}, renewed)).message).toContain('ca-digest');
  });
});

describe('causes of a fallback', () => {
  const uninjected = pod({ served: servesItself(), injected: false });
  const withInjector = (injector: Observed['kubernetes']['injector']) =>
    scene({}, { ...world, kubernetes: { ...world.kubernetes, injector } });
  it.each([
    [{ found: false, selectsNamespace: false, selectsPods: false, name: '', matchConditions: [] }, 'No mutating webhook named vault.hashicorp.com or openbao.org is registered. Install the injector, then delete the pod'],
    [{ found: true, selectsNamespace: false, selectsPods: true, name: 'vault.hashicorp.com', matchConditions: [] }, 'does not select namespace istio-system'],
    [{ found: true, selectsNamespace: true, selectsPods: true, name: 'vault.hashicorp.com', matchConditions: [], failurePolicy: 'Ignore' }, 'failurePolicy Ignore'],
    [{ found: true, selectsNamespace: true, selectsPods: false, name: 'vault.hashicorp.com', matchConditions: [] }, 'objectSelector'],
    [{ found: true, selectsNamespace: true, selectsPods: true, name: 'vault.hashicorp.com', matchConditions: ['only-labelled'] }, 'does not evaluate: only-labelled'],
  ])('%j', (injector, text) => {
    expect(classify(uninjected, withInjector(injector)).message).toContain(text);
  }); // prettier-ignore

  it('before Istio 1.26.1 a missing key is enough', () => {
    const message = (version: string) =>
      classify(pod({ served: servesItself() }), scene({ deployment: deploymentOf(world, 1, { version }) })).message;
    expect(message('1.26.0')).toContain('before Istio 1.26.1');
    expect(message('1.26.1')).not.toContain('1.26.1');
  });

  it.each([
    ['1.17.9', 18, 0, true],
    ['1.18.0', 18, 0, false],
    ['1.26.0', 26, 1, true],
    ['1.26.1', 26, 1, false],
    ['2.0.0', 18, 0, false],
    ['', 18, 0, false],
  ])('%s is older than 1.%i.%i: %s', (version, minor, patch, expected) => {
    expect(olderThan(version, minor, patch)).toBe(expected);
  });
});

describe('without a handshake', () => {
  const blocked = pod({ served: { unreachable: 'ETIMEDOUT' } });
  it.each([
    ['agrees', () => [rootOf(world)], 'weaker evidence speaks for it'],
    ['is another', () => [someCa('theirs', undefined)], 'does not hold the root'],
    ['is not there', () => undefined, 'does not hold the root'],
  ])('the ConfigMap %s', (_name, roots, text) => {
    const seen = { ...world, kubernetes: { ...world.kubernetes, meshRoots: roots() } };
    const result = classify(blocked, scene({}, seen));
    expect(result).toMatchObject({ phase: 'Pending', reason: 'ProbeBlocked' });
    expect(result.message).toContain(text);
  });
});

describe('logs', () => {
  const requests = (over: Parameters<typeof podOf>[2]) => logRequestsOf(pod(over), scene());
  it.each<[string, Parameters<typeof podOf>[2], unknown[]]>([
    ['none of a proven replica', {}, []],
    ['none of an agent that has just begun', initialising({ state: running(secondsAgo(9)) }), []],
    ['of an agent that takes long', initialising({ state: running(secondsAgo(10)) }), [{ container: 'vault-agent-init', from: 'end', previous: false }]],
    ['of the run before, when the container runs again', { served: undefined, containers: { discovery: { ready: false, ...crashed() } } }, [{ container: 'discovery', from: 'end', previous: true }]],
    ['of the run that ended', { served: undefined, containers: { discovery: { ready: false, state: waiting('CrashLoopBackOff'), ...crashed() } } }, [{ container: 'discovery', from: 'end', previous: false }]],
    ['its beginning, where istiod says what it signs with', { served: { unreachable: 'ETIMEDOUT' } }, [{ container: 'discovery', from: 'start', previous: false }]],
    ['its end, where istiod says why it keeps the old files', { served: { ...servesLive(world), chain: [] } }, [{ container: 'discovery', from: 'end', previous: false }]],
  ])('are wanted: %s', (_name, over, expected) => {
    expect(requests(over)).toEqual(expected);
  }); // prettier-ignore

  it('are asked for by pod', () => {
    const seen = withIstiod(world, [pod(), podOf(world, 'istiod-2', initialising({ state: running(secondsAgo(30)) }))]);
    const map = logRequests(derived(d, seen, now), seen.kubernetes.istiod!);
    expect([map.get('istiod-1')?.length, map.get('istiod-2')?.length]).toEqual([0, 1]);
  });
});

describe('time alone', () => {
  it('changes the verdict only at its turns', () => {
    const hanging = pod(initialising({ state: running(now), log: login }));
    expect(nextChangeAt(hanging, now)).toBe(now + 10_000);
    expect(nextChangeAt(hanging, now + 10_000)).toBe(now + 45_000);
    expect(nextChangeAt(hanging, now + 45_000)).toBeUndefined();
    expect(nextChangeAt(pod(), now)).toBeUndefined();
  });
});

// properties

const words = fc.constantFrom(
  'CrashLoopBackOff',
  'Error',
  'PodInitializing',
  'ErrImagePull',
  'Completed',
  'OOMKilled',
  '',
);
const moment = fc.integer({ min: 0, max: 900 }).map(secondsAgo);
const anyState = fc.oneof(
  fc.record({ kind: fc.constant('running' as const), sinceMs: moment }),
  fc.record({ kind: fc.constant('waiting' as const), reason: words, message: fc.string({ maxLength: 2000 }) }),
  fc.record({ kind: fc.constant('terminated' as const), reason: words, exitCode: fc.nat(255), message: fc.string({ maxLength: 2000 }) }),
); // prettier-ignore
const anyLog = fc.oneof(
  fc.constant(undefined),
  fc.constant('unreadable' as const),
  fc.array(fc.oneof(fc.string({ maxLength: 400 }), fc.constantFrom(...login, 'Use self-signed certificate as the CA certificate', 'incomplete signing CA bundle')), { maxLength: 3 }),
); // prettier-ignore
const anyContainer = (name: string) =>
  fc.record({
    ready: fc.boolean(),
    restarts: fc.nat(3),
    state: anyState,
    last: fc.option(fc.record({ exitCode: fc.nat(255), reason: words, endedMs: moment }), { nil: undefined }),
    log: anyLog,
  }).map((over) => container(name, over)); // prettier-ignore
const live = liveOf(world).certificate;
const theirs = someCa('theirs', undefined);
const issuers = [live, someCa('sibling', rootOf(world)), rootOf(world), theirs, someCa('under theirs', theirs)];
const leaves = issuers.flatMap((issuer) => [-1, 0, 1].map((h) => leafOf(issuer, now + h * 3_600_000)));
const anyServed = fc.oneof(
  fc.constant(undefined),
  fc.record({ unreachable: fc.constantFrom('ETIMEDOUT', 'ECONNREFUSED') }),
  fc.record({
    leaf: fc.constantFrom(...leaves),
    chain: fc.subarray(issuers),
    issuer: fc.string({ maxLength: 3000 }),
  }),
); // prettier-ignore
const well = podOf(world, 'well');
const asking = settingsOf(world);
const notAsking = without(asking, inject);
const anyPod: fc.Arbitrary<IstiodPod> = fc
  .record({
    injected: fc.boolean(),
    asks: fc.boolean(),
    unschedulable: fc.option(fc.string({ maxLength: 2000 }), { nil: undefined }),
    served: anyServed,
    containers: fc.tuple(anyContainer('vault-agent-init'), anyContainer('discovery'), anyContainer('vault-agent')),
    some: fc.integer({ min: 0, max: 3 }),
    id: fc.nat(9999),
  })
  .map(({ asks, some, containers, id, ...rest }) => ({
    ...well,
    name: `istiod-${id}`,
    ...rest,
    settings: asks ? asking : notAsking,
    containers: containers.slice(0, some),
  }));

describe('properties', () => {
  it('never Proven unless the chain verifies from the leaf by exactly the live intermediate to a live root, and is not over', () => {
    fc.assert(
      fc.property(anyPod, (p) => {
        if (classify(p, scene()).phase !== 'Proven') return;
        const { served } = p;
        expect(served !== undefined && 'leaf' in served).toBe(true);
        if (!served || !('leaf' in served)) return;
        expect(isSignedBy(served.leaf, live) && isSignedBy(live, rootOf(world))).toBe(true);
        expect(served.chain.map((c) => c.fingerprint)).toContain(live.fingerprint);
        expect(served.leaf.notAfter).toBeGreaterThan(now);
      }),
      { numRuns: 500 },
    );
  });

  it('a phase of the contract, a reason, and a message that is bounded and on one line', () => {
    const ours = new Set<string>(podReasons);
    fc.assert(
      fc.property(anyPod, (p) => {
        const result = classify(p, scene());
        expect(istiodPhases).toContain(result.phase);
        expect(result.reason).not.toBe('');
        expect(result.message).not.toBe('');
        expect(result.message.length).toBeLessThanOrEqual(1500);
        if ((failingPhases as readonly string[]).includes(result.phase) && !ours.has(result.reason))
          expect(result.reason).toMatch(/^[A-Za-z]+$/);
      }),
      { numRuns: 500 },
    );
  });

  it('the same at each look, until a turn', () => {
    fc.assert(
      fc.property(anyPod, fc.integer({ min: 0, max: 1_200_000 }), (p, later) => {
        const turn = nextChangeAt(p, now) ?? Infinity;
        // the certificates that these replicas serve expire an hour before `now`, at `now`, or an hour after it
        fc.pre(now + later < Math.min(turn, now + 3_600_000));
        expect(classify(p, scene({}, world, now + later))).toEqual(classify(p, scene()));
      }),
      { numRuns: 500 },
    );
  });
});
