import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import {
  d,
  deploymentOf,
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
  meshBundle,
} from '../../../test/unit/istiod-world.ts';
import { desiredOf, identity, minimalSpec, someCa, derived } from '../../../test/unit/model.ts';
import { group, kind, resourceSchema, version } from '../../api/schema.ts';
import { statusSchema, type Status } from '../../api/status-schema.ts';
import { istiodStatus, recheckIn, verificationOf } from './ready.ts';
import { meshView } from './mesh.ts';
import { eventsForTransition } from '../status/events.ts';
import type { Observed } from '../facts/observed.ts';
import type { IstiodPod, ObservedIstiod } from '../facts/observed-istiod.ts';
import type { Problem } from '../facts/problem.ts';
import { statusOf } from '../status/status.ts';

const world = provisioned();
const other = someCa('another root', undefined).fingerprint;
const root = rootOf(world).fingerprint;
const pods = (...kinds: Parameters<typeof podOf>[2][]): IstiodPod[] =>
  kinds.map((over, i) => podOf(world, `istiod-${i + 1}`, over));
const initFails = initialising({ state: waiting('CrashLoopBackOff') });
const starting = { served: undefined, containers: { discovery: { ready: false, state: running(now) } } };
const deployment = (replicas: number, over: Parameters<typeof deploymentOf>[2] = {}) => ({
  deployments: [deploymentOf(world, replicas, over)],
});
const stale = () => ({ ...servesLive(world), chain: [] });

const resource = (status?: Status) =>
  resourceSchema.parse({
    apiVersion: `${group}/${version}`,
    kind,
    metadata: { ...identity, generation: 1 },
    spec: minimalSpec(),
    status,
  });
const statusFor = (observed: Observed, before?: Status, problems: Problem[] = [], at = now) =>
  statusOf({ resource: resource(before), desired: d, observed, problems, now: at });
const find = (status: Status, type: string) => status.conditions?.find((c) => c.type === type);

describe('IstiodReady', () => {
  it.each([
    ['pods "a" is forbidden: exceeded quota: few, requested: pods=1', 'kubectl describe resourcequota -n'],
    ['pods "a" is forbidden: violates PodSecurity "restricted:latest": …', 'pod-security.kubernetes.io/enforce'],
    ['Internal error occurred: failed calling webhook "vault.hashicorp.com": …', 'see whether its program runs'],
    [
      'pods "istiod-1" is forbidden: unable to validate against any security context constraint: [provider "restricted-v2": …]',
      'agent-set-security-context: "false"',
    ],
    ['admission webhook "a.b" denied the request: no', 'its words say why'],
    ['something else', 'kubectl describe replicaset -n'],
  ])('of pods that cannot be made (%s) says what to do', (failure, next) => {
    const replicas = { desired: 1, current: 0, updated: 0, available: 0, ready: 0 };
    const observed = withIstiod(world, [], deployment(1, { failure, replicas }));
    const { reason, message } = verificationOf(derived(d, observed, now))!.ready;
    expect(reason).toBe('PodCreateFailed');
    expect(message).toContain(failure);
    expect(message).toContain(next);
  });

  it.each<[string, IstiodPod[], Partial<ObservedIstiod>, string]>([
    ['three proven replicas', pods({}, {}, {}), {}, 'True IstiodProven'],
    ['no Deployment', [], { deployments: [] }, 'Unknown IstiodNotFound'],
    ['a Deployment without replicas', [], deployment(0), 'Unknown IstiodNotFound'],
    ['fields that have not arrived', pods({ served: servesItself() }), deployment(1, { settings: { env: {}, annotations: {} } }), 'False NotPropagated'],
    ['a digest that has not arrived', pods({}), deployment(1, { settings: { ...settingsOf(world), annotations: { ...settingsOf(world).annotations, 'istiovaultca.io/ca-digest': '0' } } }), 'False NotPropagated'],
    ['pods that cannot be made', [], deployment(1, { failure: 'exceeded quota', replicas: { desired: 1, current: 0, updated: 0, available: 0, ready: 0 } }), 'False PodCreateFailed'],
    ['a self-signed one among others that fail', pods(initFails, { served: servesItself() }), deployment(2, { failure: 'exceeded quota' }), 'False SelfSignedFallback'],
    ['an init container that fails', pods({}, initFails), {}, 'False VaultInitFailed'],
    ['an agent that fails', pods({}, { containers: { 'vault-agent': { ready: false, state: waiting('CrashLoopBackOff') } } }), {}, 'False VaultAgentFailed'],
    ['an istiod that fails', pods({}, { served: undefined, containers: { discovery: { ready: false, state: waiting('CrashLoopBackOff') } } }), {}, 'False IstiodCrash'],
    ['one that was not injected', pods({ injected: false, served: undefined, containers: { discovery: { ready: false, state: waiting('ContainerCreating') } } }), {}, 'False NotInjected'],
    ['one that is stale', pods({}, { served: stale() }), {}, 'False StaleCA'],
    ['one that cannot be reached', pods({}, { served: { unreachable: 'ETIMEDOUT' } }), {}, 'Unknown ProbeBlocked'],
    ['one that was not asked', pods({}, { served: undefined }), {}, 'Unknown IstiodNotProven'],
    ['a pod that is missing', pods({}, {}), deployment(3), 'Unknown RolloutInProgress'],
    ['a pod that is not available', pods({}, starting), deployment(2, { replicas: { desired: 2, current: 2, updated: 2, available: 1, ready: 1 } }), 'Unknown RolloutInProgress'],
    ['an old pod that is still there', pods({}, {}), deployment(2, { replicas: { desired: 2, current: 3, updated: 2, available: 2, ready: 2 } }), 'Unknown RolloutInProgress'],
    ['a template that nobody has seen', pods({}), deployment(1, { observed: false }), 'Unknown RolloutInProgress'],
    ['a second Deployment that is not proven', [podOf(world, 'a'), podOf(world, 'b', { deployment: 'istiod-2', served: stale() })], { deployments: [deploymentOf(world, 1), deploymentOf(world, 1, { name: 'istiod-2' })] }, 'False StaleCA'],
    ['a second Deployment without replicas', pods({}), { deployments: [deploymentOf(world, 1), deploymentOf(world, 0, { name: 'istiod-2' })] }, 'True IstiodProven'],
    ['a namespace with another root', pods({}), { bundles: [meshBundle('istio-system', [root]), meshBundle('shop', [other])] }, 'False RootNotDistributed'],
    ['a namespace with an empty ConfigMap', pods({}), { bundles: [meshBundle('shop', [])] }, 'False RootNotDistributed'],
    ['a namespace with more roots', pods({}), { bundles: [meshBundle('shop', [other, root])] }, 'True IstiodProven'],
    ['a namespace of another mesh', pods({}), { bundles: [meshBundle('istio-system', [root]), meshBundle('shop', [other])], rootsOfOthers: [other] }, 'True IstiodProven'],
    ['a namespace that lags, whatever root another resource shows', pods({}), { bundles: [meshBundle('shop', [root, 'x']), meshBundle('lags', [])], rootsOfOthers: [root] }, 'False RootNotDistributed'],
    ['its own namespace with the root of another', pods({}), { bundles: [meshBundle('istio-system', [other])], rootsOfOthers: [other] }, 'False RootNotDistributed'],
    ['no roots published', pods({}), { bundles: [] }, 'False RootNotDistributed'],
    ['a ClusterTrustBundle', pods({}), { bundles: [meshBundle(undefined, [root])], places: [{ kind: 'ClusterTrustBundle' }] }, 'True IstiodProven'],
    ['a ClusterTrustBundle with another root', pods({}), { bundles: [meshBundle(undefined, [other])], places: [{ kind: 'ClusterTrustBundle' }] }, 'False RootNotDistributed'],
    ['a ClusterTrustBundle that the API server does not serve', pods({}), { bundles: [], places: [{ kind: 'ClusterTrustBundle' }] }, 'False RootNotDistributed'],
    ['ConfigMaps of another name that may not be read', pods({}), { bundles: 'unreadableElsewhere' }, 'Unknown Forbidden'],
    ['ConfigMaps that may not be read', pods({}), { bundles: 'unreadable' }, 'Unknown Forbidden'],
  ])('with %s', (_name, those, over, expected) => {
    const { ready } = verificationOf(derived(d, withIstiod(world, those, over), now))!;
    expect(`${ready.status} ${ready.reason}`).toBe(expected);
    expect(ready.message).not.toBe('');
  }); // prettier-ignore

  it('names the namespaces that lack the root', () => {
    const bundles = Array.from({ length: 7 }, (_, i) => meshBundle(`shop-${i}`, [other]));
    const { ready } = verificationOf(derived(d, withIstiod(world, pods({}), { bundles }), now))!;
    expect(ready.message).toContain('shop-0, shop-1, shop-2, shop-3, shop-4 and 2 more');
  });

  it('is what makes Ready true', () => {
    const status = statusFor(withIstiod(world, pods({}, {}, {})));
    expect(find(status, 'Ready')).toMatchObject({ status: 'True', reason: 'Ready' });
    expect(find(status, 'Reconciling')).toBeUndefined();
    expect(status.istiodProven).toBe('3/3');
    expect(statusSchema.parse(status)).toEqual(status);
  });

  it('is not known when pods could not be read, whatever was seen of them before', () => {
    const before = statusFor(withIstiod(world, pods({})));
    const problem: Problem = { condition: 'IstiodReady', reason: 'Forbidden', message: 'list pods', blocks: 'nothing' };
    const status = statusFor(world, before, [problem]);
    expect(find(status, 'IstiodReady')).toMatchObject({ status: 'Unknown', reason: 'Forbidden' });
    expect(find(status, 'KeyStored')?.status).toBe('True');
    expect([status.istiod, status.istiodProven]).toEqual([undefined, undefined]);
  });

  it('shows the replicas as last seen while Vault cannot be read', () => {
    const before = statusFor(withIstiod(world, pods({})));
    const problem: Problem = { condition: 'VaultReady', reason: 'Sealed', message: 'sealed', blocks: 'all' };
    const status = statusOf({ resource: resource(before), desired: d, observed: undefined, problems: [problem], now });
    expect([status.istiodProven, find(status, 'IstiodReady')?.status]).toEqual(['1/1', 'Unknown']);
  });
});

describe('status', () => {
  it('shows at most 100 replicas, those that fail first', () => {
    const many = Array.from({ length: 120 }, (_, i) =>
      podOf(world, `istiod-${String(i).padStart(3, '0')}`, i === 119 ? { served: stale() } : {}),
    );
    const proof = verificationOf(derived(d, withIstiod(world, many), now))!;
    expect([proof.proven, proof.expected]).toEqual([119, 120]);
    const { istiod } = istiodStatus(proof);
    expect(istiod).toHaveLength(100);
    expect(istiod?.[0]).toMatchObject({ pod: 'istiod-119', phase: 'StaleCA' });
  });

  it('does not depend on the order in which pods are listed', () => {
    const kinds = [{}, { served: servesItself() }, { served: stale() }, initFails, starting];
    fc.assert(
      fc.property(fc.shuffledSubarray(pods(...kinds), { minLength: 1 }), (some) => {
        const sorted = [...some].sort((a, b) => (a.name < b.name ? -1 : 1));
        expect(verificationOf(derived(d, withIstiod(world, some), now))).toEqual(
          verificationOf(derived(d, withIstiod(world, sorted), now)),
        );
      }),
    );
  });

  it('is written only when something has changed', () => {
    for (const those of [pods({}), pods(initFails), pods({ served: servesItself() }, starting)]) {
      const once = statusFor(withIstiod(world, those));
      // a second handshake with the same replicas: istiod has renewed its own serving certificate since the first
      const anew = those.map((pod): IstiodPod => {
        const { served } = pod;
        if (!served || !('leaf' in served) || served.chain.length === 0) return pod;
        return { ...pod, served: { ...served, leaf: leafOf(liveOf(world).certificate) } };
      });
      expect(statusFor(withIstiod(world, anew), once, [], now + 20_000)).toEqual(once);
    }
  });
});

describe('the next look', () => {
  const again = (those: IstiodPod[], over: Partial<ObservedIstiod> = {}) =>
    recheckIn(derived(d, withIstiod(world, those, over), now));

  it('is after 20 s while something is not proven, and not before something changes when all is', () => {
    expect(again(pods({}))).toBeUndefined();
    expect(again([], { deployments: [] })).toBeUndefined();
    expect(again(pods({ served: stale() }))).toBe(20_000);
    expect(again(pods({}), { bundles: [meshBundle('shop', [])] })).toBe(20_000);
    expect(again(pods({}), { bundles: [] })).toBe(3_000);
    expect(recheckIn(derived(d, world, now))).toBeUndefined();
  });

  it('is earlier when time alone will tell', () => {
    expect(again(pods(initialising({ state: running(now - 3_000) })))).toBe(7_000);
    expect(again(pods(initialising({ state: running(now - 40_000) })))).toBe(5_000);
  });
});

describe('news', () => {
  const reasons = (before: Status | undefined, after: Status) =>
    eventsForTransition(before, after).map((n) => `${n.type} ${n.reason}`);
  const well = statusFor(withIstiod(world, pods({}, {}, {})));
  const fallen = statusFor(withIstiod(world, pods({}, { served: servesItself() }, {})), well);

  it('tells each change once', () => {
    expect(reasons(undefined, well)).toEqual(['Normal Ready']);
    expect(reasons(well, well)).toEqual([]);
    expect(reasons(well, fallen)).toEqual(['Warning SelfSignedFallback']);
    expect(reasons(fallen, statusFor(withIstiod(world, pods({}, { served: servesItself() }, {})), fallen))).toEqual([]);
    expect(reasons(fallen, well)).toEqual(['Normal Ready']);
  });

  it('tells of a further replica, and of many in one Event', () => {
    const more = statusFor(withIstiod(world, pods({ served: servesItself() }, { served: servesItself() }, {})), fallen);
    const [further, ...none] = eventsForTransition(fallen, more);
    expect([further?.reason, further?.message.startsWith('istiod-1: '), none]).toEqual(['SelfSignedFallback', true, []]);
    const all = Array.from({ length: 9 }, () => ({ served: stale() }));
    const [news, ...rest] = eventsForTransition(well, statusFor(withIstiod(world, pods(...all)), well));
    expect([news?.reason, rest]).toEqual(['StaleCA', []]);
  }); // prettier-ignore

  it('tells of a replica also when another condition is the reason of Ready', () => {
    const problem: Problem = { condition: 'ControlPlanePatched', reason: 'FieldConflict', message: 'x', blocks: 'controlPlane' };
    const before = statusFor(withIstiod(world, pods({})), undefined, [problem]);
    const after = statusFor(withIstiod(world, pods({ served: stale() })), before, [problem]);
    expect(reasons(before, after)).toEqual(['Warning StaleCA']);
  }); // prettier-ignore

  it('leaves it to the condition while the fields have not arrived', () => {
    const untold = { injected: false, served: servesItself(), settings: { env: {}, annotations: {} } };
    const before = statusFor(withIstiod(world, pods({})));
    const settings = { settings: { env: {}, annotations: {} } };
    const after = statusFor(withIstiod(world, pods(untold), deployment(1, settings)), before);
    expect(reasons(before, after)).toEqual(['Warning NotPropagated']);
  });
});

describe('expiry', () => {
  const certificate = liveOf(world).certificate;
  const rootCertificate = rootOf(world);
  const day = 24 * 3_600_000;
  const third = (c: { notBefore: number; notAfter: number }) => c.notAfter - (c.notAfter - c.notBefore) / 3;
  const at = (ms: number, before?: Status) =>
    statusFor(withIstiod(world, pods({ served: { ...servesLive(world), leaf: leafOf(certificate, ms + day) } })), before, [], ms); // prettier-ignore

  it('of the root is told from its renewAt on, and the root still holds', () => {
    const early = at(third(rootCertificate) - 1);
    const late = at(third(rootCertificate), early);
    expect(find(early, 'RootReady')).toMatchObject({ status: 'True', reason: 'RootValid' });
    expect(find(late, 'RootReady')).toMatchObject({ status: 'True', reason: 'RootExpiresSoon' });
    expect(find(late, 'RootReady')?.message).toContain('rotate-root');
    expect(eventsForTransition(early, late).map((n) => n.reason)).toContain('RootExpiresSoon');
    expect(eventsForTransition(late, at(third(rootCertificate) + day, late)).map((n) => n.reason)).not.toContain(
      'RootExpiresSoon',
    );
  });

  it('of an intermediate that was not renewed in time', () => {
    const early = at(third(certificate) - 1);
    expect(find(early, 'IntermediateReady')?.message).toMatch(/workload certificates of up to \d+h end before it/);
    const late = at(third(certificate), early);
    expect(find(late, 'IntermediateReady')).toMatchObject({ status: 'False', reason: 'IntermediateExpiresSoon' });
    expect(find(late, 'IntermediateReady')?.message).toContain('its renewal was due');
    expect(eventsForTransition(early, late).map((n) => n.reason)).toContain('IntermediateExpiresSoon');
  });

  it('of an intermediate does not hide what keeps it from being renewed', () => {
    const problem: Problem = { condition: 'ControlPlanePatched', reason: 'ControlPlaneConflict', message: 'x', blocks: 'all' };
    const early = statusFor(world, undefined, [problem], third(certificate) - 1);
    const late = statusFor(world, early, [problem], third(certificate));
    expect(find(late, 'Ready')).toMatchObject({ status: 'False', reason: 'IntermediateExpiresSoon' });
    expect(find(late, 'Ready')?.message).toContain('ControlPlanePatched keeps it: ControlPlaneConflict: x');
    expect(eventsForTransition(early, late).map((n) => n.reason)).toEqual(['IntermediateExpiresSoon']);
  }); // prettier-ignore
});

describe('what a root rotation asks', () => {
  it('who serves what, holds which roots, and which namespaces have them', () => {
    const before = { ...settingsOf(world).annotations, 'istiovaultca.io/ca-digest': 'before' };
    const seen = withIstiod(world, pods({}, { settings: { ...settingsOf(world), annotations: before } }, { served: stale() }));
    const live = liveOf(world).certificate.fingerprint;
    expect(meshView(derived(d, seen, now))).toMatchObject({
      replicas: [
        { name: 'istiod-1', serves: live, roots: [root] },
        { name: 'istiod-2', serves: live, roots: undefined },
        { name: 'istiod-3', serves: '', roots: undefined },
      ],
      unfinished: undefined,
      bundles: [
        meshBundle('istio-system', [root]),
        meshBundle('bookinfo', [root]),
      ],
    });
    expect(meshView(derived(d, world, now))).toBeUndefined();
  }); // prettier-ignore

  it('what is not finished', () => {
    const unfinished = (over: Partial<ObservedIstiod>) =>
      meshView(derived(d, withIstiod(world, pods({}), over), now))?.unfinished;
    expect(unfinished({ deployments: [] })).toBe('there is no istiod');
    expect(unfinished(deployment(2))).toContain('not every pod');
    expect(unfinished(deployment(1, { settings: { env: {}, annotations: {} } }))).toContain('has not got the fields');
  });

  it('with rollout: Never nothing tells which roots a replica holds', () => {
    const never = desiredOf({ rollout: 'Never' });
    expect(meshView(derived(never, withIstiod(world, pods({})), now))?.replicas[0]?.roots).toBeUndefined();
  });

  it('only namespaces that hold a root of ours, where the operator does not see every IstioVaultCA', () => {
    const bundles = [
      meshBundle('istio-system', [other]),
      meshBundle('shop', [root, other]),
      meshBundle('theirs', [other]),
    ];
    const seen = withIstiod(world, pods({}), { bundles, confinedTo: ['istio-system'] });
    const namespaces = meshView(derived(d, seen, now))?.bundles;
    expect(namespaces).toEqual(bundles.slice(0, 2));
    const unseen = withIstiod(world, pods({}), { bundles: 'unreadable' });
    expect(meshView(derived(d, unseen, now))?.bundles).toBe('unreadable');
  });
});
