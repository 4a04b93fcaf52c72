import { describe, expect, it } from '@jest/globals';
import type { Gvr } from '../api/gvr.ts';
import type { JsonObject } from '../api/json.ts';
import { someCa } from '../../test/unit/model.ts';
import { KubeError } from '../kube/errors.ts';
import { Secret } from '../observability/secret.ts';
import type { LogRequest } from '../plan/proof/log-requests.ts';
import type { ObservedIstiod, Served, Unreachable } from '../plan/facts/observed-istiod.ts';
import { defaultIstiodValues } from '../plan/facts/trust-places.ts';
import { FakeClock } from '../runtime/fake-clock.ts';
import { IstiodObserver, type SigningRequest } from './observe.ts';
import type { ProbeTarget } from './probe.ts';

const owned = (uid: string) => [{ uid, controller: true, kind: 'x', name: 'x', apiVersion: 'apps/v1' }];
const containers = [{ name: 'discovery', env: [] }, { name: 'vault-agent' }];

const pod = (name: string, over: { version?: string; running?: boolean; ip?: string } = {}): JsonObject => ({
  metadata: { name, uid: name, resourceVersion: over.version ?? '1', ownerReferences: owned('rs') },
  spec: { containers },
  status: {
    phase: 'Running',
    podIP: over.ip ?? '10.0.0.1',
    containerStatuses: [
      {
        name: 'discovery',
        ready: true,
        restartCount: 0,
        state:
          over.running === false
            ? { waiting: { reason: 'PodInitializing' } }
            : { running: { startedAt: '2026-01-01T00:00:00Z' } },
      },
    ],
  },
});

const root = someCa('root', undefined);
const served: Served = { leaf: someCa('leaf', root), chain: [], issuer: 'CN=root' };

interface World {
  pods: JsonObject[];
  bundles: JsonObject[] | KubeError;
  logs: string | KubeError;
  answer: Served | Unreachable;
  namespaces: string[];
  /** `data.mesh` of ConfigMap istio. */
  mesh?: string;
  /** Environment of istiod in its Deployment. */
  env: JsonObject[];
  /** Plural names of what the operator may not list. */
  forbidden: string[];
  /** The ClusterTrustBundle; undefined: the API server does not serve the type. */
  trustBundle?: JsonObject;
}

/** An `IstiodObserver` on a fake cluster that `world` describes, with a record of its requests. */
function setup(over: Partial<World> = {}) {
  const world: World = {
    pods: [pod('istiod-1')],
    bundles: [],
    logs: '',
    answer: served,
    namespaces: [],
    env: [],
    forbidden: [],
    ...over,
  };
  const clock = new FakeClock();
  const asked = { signing: [] as string[], probes: [] as ProbeTarget[], logs: [] as unknown[], lists: [] as unknown[] };
  const objects: Record<string, () => JsonObject[]> = {
    deployments: () => [{ metadata: { name: 'istiod', uid: 'd', labels: {} }, spec: { template: { spec: { containers: [{ name: 'discovery', env: world.env }] } } }, status: { readyReplicas: 1 } }],
    replicasets: () => [{ metadata: { name: 'istiod-1', uid: 'rs', ownerReferences: owned('d') } }],
    pods: () => world.pods,
    namespaces: () => ['ns', 'shop', 'theirs'].map((name) => ({ metadata: { name, labels: { mesh: name === 'theirs' ? 'b' : 'a' } } })),
  }; // prettier-ignore
  const given = <T>(value: T | KubeError): Promise<T> =>
    value instanceof KubeError ? Promise.reject(value) : Promise.resolve(value);
  const observer = new IstiodObserver({
    clock,
    namespaces: world.namespaces,
    rootsOfOthers: (namespace) => [`not ${namespace}`],
    askToSign: (replica) => {
      asked.signing.push(replica.host);
      return Promise.resolve({ ...served, roots: ['a', 'b'] });
    },
    probe: (target) => {
      asked.probes.push(target);
      return Promise.resolve(world.answer);
    },
    kube: {
      listObjects: (gvr: Gvr) =>
        world.forbidden.includes(gvr.plural)
          ? Promise.reject(new KubeError('no', { kind: 'Forbidden' }))
          : Promise.resolve(objects[gvr.plural]?.() ?? []),
      listCollection: async (_gvr, namespace, selectors) => {
        asked.lists.push({ namespace, ...selectors });
        return { items: await given(world.bundles), resourceVersion: '1' };
      },
      getObject: (gvr, namespace, name) => {
        if (gvr.plural === 'clustertrustbundles') {
          asked.lists.push(`${gvr.version} ${name}`);
          return Promise.resolve(gvr.version === 'v1beta1' ? world.trustBundle : undefined);
        }
        if (name === 'istio')
          return Promise.resolve(world.mesh === undefined ? undefined : { data: { mesh: world.mesh } });
        asked.lists.push(`${namespace ?? ''}/${name}`);
        return Promise.resolve(namespace === 'without' ? undefined : bundle(namespace ?? ''));
      },
      podLog: (namespace, name, container, part) => {
        asked.logs.push({ namespace, name, container, ...part });
        return given(world.logs);
      },
    },
  });
  const request: LogRequest = { container: 'vault-agent', previous: false, from: 'end' };
  const observe = (wanted: LogRequest[] = [], signing?: SigningRequest): Promise<ObservedIstiod> =>
    observer.observe(
      'ns/ca',
      {
        namespace: 'ns',
        revisions: ['default'],
        settings: defaultIstiodValues,
        signing,
        logRequests: ({ pods }) => new Map(pods.map(({ name }) => [name, wanted])),
      },
      new AbortController().signal,
    );
  const evidence = () =>
    observer.meshEvidence(
      'ns/ca',
      { namespace: 'ns', revisions: ['default'], settings: defaultIstiodValues },
      new AbortController().signal,
    );
  return { world, clock, asked, observe, evidence, observer, request };
}

const bundle = (namespace: string, pem = root.pem): JsonObject => ({
  metadata: { namespace, name: 'istio-ca-root-cert' },
  data: { 'root-cert.pem': pem },
});

describe('certificates that replicas sign', () => {
  const question = (token: SigningRequest['token'], isAsked: SigningRequest['isAsked'] = () => true) => ({
    isAsked,
    trusted: root.pem,
    token,
  });
  const given = () => Promise.resolve(new Secret('token'));

  it('are asked for only where it is wanted, of replicas that answer, each time anew', async () => {
    const { observe, asked } = setup({ pods: [pod('a', { ip: '10.0.0.1' }), pod('b', { running: false })] });
    expect((await observe()).pods[0]?.signed).toBeUndefined();
    for (let i = 0; i < 2; i += 1)
      expect((await observe([], question(given))).pods.map((p) => p.signed)).toEqual([
        { ...served, roots: ['a', 'b'] },
        undefined,
      ]);
    expect(asked.signing).toEqual(['10.0.0.1', '10.0.0.1']);
  });

  it('need no token if no replica is asked', async () => {
    const { observe, asked } = setup({ pods: [pod('a', { ip: '10.0.0.1' }), pod('b', { ip: '10.0.0.2' })] });
    const refused = () => Promise.reject(new Error('a token was requested'));
    expect(
      (
        await observe(
          [],
          question(refused, () => false),
        )
      ).pods[0]?.signed,
    ).toBeUndefined();
    await observe(
      [],
      question(given, ({ name }) => name === 'b'),
    );
    expect(asked.signing).toEqual(['10.0.0.2']);
  });

  it('are not known without a token, and all else is', async () => {
    const { observe, asked } = setup();
    const refused = new KubeError('no', { kind: 'NotFound' });
    const [seen] = (await observe([], question(() => Promise.reject(refused)))).pods; // prettier-ignore
    expect(seen).toMatchObject({ served, signed: { unreachable: expect.stringContaining('NotFound') } });
    expect(asked.signing).toEqual([]);
  });
});

describe('handshakes', () => {
  it('are made with replicas whose istiod runs, on the secure port and by the name of the Service', async () => {
    const pods = [pod('a', { ip: '10.1.2.3' }), pod('b', { running: false }), pod('c', { ip: '' })];
    const { observe, asked } = setup({ pods });
    const seen = await observe();
    expect(asked.probes).toEqual([{ host: '10.1.2.3', port: 15012, servername: 'istiod.ns.svc' }]);
    expect(seen.pods.map((p) => p.served)).toEqual([served, undefined, undefined]);
    expect(seen.rootsOfOthers).toEqual(['not ns']);
  });

  it('are repeated after 20 seconds and not before', async () => {
    const { observe, asked, clock } = setup();
    await observe();
    await clock.advance(19_999);
    expect((await observe()).pods[0]?.served).toEqual(served);
    expect(asked.probes).toHaveLength(1);
    await clock.advance(1);
    await observe();
    expect(asked.probes).toHaveLength(2);
  });

  it('are repeated at once with a pod that has changed, and with that one only', async () => {
    const { observe, asked, world } = setup({ pods: [pod('a', { ip: '10.0.0.1' }), pod('b', { ip: '10.0.0.2' })] });
    await observe();
    world.pods = [pod('a', { ip: '10.0.0.1' }), pod('b', { ip: '10.0.0.2', version: '2' })];
    await observe();
    expect(asked.probes.map((p) => p.host)).toEqual(['10.0.0.1', '10.0.0.2', '10.0.0.2']);
  });

  it('are made anew for a resource that was gone', async () => {
    const { observe, asked, observer } = setup();
    await observe();
    observer.forget('ns/ca');
    await observe();
    expect(asked.probes).toHaveLength(2);
  });
});

describe('logs', () => {
  it('are read where they are wished for, in part, and reduced', async () => {
    const { observe, asked, request, world } = setup({ logs: '[INFO] fine\n[ERROR] agent: no' });
    expect((await observe()).pods[0]?.containers.map((c) => c.log)).toEqual([undefined, undefined]);
    const lines = (await observe([request, { container: 'discovery', previous: true, from: 'start' }])).pods[0]?.containers;
    expect(lines?.map((c) => c.log)).toEqual([[], ['[ERROR] agent: no']]);
    expect(asked.logs).toEqual([
      { namespace: 'ns', name: 'istiod-1', container: 'vault-agent', previous: false, limitBytes: 65_536, tailLines: 60 },
      { namespace: 'ns', name: 'istiod-1', container: 'discovery', previous: true, limitBytes: 65_536 },
    ]);
    world.logs = new KubeError('no', { kind: 'Forbidden' });
    expect((await observe([request])).pods[0]?.containers[1]?.log).toEqual(['[ERROR] agent: no']);
  }); // prettier-ignore

  it.each<[KubeError['kind'], unknown]>([
    ['Forbidden', 'unreadable'],
    ['Invalid', []],
    ['NotFound', []],
    ['Unavailable', []],
  ])('that are %s are no failure of the look', async (kind, expected) => {
    const { observe, request } = setup({ logs: new KubeError('no', { kind }) });
    expect((await observe([request])).pods[0]?.containers[1]?.log).toEqual(expected);
  });
});

describe('istio-ca-root-cert', () => {
  it('is listed over all namespaces by its name alone', async () => {
    const { observe, asked } = setup({ bundles: [bundle('ns'), bundle('empty', '')] });
    const place = defaultIstiodValues.place;
    expect((await observe()).bundles).toEqual([
      { place, namespace: 'ns', roots: [root.fingerprint], certificates: [root] },
      { place, namespace: 'empty', roots: [], certificates: [] },
    ]);
    expect(asked.lists).toEqual([{ namespace: undefined, fieldSelector: 'metadata.name=istio-ca-root-cert' }]);
  });

  it('is read of all namespaces also where the operator is confined to some', async () => {
    const { observe, asked } = setup({ namespaces: ['ns'], bundles: [bundle('ns'), bundle('shop')] });
    const seen = await observe();
    expect(seen.confinedTo).toEqual(['ns']);
    expect(seen.bundles).toHaveLength(2);
    expect(asked.lists).toEqual([expect.objectContaining({ namespace: undefined })]);
  });

  it('may be unreadable without harm to the rest', async () => {
    const { observe } = setup({ bundles: new KubeError('no', { kind: 'Forbidden' }) });
    const seen = await observe();
    expect([seen.bundles, seen.pods[0]?.served]).toEqual(['unreadable', served]);
  });

  it('is read again after 3 seconds while there is none', async () => {
    const { observe, asked, clock, world } = setup();
    expect((await observe()).bundles).toEqual([]);
    await clock.advance(2_999);
    await observe();
    expect(asked.lists).toHaveLength(1);
    await clock.advance(1);
    world.bundles = [bundle('ns')];
    expect((await observe()).bundles).toHaveLength(1);
  });

  it('is read again after 20 seconds, or after 5 when a pod has changed', async () => {
    const { observe, asked, clock, world } = setup({ bundles: [bundle('ns')] });
    await observe();
    world.pods = [pod('istiod-1', { version: '2' })];
    await observe();
    expect(asked.lists).toHaveLength(1);
    await clock.advance(5_000);
    world.pods = [pod('istiod-1', { version: '3' })];
    await observe();
    expect(asked.lists).toHaveLength(2);
    await clock.advance(19_999);
    await observe();
    expect(asked.lists).toHaveLength(2);
    await clock.advance(1);
    await observe();
    expect(asked.lists).toHaveLength(3);
  });

  it.each([
    ['discoverySelectors: [{matchLabels: {mesh: a}}]', ['ns', 'shop']],
    ['discoverySelectors: [{matchLabels: {mesh: a}}, {matchExpressions: [{key: mesh, operator: Exists}]}]', ['ns', 'shop', 'theirs']],
    ['discoverySelectors: [{matchLabels: {mesh: b}}]', ['theirs']],
    ['discoverySelectors: []', ['ns', 'shop', 'theirs']],
    ['{: no YAML', ['ns', 'shop', 'theirs']],
  ])('counts in the namespaces that istiod looks at: %s', async (mesh, expected) => {
    const { observe } = setup({ bundles: ['ns', 'shop', 'theirs'].map((name) => bundle(name)), mesh });
    const { bundles } = await observe();
    expect(typeof bundles === 'string' ? bundles : bundles.map((one) => one.namespace)).toEqual(expected);
  }); // prettier-ignore

  it('that cannot be read for another reason is a failure', async () => {
    const { observe } = setup({ bundles: new KubeError('no', { kind: 'Unavailable' }) });
    await expect(observe()).rejects.toThrow(KubeError);
  });
});

describe('where istiod publishes', () => {
  const names = ({ bundles }: Pick<ObservedIstiod, 'bundles'>) =>
    typeof bundles === 'string' ? bundles : bundles.map(({ namespace }) => namespace);

  it('is a ConfigMap of the name that its Deployment says', async () => {
    const env = [{ name: 'PILOT_CA_CERT_CONFIGMAP', value: 'team-a' }];
    const { observe, asked } = setup({ env, bundles: [bundle('ns')] });
    expect(await observe()).toMatchObject({ places: [{ kind: 'ConfigMap', name: 'team-a' }], homeDiscovered: true });
    expect(asked.lists).toEqual([{ namespace: undefined, fieldSelector: 'metadata.name=team-a' }]);
  });

  it('is the ClusterTrustBundle, in the version that the API server serves, for all namespaces', async () => {
    const env = [{ name: 'ENABLE_CLUSTER_TRUST_BUNDLE_API', value: 'true' }];
    const trustBundle = { spec: { trustBundle: root.pem } };
    const mesh = 'discoverySelectors: [{matchLabels: {mesh: b}}]';
    const { observe, asked, world } = setup({ env, trustBundle, mesh });
    const seen = await observe();
    expect(seen.bundles).toMatchObject([{ namespace: undefined, roots: [root.fingerprint] }]);
    expect(asked.lists).toEqual(['v1 istio.io:istiod-ca:root-cert', 'v1beta1 istio.io:istiod-ca:root-cert']);
    delete world.trustBundle;
    const { observe: later } = setup({ env });
    expect(names(await later())).toEqual([]);
  });

  it('is not a namespace that every istiod leaves out', async () => {
    const { observe } = setup({ bundles: ['kube-public', 'kube-system', 'ns'].map((name) => bundle(name)) });
    expect(names(await observe())).toEqual(['kube-system', 'ns']);
  });

  it('is not its own namespace where it does not discover that', async () => {
    const mesh = 'discoverySelectors: [{matchLabels: {mesh: b}}]';
    const { observe } = setup({ bundles: [bundle('ns'), bundle('theirs')], mesh });
    const seen = await observe();
    expect([names(seen), seen.homeDiscovered]).toEqual([['theirs'], false]);
  });

  it('of another name may be unreadable', async () => {
    const env = [{ name: 'PILOT_CA_CERT_CONFIGMAP', value: 'team-a' }];
    const { observe } = setup({ env, bundles: new KubeError('no', { kind: 'Forbidden' }) });
    expect(names(await observe())).toBe('unreadableElsewhere');
  });
});

describe('evidence of the roots of a mesh', () => {
  const ready = (name: string, status = 'True'): JsonObject => {
    const made = pod(name) as { status: JsonObject };
    return { ...made, status: { ...made.status, conditions: [{ type: 'Ready', status }] } };
  };

  it('is what istiod publishes, and what every Ready replica serves', async () => {
    const { evidence, asked } = setup({ pods: [ready('a'), ready('b', 'False')], bundles: [bundle('ns'), bundle('shop')] });
    expect(await evidence()).toMatchObject({
      bundles: [{ namespace: 'ns' }, { namespace: 'shop' }],
      places: [defaultIstiodValues.place],
      incomplete: false,
      ready: 1,
      replicas: [{ name: 'a', served }],
      rootsOfOthers: ['not ns'],
      confinedTo: [],
    });
    expect(asked.probes).toHaveLength(1);
  }); // prettier-ignore

  it('lacks what the operator may not list', async () => {
    const without = async (forbidden: string[]) => await setup({ pods: [ready('a')], forbidden }).evidence();
    expect(await without(['pods'])).toMatchObject({ ready: 1, podsUnreadable: true, replicas: [] });
    expect(await without(['deployments'])).toMatchObject({ ready: 'unreadable', replicas: [] });
  });

  it('is incomplete where a setting stands elsewhere', async () => {
    const env = [{ name: 'PILOT_CA_CERT_CONFIGMAP', valueFrom: {} }];
    expect(await setup({ env }).evidence()).toMatchObject({ places: [], incomplete: true, bundles: [] });
  });
});
