/** Meshes for the tests of the verification of istiod: the operator, a stand-in for a node, and the status that a user sees. */
import { afterAll, beforeAll, jest } from '@jest/globals';
import { sharedStack, startNode, waitFor, type StandInNode } from '../stack/index.ts';
import { podsCome } from './admission.ts';
import {
  applyOk,
  conditionOf,
  getResource,
  manifest,
  resourcePath,
  waitForCondition,
  type Condition,
  type Json,
} from './cluster.ts';
import { useOperator } from './harness.ts';
import { makeScene } from './scene.ts';
import { startTetrateOperator, type TetrateOperator, type TetrateOperatorOptions } from './tetrate-operator.ts';

/** A line of `status.istiod`. */
export interface Replica {
  pod: string;
  phase: string;
  reason: string;
  container?: string;
  message: string;
}

export interface MeshOptions {
  /** Fields merged over the spec of the scene. */
  spec?: Json;
  /** Replicas of istiod; default 1. */
  replicas?: number;
  /** Additional options of the stand-in for Tetrate's operator. */
  tetrate?: Pick<TetrateOperatorOptions, 'values' | 'over'>;
  /** Whether the operator is allowed to read logs in this namespace; default true. */
  logs?: boolean;
  /** Called when the control plane has its fields, before istiod is rolled out. */
  before?: () => Promise<void>;
}

const { kube, vaults } = sharedStack();
const vault = vaults.OpenBao;
const name = 'istioca';
const logsRole = 'istio-vault-ca-logs';
const logsBinding = `/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/${logsRole}`;

/** One mesh per namespace, all with the same operator, node and OpenBao server. */
export class Meshes {
  #node: StandInNode | undefined;
  readonly #tetrate = new Map<string, TetrateOperator>();
  readonly #logs: TetrateOperator[] = [];

  get node(): StandInNode {
    if (this.#node === undefined) throw new Error('the node does not run yet');
    return this.#node;
  }

  async open(): Promise<void> {
    // each namespace gets the permission separately, so that one can be without it
    for (const object of await manifest('deploy/components/logs/rights/clusterrole.yaml')) await applyOk(kube, object);
    await kube.request('DELETE', logsBinding);
    this.#node = await startNode({ kube, vault });
    await podsCome(kube, 'default', 'injected');
  }

  async close(): Promise<void> {
    await Promise.all([...this.#tetrate.values()].map((operator) => operator.stop()));
    await this.#node?.stop();
  }

  /** Creates a resource, and waits until it is provisioned; its istiod is being rolled out. */
  async start(namespace: string, options: MeshOptions = {}): Promise<void> {
    const scene = await makeScene(kube, vault, { namespace, spec: options.spec ?? {} });
    if (options.logs !== false) await this.allowLogs(namespace);
    await applyOk(kube, scene.resource);
    const condition = options.before
      ? { type: 'ControlPlanePatched', status: 'True' }
      : { type: 'Provisioned', status: 'True' };
    await waitForCondition(kube, namespace, name, condition, 120_000);
    await options.before?.();
    this.runTetrate(namespace, { replicas: options.replicas ?? 1, ...options.tetrate });
  }

  async allowLogs(namespace: string): Promise<void> {
    await applyOk(kube, {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata: { name: logsRole, namespace },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: logsRole },
      subjects: [{ kind: 'ServiceAccount', name: 'istio-vault-ca-operator', namespace: 'istio-vault-ca' }],
    });
  }

  /** Starts the stand-in for Tetrate's operator for the control plane of a namespace. */
  runTetrate(namespace: string, options: Partial<TetrateOperatorOptions> = {}): void {
    const operator = startTetrateOperator({ kube, namespace, ...options });
    this.#tetrate.set(namespace, operator);
    this.#logs.push(operator);
  }

  /** Stops it. */
  async stopTetrate(namespace: string): Promise<void> {
    await this.#tetrate.get(namespace)?.stop();
    this.#tetrate.delete(namespace);
  }

  /** The errors of the stand-in for Tetrate's operator. */
  log(namespace: string): string {
    return this.#tetrate.get(namespace)?.log() ?? '';
  }

  async replicas(namespace: string): Promise<Replica[]> {
    const { status } = await getResource(kube, namespace, name);
    return (status as { istiod?: Replica[] } | undefined)?.istiod ?? [];
  }

  /** Waits until the status shows a replica in a phase, with a reason. */
  async replica(namespace: string, phase: string, reason: string): Promise<Replica> {
    let last: Replica[] = [];
    return await waitFor(
      `a replica of ${namespace} to be ${phase}, ${reason}`,
      async () => {
        last = await this.replicas(namespace);
        return last.find((one) => one.phase === phase && one.reason === reason);
      },
      { timeoutMs: 120_000, log: () => [JSON.stringify(last), ...this.#logs.map((one) => one.log())].join('\n') },
    );
  }

  /** Waits until `IstiodReady` has the given values, and returns the condition. */
  async istiodReady(namespace: string, status: string, reason: string): Promise<Condition> {
    const what = { type: 'IstiodReady', status, reason };
    const found = conditionOf(await waitForCondition(kube, namespace, name, what, 120_000), 'IstiodReady');
    if (found === undefined) throw new Error(`${namespace} has no condition IstiodReady`);
    return found;
  }

  /** Waits until every replica is verified. */
  async proven(namespace: string): Promise<Condition> {
    return await this.istiodReady(namespace, 'True', 'IstiodProven');
  }

  /** Sends a merge patch of the resource. */
  async patch(namespace: string, change: Json): Promise<void> {
    const { status, body } = await kube.request('PATCH', resourcePath(namespace, name), change);
    if (status !== 200) throw new Error(`patch ${namespace}/${name}: ${status} ${JSON.stringify(body)}`);
  }

  /** Deletes a Pod, so that its ReplicaSet creates another one. */
  async remake(namespace: string, pod: string): Promise<void> {
    const { status } = await kube.request('DELETE', `/api/v1/namespaces/${namespace}/pods/${pod}`);
    if (status !== 200) throw new Error(`delete pod ${namespace}/${pod}: ${status}`);
  }
}

/** @param flags command line of the operator */
export function useMeshes(flags: string[]): Meshes {
  // longer than the waits of one test together, so that a failed wait reports what it waited for
  jest.setTimeout(600_000);
  const meshes = new Meshes();
  useOperator(flags);
  beforeAll(() => meshes.open());
  afterAll(() => meshes.close());
  return meshes;
}
