import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { JsonObject } from '../api/json.ts';
import { containerOf } from '../plan/facts/observed-istiod.ts';
import { deploymentFacts, isIstiod, podsOf } from './discover.ts';

const template = (over: JsonObject = {}): JsonObject => ({
  metadata: {
    annotations: {
      'vault.hashicorp.com/role': 'istiod',
      'istiovaultca.io/ca-digest': 'abc',
      'prometheus.io/port': '15014',
    },
  },
  spec: {
    serviceAccountName: 'istiod',
    containers: [
      {
        name: 'discovery',
        image: 'registry.example:5000/istio/pilot:1.24.2-distroless@sha256:ab',
        env: [
          { name: 'ROOT_CA_DIR', value: '/vault/secrets' },
          { name: 'ISTIO_MULTIROOT_MESH', value: 'true' },
          { name: 'MAX_WORKLOAD_CERT_TTL', value: '1h' },
          { name: 'SECRET_OF_SOMEBODY', value: 'x' },
        ],
      },
    ],
  },
  ...over,
});

const deployment = (over: JsonObject = {}): JsonObject => ({
  metadata: { name: 'istiod', uid: 'd', generation: 4, labels: { app: 'istiod', 'istio.io/rev': 'default' } },
  spec: { replicas: 3, template: template() },
  status: { observedGeneration: 4, replicas: 4, updatedReplicas: 3, availableReplicas: 2 },
  ...over,
});

const owner = (uid: string, controller = true) => [{ uid, controller, kind: 'x', name: 'x', apiVersion: 'apps/v1' }];
const replicaSet = (uid: string, revision: string, of = 'd'): JsonObject => ({
  metadata: {
    name: `rs-${uid}`,
    uid,
    ownerReferences: owner(of),
    annotations: { 'deployment.kubernetes.io/revision': revision },
  },
});
const pod = (name: string, of: string, over: JsonObject = {}): JsonObject => ({
  metadata: { name, uid: name, resourceVersion: '7', ownerReferences: owner(of), ...(over['metadata'] as JsonObject) },
  spec: template()['spec'],
  status: { phase: 'Running', podIP: '10.0.0.1', ...(over['status'] as JsonObject) },
});

describe('a Deployment', () => {
  it('is istiod by container and revision', () => {
    expect(isIstiod(deployment(), ['default'])).toBe(true);
    expect(isIstiod(deployment(), ['canary'])).toBe(false);
    const canary = deployment({ metadata: { labels: { 'istio.io/rev': 'canary' } } });
    expect([isIstiod(canary, ['canary']), isIstiod(canary, ['default'])]).toEqual([true, false]);
    expect(isIstiod(deployment({ spec: { template: { spec: { containers: [{ name: 'web' }] } } } }), ['default'])).toBe(false);
  }); // prettier-ignore

  it.each<[string, Record<string, unknown>[], boolean, string[] | string | undefined]>([
    ['an ambient mesh', [{ name: 'PILOT_ENABLE_AMBIENT', value: 'true' }, { name: 'CA_TRUSTED_NODE_ACCOUNTS', value: 'a/ztunnel, b/z' }], true, ['a/ztunnel', 'b/z']],
    ['a value of another object', [{ name: 'PILOT_ENABLE_AMBIENT', valueFrom: {} }, { name: 'CA_TRUSTED_NODE_ACCOUNTS', valueFrom: {} }], true, 'unknown'],
    ['no ambient mesh', [{ name: 'PILOT_ENABLE_AMBIENT', value: 'false' }, { name: 'CA_TRUSTED_NODE_ACCOUNTS', value: '' }], false, undefined],
    ['more accounts than are read', [{ name: 'CA_TRUSTED_NODE_ACCOUNTS', value: 'a/z,'.repeat(1_000_000) }], false, 'unknown'],
  ])('tells %s', (_, env, ambient, nodeAccounts) => {
    const spec = { template: { spec: { containers: [{ name: 'discovery', env }] } } };
    expect(deploymentFacts({ metadata: { name: 'istiod' }, spec })).toMatchObject({ ambient, nodeAccounts });
  }); // prettier-ignore

  it('gives its facts, and no environment but what concerns the CA', () => {
    expect(deploymentFacts(deployment())).toEqual({
      name: 'istiod',
      revision: 'default',
      serviceAccount: 'istiod',
      version: '1.24.2',
      multiRoot: true,
      ambient: false,
      nodeAccounts: undefined,
      maxWorkloadCertTtlMs: 24 * 3_600_000,
      settings: {
        annotations: { 'vault.hashicorp.com/role': 'istiod', 'istiovaultca.io/ca-digest': 'abc' },
        env: { ROOT_CA_DIR: '/vault/secrets', ISTIO_MULTIROOT_MESH: 'true' },
      },
      replicas: { desired: 3, current: 4, updated: 3, available: 2, ready: 0 },
      publishesTo: { kind: 'ConfigMap', name: 'istio-ca-root-cert' },
      signsNothing: undefined,
      podLabels: {},
      observed: true,
      failure: undefined,
      deadlinePassed: false,
    });
  });

  it.each([
    [{ 'app.kubernetes.io/version': '1.26.1' }, '1.26.1'],
    [{ 'app.kubernetes.io/version': 'v1.27.0-tetrate-v2' }, '1.27.0'],
    [{ 'app.kubernetes.io/version': 'unknown' }, '1.24.2'],
    [{ 'app.kubernetes.io/version': '1.0.0' }, '1.24.2'],
  ])('has the version of its label %j, else of its image', (labels, version) => {
    expect(deploymentFacts(deployment({ metadata: { labels } })).version).toBe(version);
  });

  const limit = (...env: JsonObject[]) => {
    const spec = { containers: [{ name: 'discovery', env }] };
    return deploymentFacts(deployment({ spec: { template: template({ spec }) } })).maxWorkloadCertTtlMs;
  };
  const name = 'MAX_WORKLOAD_CERT_TTL';
  const other = 'DEFAULT_WORKLOAD_CERT_TTL';
  it.each<[string, JsonObject[], number]>([
    ['unless it is set', [], 2160],
    ['as it is set', [{ name, value: '24h' }], 24],
    ['in every form of Go', [{ name, value: '36.5h' }], 36.5],
    ['by the last of two', [{ name, value: '24h' }, { name, value: '48h' }], 48],
    ['as istiod takes what is no duration', [{ name, value: '24 hours' }], 2160],
    ['by default where it stands elsewhere', [{ name, valueFrom: { configMapKeyRef: { name: 'a', key: 'b' } } }], 2160],
    ['as a workload that asks for nothing gets it', [{ name, value: '24h' }, { name: other, value: '48h' }], 48],
    ['no shorter than the maximum', [{ name, value: '48h' }, { name: other, value: '24h' }], 48],
    ['no shorter than a workload gets by default', [{ name, value: '1h' }], 24],
    ['that only the default exceeds', [{ name: other, value: '3000h' }], 3000],
    ['whose default is no duration', [{ name, value: '12h' }, { name: other, value: 'a day' }], 24],
  ])('has its longest workload certificate: %s', (_, env, hours) => {
    expect(limit(...env)).toBe(hours * 3_600_000);
  }); // prettier-ignore

  it('says why pods cannot be made, and when its controller lags behind', () => {
    const conditions = [
      { type: 'ReplicaFailure', status: 'True', message: 'pods "istiod-x" is forbidden: exceeded quota' },
      { type: 'Progressing', status: 'False', reason: 'ProgressDeadlineExceeded' },
    ];
    const facts = deploymentFacts(deployment({ status: { observedGeneration: 3, conditions } }));
    expect([facts.failure, facts.deadlinePassed, facts.observed]).toEqual([
      'pods "istiod-x" is forbidden: exceeded quota',
      true,
      false,
    ]);
  });
});

describe('pods', () => {
  const names = (sets: JsonObject[], pods: JsonObject[]) => podsOf(deployment(), sets, pods).map((p) => p.facts.name);

  it('are those of the newest ReplicaSet, by its number and not by its age', () => {
    const sets = [replicaSet('a', '9'), replicaSet('b', '10'), replicaSet('c', '11', 'another')];
    expect(names(sets, [pod('old', 'a'), pod('new', 'b'), pod('theirs', 'c'), pod('loose', 'none')])).toEqual(['new']);
    expect(names([], [pod('new', 'b')])).toEqual([]);
  });

  it('are those whose controller it is: a label or another owner is not enough', () => {
    const claims = pod('claims', 'b', { metadata: { ownerReferences: owner('b', false) } });
    expect(names([replicaSet('b', '1')], [claims])).toEqual([]);
  });

  it('are living ones', () => {
    const going = pod('going', 'b', { metadata: { deletionTimestamp: '2026-01-01T00:00:00Z' } });
    const evicted = pod('evicted', 'b', { status: { phase: 'Failed' } });
    expect(names([replicaSet('b', '1')], [going, evicted, pod('here', 'b')])).toEqual(['here']);
  });

  it('come in order of their names, however they are listed', () => {
    const all = ['a', 'b', 'c'].map((name) => pod(name, 'b'));
    fc.assert(
      fc.property(fc.shuffledSubarray(all, { minLength: 3 }), (shuffled) => {
        expect(names([replicaSet('b', '1')], shuffled)).toEqual(['a', 'b', 'c']);
      }),
    );
  });

  it('tell of their containers what the classifier needs', () => {
    const token = `hvs.${'a'.repeat(30)}`;
    const seen = podsOf(
      deployment(),
      [replicaSet('b', '1')],
      [
        {
          metadata: {
            name: 'p',
            uid: 'p',
            resourceVersion: '8',
            creationTimestamp: '2026-01-01T00:00:00Z',
            ownerReferences: owner('b'),
            annotations: {
              'vault.hashicorp.com/agent-inject-status': 'injected',
              'istiovaultca.io/ca-digest': 'abc',
            },
          },
          spec: {
            initContainers: [{ name: 'vault-agent-init' }],
            containers: [{ name: 'discovery' }, { name: 'vault-agent' }],
          },
          status: {
            phase: 'Pending',
            conditions: [{ type: 'PodScheduled', status: 'True' }],
            initContainerStatuses: [
              { name: 'vault-agent-init', ready: false, restartCount: 0, state: { running: { startedAt: '2026-01-01T00:00:05Z' } } },
            ],
            containerStatuses: [
              { name: 'discovery', ready: false, restartCount: 2, state: { waiting: { reason: 'CrashLoopBackOff', message: 'back-off 20s restarting' } }, lastState: { terminated: { exitCode: 255, reason: 'Error', finishedAt: '2026-01-01T00:00:09Z' } } },
              { name: 'vault-agent', ready: false, restartCount: 0, state: { terminated: { exitCode: 1, reason: 'Error', message: `token ${token}` } } },
            ],
          },
        },
      ],
    ); // prettier-ignore
    const at = Date.parse('2026-01-01T00:00:00Z');
    expect(seen).toMatchObject([
      {
        ip: '',
        resourceVersion: '8',
        facts: {
          createdMs: at,
          injected: true,
          unschedulable: undefined,
          settings: { annotations: { 'istiovaultca.io/ca-digest': 'abc' } },
          containers: [
            { name: 'vault-agent-init', init: true, state: { kind: 'running', sinceMs: at + 5000 } },
            {
              name: 'discovery',
              restarts: 2,
              // the kubelet puts the growing back-off time in this message
              state: { kind: 'waiting', reason: 'CrashLoopBackOff', message: '' },
              last: { exitCode: 255, endedMs: at + 9000 },
            },
            { name: 'vault-agent', state: { kind: 'terminated', exitCode: 1, message: 'token [redacted token]' } },
          ],
        },
      },
    ]);
  });

  it("with OpenBao's injector are known by the names of the other, and keep their own for kubectl", () => {
    const names = { initContainers: [{ name: 'openbao-agent-init' }], containers: [{ name: 'discovery' }, { name: 'openbao-agent' }] };
    const annotations = { 'openbao.org/agent-inject': 'true', 'openbao.org/role': 'istiod', 'other.org/role': 'x' };
    const metadata = { name: 'p', uid: 'p', resourceVersion: '8', ownerReferences: owner('b'), annotations };
    const [found] = podsOf(deployment(), [replicaSet('b', '1')], [{ metadata, spec: names, status: { phase: 'Pending' } }]);
    expect(found?.facts.injected).toBe(true);
    expect(found?.facts.settings.annotations).toEqual({ 'vault.hashicorp.com/agent-inject': 'true', 'vault.hashicorp.com/role': 'istiod' });
    expect(found && containerOf(found.facts, 'vault-agent')?.name).toBe('openbao-agent');
    expect(found && containerOf(found.facts, 'vault-agent-init')?.name).toBe('openbao-agent-init');
  }); // prettier-ignore

  it('without a status wait', () => {
    const [found] = podsOf(deployment(), [replicaSet('b', '1')], [pod('p', 'b', { status: { phase: 'Pending', podIP: null } })]);
    expect(found).toMatchObject({ ip: '', facts: { injected: false, containers: [{ state: { kind: 'waiting', reason: '' } }] } });
  }); // prettier-ignore
});
