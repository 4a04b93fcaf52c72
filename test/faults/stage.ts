/**
 * The stage of fault runs: one resource with separate names, a separate Vault proxy, and the point where a request fails.
 * Stages use a namespace one after another; mounts, policies, roles and objects are new.
 */
import { operatorPolicy, type ToMake } from '../../src/plan/vault/capabilities.ts';
import { specSchema } from '../../src/api/schema.ts';
import { createNamespace, waitFor, type Product } from '../stack/index.ts';
import type { Board } from '../support/board.ts';
import { applyOk, conditionOf, resourcePath, type Json, type Kube, type Resource } from '../support/cluster.ts';
import { controlPlane, limitMesh, merge, type Vault } from '../support/scene.ts';
import { FaultPoint } from './point.ts';
import { startVaultProxy, type Upstream, type Write } from './proxy.ts';

export interface Configuration {
  product: Product;
  source: 'Bundle' | 'PKI';
  version: 1 | 2;
  /** Of both keys; default: P-256. */
  keyType?: 'ec' | 'rsa';
  /** Of the intermediate's key; default: the delivery's own. */
  rotationPolicy?: 'Always' | 'Never';
}

/** The servers and proxies of a stage. */
export interface Ground {
  kube: Kube;
  vault: Vault;
  upstream: Upstream;
  board: Board;
  /** The points of all namespaces, which the API server's proxy consults. */
  points: Map<string, FaultPoint>;
}

const collectionOfControlPlanes = (namespace: string) =>
  `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes`;

export class Stage {
  readonly #ground: Ground;
  #looks = 0;
  readonly #stopProxy: () => Promise<void>;
  readonly namespace: string;
  /** The name of the resource; every other name of the stage derives from it. */
  readonly name: string;
  readonly configuration: Configuration;
  readonly resource: Json;
  readonly point: FaultPoint;
  /** Executed writes to Vault, in the order of their answers. */
  readonly writes: Write[];
  /** Data of a scenario, such as the state before its action. */
  readonly notes = new Map<string, unknown>();

  private constructor(
    ground: Ground,
    own: Pick<Stage, 'namespace' | 'name' | 'configuration' | 'resource' | 'point' | 'writes'>,
    stopProxy: () => Promise<void>,
  ) {
    this.#ground = ground;
    this.#stopProxy = stopProxy;
    ({
      namespace: this.namespace,
      name: this.name,
      configuration: this.configuration,
      resource: this.resource,
      point: this.point,
      writes: this.writes,
    } = own);
  }

  /** Creates the stage. The scenario applies the resource itself. */
  static async make(
    ground: Ground,
    namespace: string,
    name: string,
    configuration: Configuration,
    over: Json,
    rights: Partial<ToMake>,
  ): Promise<Stage> {
    const { kube, vault, upstream, points } = ground;
    const point = new FaultPoint();
    const writes: Write[] = [];
    const proxy = await startVaultProxy(upstream, point, (write) => writes.push(write));
    points.set(namespace, point);
    await createNamespace(kube, namespace);
    await kube.request('POST', `/api/v1/namespaces/${namespace}/serviceaccounts`, {
      metadata: { name: 'istio-vault-ca' },
    });
    await limitMesh(kube, namespace);
    const spec = merge(specOf(name, configuration, proxy.address, vault.address), over);
    const plane = controlPlane(namespace, []);
    await Promise.all([
      applyOk(kube, { ...plane, metadata: { name, namespace } }),
      grant(vault, `operator-${name}`, namespace, spec, rights),
    ]);
    const metadata = { name, namespace };
    const resource = { apiVersion: 'istiovaultca.io/v1alpha1', kind: 'IstioVaultCA', metadata, spec };
    return new Stage(ground, { namespace, name, configuration, resource, point, writes }, () => proxy.stop());
  }

  get kube(): Kube {
    return this.#ground.kube;
  }

  get vault(): Vault {
    return this.#ground.vault;
  }

  /** Of the resource on the API server. */
  get path(): string {
    return resourcePath(this.namespace, this.name);
  }

  /** Mounts of this stage. */
  get mounts(): { root: string; intermediate: string; keyStore: string } {
    return { root: `${this.name}-pki`, intermediate: `${this.name}-ca`, keyStore: `${this.name}-kv` };
  }

  /** The policy that istiod's role carries. */
  get policy(): string {
    return `${this.name}-istioca`;
  }

  /** The path of an entry of the key store in the API. */
  entryPath(suffix: '' | '-staging' | '-state' = ''): string {
    const { version } = this.configuration;
    return `${this.mounts.keyStore}/${version === 2 ? 'data/' : ''}istioca${suffix}`;
  }

  async apply(change: Json = {}): Promise<void> {
    await applyOk(this.kube, merge(this.resource, change));
  }

  async annotate(annotations: Record<string, string>): Promise<void> {
    const { status, body } = await this.kube.request('PATCH', this.path, { metadata: { annotations } });
    if (status >= 300) throw new Error(`annotate ${this.name}: ${status} ${JSON.stringify(body)}`);
  }

  /** Waits until the resource, or its absence, satisfies a check. */
  wait(what: string, check: (resource: Resource | undefined) => boolean): Promise<Resource | undefined> {
    return this.#ground.board.wait(this.namespace, this.name, what, check);
  }

  /** Waits until the resource is provisioned, and `also` holds. */
  async provisioned(also: (resource: Resource) => boolean = () => true): Promise<Resource> {
    const found = await this.wait('provisioned', (r) => r !== undefined && isProvisioned(r) && also(r));
    if (!found) throw new Error('unreachable');
    return found;
  }

  /** Requests another reconcile, and waits until it is finished and the resource is provisioned. */
  async look(): Promise<void> {
    this.#looks += 1;
    const text = `look ${this.#looks}`;
    await this.annotate({ 'istiovaultca.io/reconcile-requested-at': text });
    await this.provisioned((r) => r.status?.lastHandledReconcileAt === text);
  }

  async controlPlane(): Promise<Json> {
    const path = `${collectionOfControlPlanes(this.namespace)}/${this.name}`;
    return (await this.kube.request('GET', path)).body as Json;
  }

  /** Sets the overlays of the control plane, as a user does. */
  async overlays(overlays: unknown[]): Promise<void> {
    const { name, namespace } = this;
    await applyOk(this.kube, { ...controlPlane(namespace, overlays), metadata: { name, namespace } });
  }

  /** Repeats an action until it succeeds. */
  async eventually<T>(what: string, attempt: () => Promise<T>): Promise<T> {
    return await waitFor(what, async () => [await attempt()] as const, { intervalMs: 20 }).then(([done]) => done);
  }

  /** Removes the resource and all objects that were created for it. */
  async close(): Promise<void> {
    const { kube, vault, mounts, name, namespace } = this;
    this.point.disarm();
    await kube.request('DELETE', this.path);
    await kube.request('PATCH', this.path, { metadata: { finalizers: null } });
    await this.wait('gone', (resource) => resource === undefined);
    await Promise.all([
      kube.request('DELETE', `${collectionOfControlPlanes(namespace)}/${name}`),
      ...Object.values(mounts).map((mount) => vault.request('DELETE', `sys/mounts/${mount}`)),
      ...[this.policy, `operator-${name}`].map((policy) => vault.request('DELETE', `sys/policies/acl/${policy}`)),
      ...[`${name}-istiod`, `operator-${name}`].map((role) => vault.request('DELETE', `auth/kubernetes/role/${role}`)),
    ]);
    await this.#stopProxy();
  }
}

function isProvisioned(resource: Resource): boolean {
  const condition = conditionOf(resource, 'Provisioned');
  return condition?.status === 'True' && condition.observedGeneration === resource.metadata.generation;
}

function specOf(name: string, configuration: Configuration, address: string, injectorAddress: string): Json {
  const { source, version, keyType = 'ec', rotationPolicy } = configuration;
  const auth = { method: 'Kubernetes', kubernetes: { role: `operator-${name}` } };
  return {
    vault: { address, injectorAddress, auth },
    root: { mount: `${name}-pki`, key: { type: keyType } },
    intermediate: { mount: `${name}-ca`, key: { type: keyType, ...(rotationPolicy && { rotationPolicy }) } },
    keyStore: { mount: `${name}-kv`, path: 'istioca', version },
    policy: { name: `${name}-istioca` },
    kubernetesAuth: { role: `${name}-istiod` },
    controlPlane: { kind: 'TetrateControlPlane', name },
    delivery: { source },
  };
}

/**
 * The operator's permissions: exactly the policy in `deploy/vault`. The token is valid longer than a run, so that renewals do not change
 * the count.
 */
async function grant(
  vault: Vault,
  role: string,
  namespace: string,
  spec: Json,
  rights: Partial<ToMake>,
): Promise<void> {
  const needs = { authMount: false, authConfig: false, auditDevice: false, ...rights };
  const policy = operatorPolicy(specSchema.parse(spec), needs);
  await vault.request('PUT', `sys/policies/acl/${role}`, { policy });
  await vault.request('POST', `auth/kubernetes/role/${role}`, {
    bound_service_account_names: ['istio-vault-ca'],
    bound_service_account_namespaces: [namespace],
    audience: 'vault',
    token_policies: [role],
    token_no_default_policy: true,
    token_ttl: '1h',
  });
}
