/**
 * A mesh for root rotations: istiod with three replicas, and workloads that connect to each other continuously. Their certificates have a
 * lifetime of 30 seconds. It has a stack of its own, so that a whole cluster trusts one root.
 */
import { afterAll, afterEach, beforeAll, expect } from '@jest/globals';
import {
  startKube,
  startNode,
  startVault,
  waitFor,
  type KubeServer,
  type StandInNode,
  type VaultServer,
} from '../stack/index.ts';
import { podsCome } from './admission.ts';
import { blocks } from './certificates.ts';
import { applyOk, getResource, installOperator, resourcePath, waitForCondition, type Json, type Kube, type Resource } from './cluster.ts'; // prettier-ignore
import { startOperator, type RunningOperator } from './operator.ts';
import { makeScene, prepareVault } from './scene.ts';
import { startTetrateOperator, type TetrateOperator } from './tetrate-operator.ts';
import { publishedLists, Workloads } from './workloads.ts';

const certificateSeconds = 30;

const multiRoot = [
  {
    apiVersion: 'install.istio.io/v1alpha1',
    kind: 'IstioOperator',
    name: 'tsb-istiocontrolplane',
    patches: [{ path: 'spec.values.pilot.env.ISTIO_MULTIROOT_MESH', value: 'true' }],
  },
];

const secretOf = (namespace: string, name: string, data: Record<string, string>): Json => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name, namespace },
  data: Object.fromEntries(Object.entries(data).map(([key, text]) => [key, Buffer.from(text).toString('base64')])),
});

/** The operator may read one Secret, as an administrator grants it. */
async function grantSecret(kube: Kube, namespace: string, secret: string): Promise<void> {
  const group = 'rbac.authorization.k8s.io';
  const apiVersion = `${group}/v1`;
  const metadata = { name: 'import', namespace };
  const rules = [{ apiGroups: [''], resources: ['secrets'], resourceNames: [secret], verbs: ['get'] }];
  const subjects = [{ kind: 'ServiceAccount', name: 'istio-vault-ca-operator', namespace: 'istio-vault-ca' }];
  await applyOk(kube, { apiVersion, kind: 'Role', metadata, rules });
  await applyOk(kube, { apiVersion, kind: 'RoleBinding', metadata, subjects, roleRef: { apiGroup: group, kind: 'Role', name: 'import' } }); // prettier-ignore
}

interface Rotation {
  phase?: string;
}

/** Starts the stack before the tests of a file, and ends it after them. @param more flags of the operator */
export function useRotatingMesh(more: string[] = []) {
  const flags = ['--resync=1m', ...more];
  let kube: KubeServer;
  let vault: VaultServer;
  let node: StandInNode;
  let kubeconfig: string;
  let operator: RunningOperator;
  let workloads: Workloads | undefined;
  const tetrate: TetrateOperator[] = [];

  beforeAll(async () => {
    [kube, vault] = await Promise.all([startKube(), startVault('OpenBao')]);
    node = await startNode({ kube, vault });
    await podsCome(kube, 'default', 'injected');
    kubeconfig = await installOperator(kube);
    await prepareVault(kube, vault);
    operator = await startOperator(kubeconfig, flags);
  });
  afterEach(async () => {
    await workloads?.stop();
    workloads = undefined;
  });
  afterAll(async () => {
    await operator.stop();
    await Promise.all(tetrate.map((one) => one.stop()));
    await node.stop();
    await Promise.all([kube.stop(), vault.stop()]);
  });

  // a phase can take the lifetime of a certificate, one minute of clock slack, and a rollout
  const patience = { timeoutMs: 300_000, intervalMs: 200, log: () => operator.log().slice(-3000) };
  const resource = async (namespace: string): Promise<Resource> => await getResource(kube, namespace, 'istioca');
  const ready = async (namespace: string): Promise<Resource> =>
    await waitForCondition(kube, namespace, 'istioca', { type: 'Ready', status: 'True' }, 180_000);

  /** Fingerprints in the status. */
  const fingerprints = (bundle: string): string[] =>
    blocks(bundle).map((c) => c.fingerprint256.replaceAll(':', '').toLowerCase());

  /** Names of objects in the mounts of a scene. */
  async function list(path: string): Promise<string[]> {
    const { body } = await vault.request('LIST', path);
    return (body as { data: { keys: string[] } }).data.keys;
  }

  /** Fingerprints of the roots in the ConfigMap of the mesh. */
  async function meshRoots(namespace: string): Promise<string[]> {
    const { body } = await kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/istio-ca-root-cert`);
    return fingerprints((body as { data?: Record<string, string> }).data?.['root-cert.pem'] ?? '');
  }

  return {
    resource,
    ready,
    meshRoots,
    /** Creates a resource and three replicas of istiod, and waits until all are verified. */
    mesh: async (namespace: string, spec: Record<string, unknown> = {}): Promise<void> => {
      const scene = await makeScene(kube, vault, {
        namespace,
        overlays: multiRoot,
        spec: {
          intermediate: {
            mount: `${namespace}-ca`,
            key: { type: 'ec' },
            ttl: '24h',
            maxWorkloadCertTTL: `${certificateSeconds}s`,
          },
          delivery: { refreshInterval: '1s' },
          ...spec,
        },
      });
      await applyOk(kube, scene.resource);
      // an istiod without the fields signs by itself, and the root that it publishes would have to be confirmed
      await waitForCondition(kube, namespace, 'istioca', { type: 'ControlPlanePatched', status: 'True' });
      tetrate.push(startTetrateOperator({ kube, namespace, replicas: 3 }));
      const { status } = await ready(namespace);
      await waitFor('the root in the mesh', async () => {
        const roots = await meshRoots(namespace);
        return roots.length === 1 && roots[0] === status?.root?.fingerprint;
      });
    },
    /**
     * Starts three replicas of istiod that sign without Vault, and waits until they have published their root.
     * @param cacerts data of Secret `cacerts`, PEM; undefined: istiod makes a CA of its own
     * @returns what applies the resource, with these fields of `spec.intermediate`
     */
    meshWithout: async (namespace: string, cacerts?: Record<string, string>) => {
      const intermediate = { mount: `${namespace}-ca`, key: { type: 'ec' }, ttl: '24h', maxWorkloadCertTTL: `${certificateSeconds}s` }; // prettier-ignore
      const scene = await makeScene(kube, vault, { namespace, overlays: multiRoot, spec: { intermediate, delivery: { refreshInterval: '1s' } } }); // prettier-ignore
      if (cacerts) await applyOk(kube, secretOf(namespace, 'cacerts', cacerts));
      await grantSecret(kube, namespace, cacerts ? 'cacerts' : 'istio-ca-secret');
      tetrate.push(startTetrateOperator({ kube, namespace, replicas: 3 }));
      await waitFor('the root of istiod', async () => (await meshRoots(namespace)).length === 1, patience);
      return async (over: Json): Promise<void> => {
        const spec = { ...(scene.resource['spec'] as Json), intermediate: { ...intermediate, ...over } };
        await applyOk(kube, { ...scene.resource, spec });
      };
    },
    /** Puts texts into a ConfigMap. */
    give: async (namespace: string, name: string, data: Record<string, string>): Promise<Json> =>
      await applyOk(kube, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace }, data }),
    /** A request to Vault as administrator. */
    request: (method: string, path: string, body?: unknown) => vault.request(method, path, body),
    /** The PEM blocks in ConfigMap istio-ca-crl of a namespace, in their order; empty: it does not exist. */
    lists: async (namespace: string): Promise<string[]> => await publishedLists(kube, namespace),
    /** Starts workloads; they stop at the end of the test. @param listsLagMs see `WorkloadOptions` */
    work: async (namespace: string, listsLagMs?: number): Promise<Workloads> => {
      workloads = new Workloads({ kube, namespace, certificateSeconds, listsLagMs });
      await workloads.start();
      return workloads;
    },
    annotate: async (namespace: string, annotations: Record<string, string | null>): Promise<void> => {
      const { status } = await kube.request('PATCH', resourcePath(namespace, 'istioca'), { metadata: { annotations } });
      expect(status).toBe(200);
    },
    /** Changes fields of the spec. */
    patch: async (namespace: string, spec: Json): Promise<void> => {
      const { status } = await kube.request('PATCH', resourcePath(namespace, 'istioca'), { spec });
      expect(status).toBe(200);
    },
    /** Waits until the resource satisfies a check. */
    until: async (what: string, namespace: string, check: (found: Resource) => boolean): Promise<Resource> =>
      await waitFor(
        what,
        async () => {
          const found = await resource(namespace);
          return check(found) && found;
        },
        patience,
      ),
    /** Waits until a rotation is in a phase, or is finished. */
    inPhase: async (namespace: string, phase: string | undefined): Promise<Resource> =>
      await waitFor(
        `the rotation of ${namespace} to be ${phase ?? 'over'}`,
        async () => {
          const found = await resource(namespace);
          const rotation = (found.status as { rotation?: Rotation } | undefined)?.rotation;
          return rotation?.phase === phase && found;
        },
        patience,
      ),
    /** Waits until istiod hands out two roots: after a rollout, the next leader of all replicas writes them. */
    bothRoots: async (namespace: string): Promise<string[]> =>
      await waitFor(
        'both roots in the mesh',
        async () => {
          const roots = await meshRoots(namespace);
          return roots.length === 2 && roots;
        },
        patience,
      ),
    /** The number of objects of a kind in the intermediate mount. */
    count: async (namespace: string, what: 'keys' | 'issuers'): Promise<number> =>
      (await list(`${namespace}-ca/${what}`)).length,
    /** Removes a root from its mount. */
    removeRoot: async (namespace: string, fingerprint: string | undefined): Promise<void> => {
      for (const id of await list(`${namespace}-pki/issuers`)) {
        const { body } = await vault.request('GET', `${namespace}-pki/issuer/${id}`);
        const [found] = fingerprints((body as { data: { certificate: string } }).data.certificate);
        if (found === fingerprint) await vault.request('DELETE', `${namespace}-pki/issuer/${id}`);
      }
      expect(await list(`${namespace}-pki/issuers`)).toHaveLength(1);
    },
    /** Kills the operator with SIGKILL and starts another one at once. */
    kill: async (): Promise<void> => {
      process.kill(operator.pid, 'SIGKILL');
      await operator.exited;
      await kube.request('DELETE', '/apis/coordination.k8s.io/v1/namespaces/istio-vault-ca/leases/istio-vault-ca');
      operator = await startOperator(kubeconfig, flags);
    },
  };
}
