/** What an observation reads of the cluster anew, with a fake API server. Tests with real servers verify the reads themselves. */
import { beforeEach, describe, expect, it } from '@jest/globals';
import { emptyWorld, identity, minimalSpec } from '../../test/unit/model.ts';
import { group, kind, resourceSchema, version } from '../api/schema.ts';
import { adapters } from '../control-planes/index.ts';
import { clientOn } from '../kube/client.ts';
import { createMetrics } from '../observability/metrics.ts';
import { desire } from '../plan/facts/desired.ts';
import type { MeshEvidence } from '../plan/facts/observed-istiod.ts';
import type { Step } from '../plan/steps.ts';
import { FakeClock } from '../runtime/fake-clock.ts';
import { silentLogger } from '../runtime/logger.ts';
import type { VaultClient } from '../vault/client.ts';
import type { VaultObserver } from '../vault/observe.ts';
import { ConflictTracker } from './conflict-tracker.ts';
import { Observer, type Observation, type ObservationContext } from './observe.ts';
import { plainJson } from './report.ts';

const raw = plainJson({ apiVersion: `${group}/${version}`, kind, metadata: identity, spec: minimalSpec() });
const resource = resourceSchema.parse(raw);
const desired = desire(identity, resource.spec, resource.metadata.annotations);
const adapter = adapters[resource.spec.controlPlane.kind];
const noRoots: MeshEvidence = {
  bundles: [],
  homeDiscovered: true,
  places: [],
  incomplete: false,
  podsUnreadable: false,
  ready: 0,
  replicas: [],
  rootsOfOthers: [],
  confinedTo: [],
};

const inVault: Step[] = [{ kind: 'MountKV', mount: 'kv', version: 2, description: '' }];
const removal: Step[] = [{ kind: 'RemoveStaging', version: 1, generation: 1 }];
const pkiMount: Step[] = [{ kind: 'MountPKI', mount: 'pki', maxLeaseTtl: 1, description: '' }];
const inCluster: Step[] = [{ kind: 'ClaimControlPlane', target: 'ControlPlane controlplane' }];

let clock: FakeClock;
let changes: number;
let resourceVersion: string;
/** The paths that were read, without their folders. */
let reads: string[];
let observer: Observer;
let context: ObservationContext;

beforeEach(() => {
  clock = new FakeClock();
  changes = 0;
  resourceVersion = '1';
  reads = [];
  const kube = clientOn(({ path }) => {
    reads.push(path.slice(path.lastIndexOf('/') + 1));
    return Promise.resolve(path.includes('istiovaultcas/') ? raw : { metadata: { uid: 'u', resourceVersion } });
  });
  observer = new Observer({
    kube,
    sessions: { open: () => Promise.reject(new Error('unused')), dropRefusedSession: () => false },
    istiod: {
      observe: () => Promise.reject(new Error('unused')),
      meshEvidence: () => Promise.resolve(noRoots),
      forget: () => undefined,
    },
    metrics: createMetrics({ processMetrics: false }),
    logger: silentLogger,
    clock,
    conflicts: new ConflictTracker(1),
    changesMeanwhile: () => changes,
  });
  context = {
    kube,
    resource,
    desired,
    adapter,
    client: {} as unknown as VaultClient,
    surroundings: { others: [raw], deployments: [], relatives: [], injectors: [] },
    vault: { observe: () => Promise.resolve(emptyWorld().vault) } as unknown as VaultObserver,
    deleting: false,
    signal: new AbortController().signal,
  };
});

/** The objects that one observation reads, sorted. */
async function readsOf(observe: () => Promise<unknown>): Promise<string[]> {
  reads = [];
  const seen = (await observe()) as Observation;
  expect(seen.isCurrent).toBe(true);
  return reads.sort();
}

describe('what may forbid a write', () => {
  const gates = ['controlplane', 'istio-ca-root-cert', 'istioca'];

  beforeEach(async () => {
    expect(await readsOf(() => observer.observe(context, undefined))).toEqual([...gates, 'istioca-render']);
  });

  it('is kept between steps in Vault', async () => {
    expect(await readsOf(() => observer.observe(context, inVault))).toEqual([]);
    expect(await readsOf(() => observer.observe(context, inVault))).toEqual([]);
  });

  it.each<[string, () => Promise<unknown> | undefined, Step[]]>([
    ['after a step in the cluster', () => undefined, inCluster],
    ['before the fields are written', () => undefined, removal],
    ['before a root is generated', () => undefined, pkiMount],
    ['when an informer has reported a change', () => ((changes = 1), undefined), inVault],
    ['after a second, should the informers lag', () => clock.advance(1_000), inVault],
    ['of a resource that is being deleted', () => ((context.deleting = true), undefined), inVault],
  ])('is read again %s', async (_, happens, since) => {
    await happens();
    expect(await readsOf(() => observer.observe(context, since))).toEqual(expect.arrayContaining(gates));
  });

  it('is read again before a write to the cluster, and then kept again', async () => {
    expect(await readsOf(() => observer.refresh(context))).toEqual(gates);
    expect(await readsOf(() => observer.observe(context, inVault))).toEqual([]);
  });
});

it('knows the version of the control plane that was observed last', async () => {
  const key = `${identity.namespace}/${identity.name}`;
  const version = (of: string) => ({ metadata: { uid: 'u', resourceVersion: of } });
  expect(observer.hasSeen(key, undefined)).toBe(false);
  await observer.observe(context, undefined);
  resourceVersion = '2';
  await observer.observe(context, inVault);
  expect(observer.hasSeen(key, version('1'))).toBe(true);
  expect(observer.hasSeen(key, version('2'))).toBe(false);
  await observer.refresh(context);
  expect(observer.hasSeen(key, version('2'))).toBe(true);
  expect(observer.hasSeen(key, { metadata: { uid: 'another', resourceVersion: '2' } })).toBe(false);
  observer.forget(key);
  expect(observer.hasSeen(key, version('2'))).toBe(false);
});
