/** One observation of a reconcile: Vault and the cluster, read in parallel. Never writes. */
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { annotations as known } from '../api/annotations.ts';
import { dig, type JsonObject } from '../api/json.ts';
import { resourceSchema, type IstioVaultCA } from '../api/schema.ts';
import { istiodFields, renderName, type IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import { caDigest } from '../plan/facts/ca-entry.ts';
import { DerivedState } from '../plan/facts/derived.ts';
import { DerivedVault } from '../plan/facts/derived-vault.ts';
import type { KubeClient } from '../kube/client.ts';
import type { ObservedKubernetes, ObservedVault, RepeatedConflict } from '../plan/facts/observed.ts';
import { ProblemError, type Problem } from '../plan/facts/problem.ts';
import { fieldsWereApplied } from '../plan/facts/applied.ts';
import type { MeshEvidence } from '../plan/facts/observed-istiod.ts';
import { otherOwners, ownsAuthMount } from '../plan/ownership/ownership.ts';
import type { IstiodValues } from '../plan/facts/trust-places.ts';
import { writesToCluster } from '../plan/step-table.ts';
import type { Step } from '../plan/steps.ts';
import { VaultError } from '../vault/errors.ts';
import type { VaultObserver } from '../vault/observe.ts';
import { readConfigMapKey, readReviewerToken } from './connection.ts';
import { readGivenCa } from './given-ca.ts';
import { readGivenCertificates } from './given-certificates.ts';
import type { DecisionInput, ExecutionContext } from './execute.ts';
import {
  configMaps,
  evaluateKubernetes,
  goneResources,
  readGates,
  readUses,
  resources,
  targetOf,
  type Gates,
  type Surroundings,
} from './observe-kubernetes.ts';
import type { LoopContext, ReconcileLoopOptions } from './outcome.ts';
import { asProblem } from './problems.ts';
import { readRequests, type ReadRequests } from './signature-requests.ts';
import { readTokenIssuer } from './token-issuer.ts';

/** What one reconcile reads with. */
export interface ObservationContext extends ExecutionContext, LoopContext {
  surroundings: Surroundings;
  vault: VaultObserver;
  /** The ConfigMap that shows the fields to commit, as it was read last: only a step of this resource changes it, else it is drift. */
  render?: { object: JsonObject | undefined };
  /** What shows a certificate signing request in the cluster, as it was read last. */
  requests?: ReadRequests;
  /** What shows the roots of the mesh, as it was read last. */
  mesh?: MeshEvidence;
  /** Certificates that the spec refers to, read once for the reconcile. */
  given?: ReturnType<typeof readGiven>;
  /** What may forbid a write, as it was read last; only between steps in Vault. */
  cluster?: KeptCluster;
  /** Ends the reconcile. */
  signal: AbortSignal;
}

/** The cluster's side of an observation, for the next one. */
interface KeptCluster {
  side: ClusterSide;
  /** As `Clock.elapsed` measures, milliseconds. */
  readAtMs: number;
  /** How many changes the informers had reported before it was read. */
  changes: number;
}

/**
 * How long what was read of the cluster is kept between steps in Vault, milliseconds. The next observation after a change that an informer reports
 * reads it anyway; the limit counts where the watch lags, and for the root of the mesh, which no informer watches.
 */
const clusterKeptMs = 1_000;

/**
 * Whether a decision follows that depends on the roots of the mesh: after the state entry is written, a root is generated; after the staging entry
 * is removed, the fields are written.
 */
const needsRootsOfMesh = (since: readonly Step[]): boolean =>
  since.some(({ kind }) => kind === 'WriteState' || kind === 'RemoveStaging');

/** Whether what was read of the cluster can still hold after these steps. A root is generated right after its mount is made. */
const leaveCluster = (since: readonly Step[]): boolean =>
  !needsRootsOfMesh(since) && !since.some((step) => writesToCluster(step) || step.kind === 'MountPKI');

/** What users and other controllers put into objects that the spec refers to. @throws ProblemError, KubeError */
const readGiven = async (kube: KubeClient, resource: IstioVaultCA) => {
  const [certificates, ca] = [await readGivenCertificates(kube, resource), await readGivenCa(kube, resource)];
  const lists = [...(certificates.givenLists ?? []), ...(ca.givenLists ?? [])];
  return { ...certificates, ...ca, ...(lists.length > 0 ? { givenLists: lists } : {}) };
};

/** For a reference that does not exist or may not be read. */
function undefinedIfProblem(error: unknown): undefined {
  if (!(error instanceof ProblemError)) throw error;
}

/** One observation. */
export interface Observation extends DecisionInput {
  /** What the control plane object says of its istiod. */
  istiodValues: IstiodValues;
  /** What may forbid a write was not read for this observation, but kept from the one before. */
  clusterWasKept: boolean;
  /** Whether the resource is the one that this reconcile began with: same spec, annotations and deletion timestamp. */
  isCurrent: boolean;
}

/** An observation that failed. */
export interface FailedObservation {
  problem: Problem;
  /** The session was dropped because Vault refused its token: with a new login the reconcile can begin again at once. */
  sessionDropped: boolean;
}

type VaultSide = {
  observed: ObservedVault;
  goneOwners: string[];
} & Pick<
  ObservedKubernetes,
  'kubernetesCa' | 'reviewerHash' | 'tokenIssuer' | 'signed' | 'givenRoots' | 'given' | 'givenLists'
>;
type ClusterSide = { gates: Gates; isCurrent: boolean; istiodUses: string[]; render: JsonObject | undefined };

/** Reads what a plan is made from. */
export class Observer {
  readonly #o: ReconcileLoopOptions;
  /** The version of the control plane object in the last observation of each resource, by `namespace/name`. */
  readonly #seen = new Map<string, string>();

  constructor(options: ReconcileLoopOptions) {
    this.#o = options;
  }

  /**
   * Whether the last observation of a resource has this version of its control plane object.
   * @param key `namespace/name` of the resource
   * @param object undefined: it does not exist
   */
  hasSeen(key: string, object: unknown): boolean {
    return this.#seen.get(key) === versionOf(object);
  }

  /** Forgets a deleted resource. @param key `namespace/name` */
  forget(key: string): void {
    this.#seen.delete(key);
  }

  /**
   * Reads everything, or after steps only what they touched. What may forbid a write is kept for a moment between steps in Vault; `refresh` reads it.
   * @param since the steps executed since the last observation; undefined reads everything
   */
  async observe(context: ObservationContext, since: Step[] | undefined): Promise<Observation | FailedObservation> {
    const { namespace, name } = context.resource.metadata;
    const user = `${namespace}/${name}`;
    const [vault, cluster] = await Promise.allSettled([
      this.#vaultSide(context, since),
      this.#clusterSide(context, since),
    ]);
    if (cluster.status === 'rejected')
      return { problem: asProblem(cluster.reason, 'ControlPlanePatched'), sessionDropped: false };
    if (vault.status === 'rejected') {
      const refused = vault.reason instanceof VaultError && vault.reason.kind === 'Forbidden';
      return {
        problem: asProblem(vault.reason, 'VaultReady'),
        sessionDropped: refused && this.#o.sessions.dropRefusedSession(user, 'token'),
      };
    }
    if (vault.value.observed.missingCapabilities.length > 0) this.#o.sessions.dropRefusedSession(user, 'rights');
    const { side, wasKept } = cluster.value;
    const joined = { ...this.#join(context, vault.value, side), clusterWasKept: wasKept };
    let condition: Problem['condition'] = 'IntermediateReady';
    try {
      const observation = await this.#withRequests(context, joined, since);
      condition = 'RootReady';
      return await this.#withMesh(context, observation, since);
    } catch (error) {
      return { problem: asProblem(error, condition), sessionDropped: false };
    }
  }

  async #vaultSide(context: ObservationContext, since: Step[] | undefined): Promise<VaultSide> {
    const { kube, desired, deleting } = context;
    const observed = await context.vault.observe(since);
    const derived = new DerivedVault(desired, observed);
    return {
      observed,
      kubernetesCa: deleting ? undefined : await this.#kubernetesCa(context, derived),
      reviewerHash: deleting ? undefined : await this.#reviewerHash(context, derived),
      tokenIssuer: await this.#tokenIssuer(context, observed),
      goneOwners: await goneResources(kube, otherOwners(derived)),
      ...(deleting ? {} : await (context.given ??= readGiven(kube, context.resource))),
    };
  }

  /** Observes again, with the resource, the control plane and the root in its namespace read anew. */
  async refresh(context: ObservationContext): Promise<Observation | FailedObservation> {
    delete context.cluster;
    return await this.observe(context, []);
  }

  /** What was read of the cluster for an observation before, if it was read a moment ago and no change is known; else it is read. */
  async #clusterSide(
    context: ObservationContext,
    since: Step[] | undefined,
  ): Promise<{ side: ClusterSide; wasKept: boolean }> {
    const { cluster, deleting, resource } = context;
    const { namespace, name } = resource.metadata;
    const key = `${namespace}/${name}`;
    const readAtMs = this.#o.clock.elapsed();
    const changes = this.#o.changesMeanwhile(key);
    const keeps = cluster && since && leaveCluster(since) && !deleting && cluster.changes === changes;
    if (keeps && readAtMs - cluster.readAtMs < clusterKeptMs) return { side: cluster.side, wasKept: true };
    const side = await this.#readCluster(context, since);
    context.cluster = { side, readAtMs, changes };
    this.#seen.set(key, versionOf(side.gates.controlPlane));
    return { side, wasKept: false };
  }

  async #readCluster(context: ObservationContext, since: Step[] | undefined): Promise<ClusterSide> {
    const { kube, resource, adapter, desired, deleting } = context;
    if (since === undefined || since.some(({ kind }) => kind === 'PublishRender' || kind === 'RemoveRender'))
      delete context.render;
    const readRender = async () => ({
      object: await kube.getObject(configMaps, resource.metadata.namespace, renderName(desired)),
    });
    const [gates, current, istiodUses, render] = await Promise.all([
      readGates(kube, resource, context.surroundings, adapter),
      isCurrent(kube, resource),
      deleting ? readUses(kube, resource) : [],
      context.render ?? readRender(),
    ]);
    context.render = render;
    return { gates, isCurrent: current, istiodUses, render: render.object };
  }

  /** Puts both sides together: what the cluster shows is evaluated against the fields that the current CA asks for. */
  #join(
    { resource, desired, surroundings, adapter }: ObservationContext,
    vault: VaultSide,
    cluster: ClusterSide,
  ): Omit<Observation, 'clusterWasKept' | 'requestMap'> {
    const { observed, ...aboutVault } = vault;
    const { gates, isCurrent, istiodUses, render } = cluster;
    const { currentCa } = new DerivedVault(desired, observed);
    const fields = istiodFields(resource.spec, currentCa && caDigest(currentCa));
    const evaluated = evaluateKubernetes(surroundings, gates, render, resource, adapter, fields);
    const contest = this.#repeatedConflict(resource, evaluated, fields);
    return {
      target: targetOf(resource, surroundings, gates),
      istiodValues: gates.istiodValues,
      fields,
      render,
      isCurrent,
      observed: {
        vault: observed,
        kubernetes: {
          ...evaluated,
          ...{ ...aboutVault, istiodUses, istiod: undefined },
          ...(contest ? { contest } : {}),
        },
      },
    };
  }

  /** Adds what shows the certificate signing request that waits: which one that is, Vault says. */
  async #withRequests(
    context: ObservationContext,
    observation: Omit<Observation, 'requestMap'>,
    since: Step[] | undefined,
  ): Promise<Observation> {
    const { kube, resource, desired, deleting } = context;
    const { observed } = observation;
    if (deleting) return { ...observation, requestMap: undefined };
    const input = { desired, observed, now: this.#o.clock.now() };
    context.requests = await readRequests(kube, resource, input, context.requests, since);
    const { map, facts } = context.requests;
    const kubernetes = { ...observed.kubernetes, ...facts };
    return { ...observation, requestMap: map, observed: { ...observed, kubernetes } };
  }

  /**
   * Adds what shows the roots of the mesh, which the first write of istiod's fields must not replace unasked. It is read again before steps that
   * depend on it.
   */
  async #withMesh(
    context: ObservationContext,
    observation: Observation,
    since: Step[] | undefined,
  ): Promise<Observation> {
    const { desired, deleting, adapter } = context;
    const { observed, target, istiodValues } = observation;
    if (deleting || fieldsWereApplied(new DerivedState(desired, observed, this.#o.clock.now()))) return observation;
    const { namespace, name } = desired.identity;
    if (since === undefined || needsRootsOfMesh(since)) delete context.mesh;
    const request = { namespace, revisions: adapter.revisions(target), settings: istiodValues };
    context.mesh ??= await this.#o.istiod.meshEvidence(`${namespace}/${name}`, request, context.signal);
    const kubernetes = { ...observed.kubernetes, mesh: context.mesh };
    return { ...observation, observed: { ...observed, kubernetes } };
  }

  /** The conflict that stops the operator from writing the fields, if somebody reverted them again and again. */
  #repeatedConflict(
    { metadata, spec }: IstioVaultCA,
    { controlPlane, ownerIs }: ReturnType<typeof evaluateKubernetes>,
    fields: IstiodFields,
  ): RepeatedConflict | undefined {
    if (spec.controlPlane.write !== 'Patch' || ownerIs !== 'us') return undefined;
    const asked = `${metadata.generation} ${metadata.annotations[known.reconcileRequestedAt] ?? ''}`;
    const key = `${metadata.namespace}/${metadata.name}`;
    return this.#o.conflicts.evaluate(key, asked, JSON.stringify(fields), controlPlane, this.#o.clock.now());
  }

  /** PEM of the API server's CA; undefined if the configuration of the auth mount is not the operator's to write. @throws ProblemError */
  async #kubernetesCa({ kube, resource }: ObservationContext, derived: DerivedVault) {
    const { config } = resource.spec.kubernetesAuth;
    if (!writesAuthConfig(derived)) return undefined;
    const { configMapRef } = config.kubernetesCA;
    const field = 'spec.kubernetesAuth.config.kubernetesCA.configMapRef';
    return await readConfigMapKey(kube, resource.metadata.namespace, configMapRef, field, 'AccessReady');
  }

  /**
   * The hash of the token of the token reviewer: the one in Vault cannot be read, so a changed Secret shows only by it. If the Secret cannot
   * be read, nothing is known of a change, and what Vault has goes on.
   */
  async #reviewerHash({ kube, resource }: ObservationContext, derived: DerivedVault): Promise<string | undefined> {
    const token = writesAuthConfig(derived)
      ? await readReviewerToken(kube, resource).catch(undefinedIfProblem)
      : undefined;
    return token && createHash('sha256').update(token.reveal()).digest('hex');
  }

  /** The issuer of this cluster's tokens, if a configuration of somebody else names one. */
  async #tokenIssuer({ kube, desired, deleting }: ObservationContext, observed: ObservedVault) {
    return await readTokenIssuer(kube, new DerivedVault(desired, observed), deleting);
  }
}

/** Whether the configuration of the auth mount is the operator's to write: of a mount that it made or is about to make. */
const writesAuthConfig = (derived: DerivedVault): boolean =>
  derived.spec.kubernetesAuth.manage && (derived.vault.authMount === undefined || ownsAuthMount(derived));

/** Tells one version of an object from all others, also of other objects. */
function versionOf(object: unknown): string {
  const [uid, version] = ['uid', 'resourceVersion'].map((field) => dig(object, 'metadata', field));
  return object === undefined ? 'none' : `${String(uid)} ${String(version)}`;
}

/** Whether the API server still has the resource as this reconcile was given it. @throws KubeError */
async function isCurrent(kube: KubeClient, { metadata }: IstioVaultCA): Promise<boolean> {
  const { namespace, name, uid, generation, annotations, deletionTimestamp } = metadata;
  const found = await kube.getObject(resources, namespace, name);
  const now = resourceSchema.safeParse(found).data?.metadata;
  return (
    now?.uid === uid &&
    now.generation === generation &&
    now.deletionTimestamp === deletionTimestamp &&
    isDeepStrictEqual(now.annotations, annotations)
  );
}
