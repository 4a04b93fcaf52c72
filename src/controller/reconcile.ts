/** One reconcile: read, plan, write, read again, until nothing is left or something stands in the way; then one status. */
import { isDeepStrictEqual } from 'node:util';
import { fieldManager, ownerAnnotation } from '../api/annotations.ts';
import { resourceSchema, type IstioVaultCA } from '../api/schema.ts';
import type { StageCondition } from '../api/conditions.ts';
import type { Status } from '../api/status-schema.ts';
import { annotationPatch, type ControlPlaneAdapter, type JsonObject } from '../control-planes/adapter.ts';
import { adapterFor } from '../control-planes/index.ts';
import type { KubeClient } from '../kube/client.ts';
import type { EventRecorder } from '../kube/events.ts';
import type { Logger } from '../observability/logger.ts';
import type { Metrics } from '../observability/metrics.ts';
import { desire, istiodFields, type Desired } from '../plan/desired.ts';
import { liveDigest, soundLive } from '../plan/facts.ts';
import { isOwn } from '../plan/identity.ts';
import type { Observed, ObservedVault } from '../plan/observed.ts';
import { checkSpec, plan } from '../plan/plan.ts';
import { kindOf, ProblemError, type Problem } from '../plan/problem.ts';
import { renewAt, startingStatus, statusOf, suspendedStatus } from '../plan/status.ts';
import { conditionOfStep, describeStep, type Step } from '../plan/steps.ts';
import type { Clock } from '../runtime/clock.ts';
import type { VaultClient } from '../vault/client.ts';
import { VaultError } from '../vault/errors.ts';
import { executeVaultStep } from '../vault/execute.ts';
import { assertServing, observeVault } from '../vault/observe.ts';
import type { Sessions } from '../vault/sessions.ts';
import { loginHint, readConfigMapKey, readSecretKey, sessionRequest } from './connection.ts';
import { invalidSpecStatus } from './invalid-spec.ts';
import { judgeKubernetes, readKubernetes, resources, type RawKubernetes } from './observe-kubernetes.ts';
import { toProblem } from './problems.ts';

export interface ReconcilerOptions {
  kube: KubeClient;
  sessions: Sessions;
  events: Pick<EventRecorder, 'record'>;
  metrics: Metrics;
  logger: Logger;
  clock: Clock;
  /** UID of the kube-system namespace. */
  clusterUid: string;
  leaderElection: boolean;
  addressAllowed: (address: string) => boolean;
  /** How long a settled resource is left alone, milliseconds. */
  resyncMs: number;
}

/** When to look again: after a time, or with growing delays because something failed that may pass. */
export type Outcome = { requeueAfterMs: number } | { backoff: true; problem: Problem };

/** More rounds than any path needs: what is left then goes on in the next reconcile. */
const maxRounds = 24;
const waitingMs = 30_000;

interface Round {
  observed: Observed | undefined;
  problems: Problem[];
  /** Another look is needed although nothing failed for good. */
  unfinished: boolean;
}

export class Reconciler {
  readonly #o: ReconcilerOptions;

  constructor(options: ReconcilerOptions) {
    this.#o = options;
  }

  /** @param key `namespace/name` */
  async reconcile(key: string, signal: AbortSignal): Promise<Outcome> {
    const [namespace = '', name = ''] = key.split('/');
    const raw = await this.#o.kube.getObject(resources, namespace, name, { signal });
    if (raw === undefined) {
      this.#o.sessions.release(key);
      this.#o.metrics.forgetResource(namespace, name);
      return { requeueAfterMs: this.#o.resyncMs };
    }
    const parsed = resourceSchema.safeParse(raw);
    if (!parsed.success) {
      await this.#writeStatus(raw, undefined, invalidSpecStatus(raw, parsed.error, this.#o.clock.now()));
      return { requeueAfterMs: this.#o.resyncMs };
    }
    const resource = parsed.data;
    if (resource.metadata.deletionTimestamp !== undefined) {
      this.#o.sessions.release(key);
      return { requeueAfterMs: this.#o.resyncMs };
    }
    if (resource.spec.suspend) {
      await this.#writeStatus(raw, resource, suspendedStatus(resource, this.#o.clock.now()));
      return { requeueAfterMs: this.#o.resyncMs };
    }
    return await this.#converge(raw, resource, signal);
  }

  async #converge(raw: JsonObject, resource: IstioVaultCA, signal: AbortSignal): Promise<Outcome> {
    const { clock, clusterUid } = this.#o;
    const { namespace, name, uid, annotations } = resource.metadata;
    const desired = desire({ cluster: clusterUid, namespace, name, uid }, resource.spec, annotations);
    const input = (observed: Observed | undefined, problems: Problem[]) => ({
      resource,
      desired,
      observed,
      problems,
      now: clock.now(),
    });
    if (resource.status?.observedGeneration !== resource.metadata.generation) {
      await this.#writeStatus(raw, resource, startingStatus(input(undefined, [])), false);
    }
    const refused = [...this.#addressProblem(resource), ...checkSpec(desired, this.#o.leaderElection)];
    const round =
      refused.length > 0
        ? { observed: undefined, problems: refused, unfinished: false }
        : await this.#rounds(resource, desired, signal);
    const status = statusOf(input(round.observed, round.problems));
    await this.#writeStatus(raw, resource, status);
    this.#measure(resource, status);
    return this.#outcome(round, desired, clock.now());
  }

  #addressProblem(resource: IstioVaultCA): Problem[] {
    const { address } = resource.spec.vault;
    if (this.#o.addressAllowed(address)) return [];
    const message = `spec.vault.address ${address} is not on the operator's list (--vault-addresses); use one that is, or have it added`;
    return [{ condition: 'VaultReady', reason: 'AddressNotAllowed', message, blocks: 'all' }];
  }

  /** Rounds of reading, planning and writing. Never throws for what a server did: that is a problem of the result. */
  async #rounds(resource: IstioVaultCA, desired: Desired, signal: AbortSignal): Promise<Round> {
    let last: Round = { observed: undefined, problems: [], unfinished: true };
    let conflicts = 0;
    for (let round = 0; round < maxRounds && !signal.aborted; round += 1) {
      const seen = await this.#observe(resource, desired, signal);
      if ('problem' in seen) return { observed: last.observed, problems: [seen.problem], unfinished: false };
      const { problems, steps } = plan(desired, seen.observed, this.#o.clock.now());
      last = { observed: seen.observed, problems, unfinished: steps.length > 0 };
      if (steps.length === 0) return last;
      if (round > 0 && !(await this.#stillTheSame(resource, signal))) return last;
      const failures = await this.#execute(resource, desired, seen, steps);
      if (failures.length === 0) continue;
      // somebody was faster: look again and decide anew, but not for ever
      if (failures.every((p) => p.reason === 'Conflict') && (conflicts += 1) < 4) continue;
      return { observed: seen.observed, problems: [...failures, ...problems], unfinished: false };
    }
    return last;
  }

  /** The spec that is carried out must still be the one that stands. */
  async #stillTheSame(resource: IstioVaultCA, signal: AbortSignal): Promise<boolean> {
    const { namespace, name, uid, generation, annotations } = resource.metadata;
    const now = resourceSchema.safeParse(await this.#o.kube.getObject(resources, namespace, name, { signal })).data
      ?.metadata;
    return (
      now?.uid === uid &&
      now.generation === generation &&
      now.deletionTimestamp === undefined &&
      isDeepStrictEqual(now.annotations, annotations)
    );
  }

  async #observe(resource: IstioVaultCA, desired: Desired, signal: AbortSignal): Promise<Seen | { problem: Problem }> {
    const { namespace, name } = resource.metadata;
    const adapter = adapterFor(resource.spec.controlPlane.kind);
    const [vault, kubernetes] = await Promise.allSettled([
      this.#observeVault(resource, desired, signal),
      readKubernetes(this.#o.kube, resource, adapter),
    ]);
    if (kubernetes.status === 'rejected') return { problem: asProblem(kubernetes.reason, 'ControlPlanePatched') };
    if (vault.status === 'rejected') {
      const problem = asProblem(vault.reason, 'VaultReady');
      if (problem.reason === 'Forbidden') this.#o.sessions.refused(`${namespace}/${name}`);
      return { problem };
    }
    const { client, observed, kubernetesCa } = vault.value;
    if (observed.missingCapabilities.length > 0) this.#o.sessions.refused(`${namespace}/${name}`);
    const live = soundLive({ vault: observed });
    const fields = istiodFields(resource.spec, live && liveDigest(live));
    const judged = judgeKubernetes(kubernetes.value, resource, adapter, fields, kubernetesCa);
    return { client, adapter, raw: kubernetes.value, observed: { vault: observed, kubernetes: judged } };
  }

  async #observeVault(resource: IstioVaultCA, desired: Desired, signal: AbortSignal) {
    const { kube, metrics, sessions } = this.#o;
    const { spec } = resource;
    const request = await sessionRequest(kube, resource, (operation, code) => metrics.vaultRequest(operation, code));
    const client = await sessions.open(request).catch((error: unknown) => {
      throw loginProblem(error, resource) ?? error;
    });
    const health = await client.health(signal);
    assertServing(health, spec.vault.address);
    const observed = await observeVault(client, desired, health);
    return { client, observed, kubernetesCa: await this.#kubernetesCa(resource, desired, observed) };
  }

  /** Only read when the configuration of the auth mount is ours to write. */
  async #kubernetesCa(resource: IstioVaultCA, desired: Desired, vault: ObservedVault): Promise<string | undefined> {
    const { authMount } = vault;
    if (authMount && !isOwn(desired.identity, authMount.description)) return undefined;
    const { configMapRef } = resource.spec.kubernetesAuth.config.kubernetesCA;
    const field = 'spec.kubernetesAuth.config.kubernetesCA.configMapRef';
    return await readConfigMapKey(this.#o.kube, resource.metadata.namespace, configMapRef, field, 'AccessReady');
  }

  /** Carries out steps side by side; an event for each that was done, a problem for each that was not. */
  async #execute(resource: IstioVaultCA, desired: Desired, seen: Seen, steps: Step[]): Promise<Problem[]> {
    const results = await Promise.allSettled(steps.map((step) => this.#executeOne(resource, desired, seen, step)));
    return results.flatMap((result, i) => {
      const step = steps[i];
      if (!step) return [];
      const { event, message, action, target } = describeStep(step);
      if (result.status === 'fulfilled') {
        this.#o.logger.info(message, {
          namespace: resource.metadata.namespace,
          name: resource.metadata.name,
          step: step.kind,
          target,
        });
        this.#event(resource, 'Normal', event, action, message);
        return [];
      }
      return [asProblem(result.reason, conditionOfStep(step))];
    });
  }

  async #executeOne(resource: IstioVaultCA, desired: Desired, seen: Seen, step: Step): Promise<void> {
    const { namespace, name } = resource.metadata;
    const { revision } = resource.spec.controlPlane;
    const object = seen.raw.controlPlane;
    if (step.kind === 'ClaimControlPlane' || step.kind === 'PatchControlPlane') {
      if (!object) return;
      const fields = istiodFields(resource.spec, step.kind === 'PatchControlPlane' ? step.digest : undefined);
      const body =
        step.kind === 'ClaimControlPlane'
          ? annotationPatch(object, { [ownerAnnotation(revision)]: name })
          : seen.adapter.patch({ object, owner: name, revision, fields });
      await this.#o.kube.patchObject(seen.adapter.gvr, namespace, resource.spec.controlPlane.name, json(body), {
        type: 'merge',
        fieldManager,
      });
      return;
    }
    const reviewer = resource.spec.kubernetesAuth.config.tokenReviewer.secretRef;
    const context = {
      client: seen.client,
      desired,
      reviewerJwt: async () =>
        reviewer &&
        (await readSecretKey(
          this.#o.kube,
          namespace,
          reviewer,
          'spec.kubernetesAuth.config.tokenReviewer.secretRef',
          'AccessReady',
        )),
      notice: (reason: string, message: string) => this.#event(resource, 'Warning', reason, 'Sign', message),
    };
    await executeVaultStep(context, step, this.#o.clock.now());
  }

  #event(resource: IstioVaultCA, type: 'Normal' | 'Warning', reason: string, action: string, note: string): void {
    const { namespace, name, uid, resourceVersion } = resource.metadata;
    this.#o.events.record({
      regarding: { apiVersion: resource.apiVersion, kind: resource.kind, namespace, name, uid, resourceVersion },
      type,
      reason,
      action,
      note,
    });
  }

  /** Writes the status if it differs; an event when `Ready` has got another reason. */
  async #writeStatus(
    raw: JsonObject,
    resource: IstioVaultCA | undefined,
    status: Status,
    announce = true,
  ): Promise<void> {
    const metadata = raw['metadata'] as { namespace: string; name: string };
    const before = raw['status'];
    const next = json(status);
    if (isDeepStrictEqual(before, next)) return;
    const removed = Object.keys(isObjectLike(before) ? before : {}).filter((key) => !(key in next));
    const body = { status: { ...next, ...Object.fromEntries(removed.map((key) => [key, null])) } };
    await this.#o.kube.patchObject(resources, metadata.namespace, metadata.name, body, {
      type: 'merge',
      subresource: 'status',
      fieldManager,
    });
    raw['status'] = next;
    if (resource && announce) this.#announce(resource, status);
  }

  #announce(resource: IstioVaultCA, status: Status): void {
    const ready = status.conditions?.find((c) => c.type === 'Ready');
    const previous = resource.status?.conditions?.find((c) => c.type === 'Ready');
    if (!ready || (ready.reason === previous?.reason && ready.status === previous.status)) return;
    this.#event(resource, ready.status === 'False' ? 'Warning' : 'Normal', ready.reason, 'Reconcile', ready.message);
  }

  #measure(resource: IstioVaultCA, status: Status): void {
    const { namespace, name } = resource.metadata;
    const seconds = (time: string | undefined) => (time === undefined ? undefined : Date.parse(time) / 1000);
    this.#o.metrics.setRootNotAfter(namespace, name, seconds(status.root?.notAfter));
    this.#o.metrics.setIntermediateNotAfter(namespace, name, seconds(status.intermediate?.notAfter));
  }

  #outcome(round: Round, desired: Desired, now: number): Outcome {
    const transient = round.problems.find((p) => kindOf(p) === 'transient');
    if (transient) return { backoff: true, problem: transient };
    const waits = round.problems.filter((p) => kindOf(p) === 'waiting').map((p) => p.retryAfterMs ?? waitingMs);
    const due = round.observed && renewAt(desired, round.observed);
    const untilDue = due === undefined || due <= now ? [] : [due - now];
    return { requeueAfterMs: round.unfinished ? 0 : Math.min(this.#o.resyncMs, ...waits, ...untilDue) };
  }
}

interface Seen {
  client: VaultClient;
  adapter: ControlPlaneAdapter;
  raw: RawKubernetes;
  observed: Observed;
}

/** A problem, or the error itself when it is a bug. */
function asProblem(error: unknown, condition: StageCondition): Problem {
  const problem = toProblem(error, condition);
  if (!problem) throw error;
  return problem;
}

/** A refused login names role, service account and audience; other failures of the login speak for themselves. */
function loginProblem(error: unknown, resource: IstioVaultCA): ProblemError | undefined {
  const refused =
    error instanceof VaultError &&
    (error.kind === 'Forbidden' || error.kind === 'Invalid' || error.kind === 'NotFound');
  if (!refused) return undefined;
  const hint = loginHint(resource.spec, resource.metadata.namespace);
  return new ProblemError({
    condition: 'VaultReady',
    reason: 'LoginFailed',
    message: `Vault refused the login (${error.message}): ${hint}`,
    blocks: 'all',
    retryAfterMs: waitingMs,
  });
}

const isObjectLike = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;

/** A value as it goes over the wire: without undefined, and of a type the client takes. */
function json(value: object): Parameters<KubeClient['createObject']>[2] {
  return JSON.parse(JSON.stringify(value)) as Parameters<KubeClient['createObject']>[2];
}
