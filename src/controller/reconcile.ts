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
import { own, type Observed, type ObservedVault } from '../plan/observed.ts';
import { checkSpec, plan } from '../plan/plan.ts';
import { kindOf, type Problem } from '../plan/problem.ts';
import { renewAt, startingStatus, statusOf, suspendedStatus } from '../plan/status.ts';
import { conditionOfStep, describeStep, type Step } from '../plan/steps.ts';
import type { Clock } from '../runtime/clock.ts';
import { VaultClient } from '../vault/client.ts';
import { executeVaultStep } from '../vault/execute.ts';
import { VaultObserver } from '../vault/observe.ts';
import type { Sessions } from '../vault/sessions.ts';
import { loginProblem, readConfigMapKey, readSecretKey, sessionRequest } from './connection.ts';
import { invalidSpecStatus } from './invalid-spec.ts';
import { judgeKubernetes, readGates, readSurroundings, resources, type Surroundings } from './observe-kubernetes.ts';
import { toProblem } from './problems.ts';
import { plainJson, Reporter } from './report.ts';

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

const internalError: Problem = {
  condition: 'VaultReady',
  reason: 'InternalError',
  message: 'something unexpected; the operator’s log says what ("reconcile failed"), and it tries again',
  blocks: 'all',
};

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
  readonly #report: Reporter;

  constructor(options: ReconcilerOptions) {
    this.#o = options;
    this.#report = new Reporter(options.kube, options.events, options.logger);
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
      await this.#report.status(raw, undefined, invalidSpecStatus(raw, parsed.error, this.#o.clock.now()));
      return { requeueAfterMs: this.#o.resyncMs };
    }
    const resource = parsed.data;
    if (resource.metadata.deletionTimestamp !== undefined) {
      this.#o.sessions.release(key);
      return { requeueAfterMs: this.#o.resyncMs };
    }
    if (resource.spec.suspend) {
      this.#o.sessions.release(key);
      await this.#report.status(raw, resource, suspendedStatus(resource, this.#o.clock.now()));
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
      await this.#report.status(raw, resource, startingStatus(input(undefined, [])), false);
    }
    const refused = [...this.#addressProblem(resource), ...checkSpec(desired, this.#o.leaderElection)];
    if (refused.length > 0) this.#o.sessions.release(`${namespace}/${name}`);
    const round =
      refused.length > 0
        ? { observed: undefined, problems: refused, unfinished: false }
        : await this.#rounds(resource, desired, signal).catch(async (bug: unknown) => {
            await this.#report.status(raw, resource, statusOf(input(undefined, [internalError])));
            throw bug;
          });
    // what a stop has cut short says nothing about the resource
    if (signal.aborted) return { requeueAfterMs: this.#o.resyncMs };
    const status = statusOf(input(round.observed, round.problems));
    await this.#report.status(raw, resource, status);
    this.#measure(resource, status);
    return this.#outcome(round, desired, clock.now());
  }

  #addressProblem(resource: IstioVaultCA): Problem[] {
    const { address } = resource.spec.vault;
    if (this.#o.addressAllowed(address)) return [];
    const message = `spec.vault.address ${address} is not on the operator's list (--vault-addresses); use one that is, or have it added`;
    return [{ condition: 'VaultReady', reason: 'AddressNotAllowed', message, blocks: 'all' }];
  }

  /** Rounds of reading, planning and writing. What a server did is a problem of the result, never thrown. */
  async #rounds(resource: IstioVaultCA, desired: Desired, signal: AbortSignal): Promise<Round> {
    const ended = (problem: Problem): Round => ({ observed: undefined, problems: [problem], unfinished: false });
    const client = await this.#connect(resource).catch((error: unknown) => asProblem(error, 'VaultReady'));
    if (!(client instanceof VaultClient)) return ended(client);
    const surroundings = await readSurroundings(this.#o.kube, resource).catch((error: unknown) =>
      asProblem(error, 'ControlPlanePatched'),
    );
    if (!('siblings' in surroundings)) return ended(surroundings);
    const context: Context = { resource, desired, client, surroundings, vault: new VaultObserver(client, desired) };
    let last: Round = { observed: undefined, problems: [], unfinished: true };
    let since: Step[] | undefined;
    let conflicts = 0;
    const done = new Set<string>();
    for (let round = 0; round < maxRounds && !signal.aborted; round += 1) {
      const seen = await this.#observe(context, since, signal);
      if ('problem' in seen) return { observed: last.observed, problems: [seen.problem], unfinished: false };
      const { problems, steps } = plan(desired, seen.observed, this.#o.clock.now());
      last = { observed: seen.observed, problems, unfinished: steps.length > 0 };
      if (steps.length === 0 || !seen.stillAsked) return last;
      const repeated = steps.find((step) => done.has(JSON.stringify(step)));
      if (repeated) return { ...last, problems: [withoutEffect(repeated), ...problems], unfinished: false };
      const failures = await this.#execute(context, seen, steps);
      since = failures.length === 0 ? steps : undefined;
      for (const step of failures.length === 0 ? steps : []) done.add(JSON.stringify(step));
      if (failures.length === 0) continue;
      // somebody was faster: look again and decide anew, but not for ever
      if (failures.every((p) => p.reason === 'Conflict') && (conflicts += 1) < 4) continue;
      return { observed: seen.observed, problems: [...failures, ...problems], unfinished: false };
    }
    return last;
  }

  /** The spec that is carried out must still be the one that stands. */
  async #stillAsked(resource: IstioVaultCA, signal: AbortSignal): Promise<boolean> {
    const { namespace, name, uid, generation, annotations } = resource.metadata;
    const found = await this.#o.kube.getObject(resources, namespace, name, { signal });
    const now = resourceSchema.safeParse(found).data?.metadata;
    return (
      now?.uid === uid &&
      now.generation === generation &&
      now.deletionTimestamp === undefined &&
      isDeepStrictEqual(now.annotations, annotations)
    );
  }

  async #connect(resource: IstioVaultCA): Promise<VaultClient> {
    const { kube, metrics, sessions } = this.#o;
    const request = await sessionRequest(kube, resource, (operation, code) => metrics.vaultRequest(operation, code));
    return await sessions.open(request).catch((error: unknown) => {
      throw loginProblem(error, resource) ?? error;
    });
  }

  /** @param since the steps since the last observation; undefined reads everything */
  async #observe(
    context: Context,
    since: Step[] | undefined,
    signal: AbortSignal,
  ): Promise<Seen | { problem: Problem }> {
    const { resource, desired, surroundings } = context;
    const user = `${resource.metadata.namespace}/${resource.metadata.name}`;
    const adapter = adapterFor(resource.spec.controlPlane.kind);
    const [vault, cluster] = await Promise.allSettled([
      context.vault.observe(since).then(async (observed) => ({
        observed,
        kubernetesCa: await this.#kubernetesCa(resource, desired, observed),
      })),
      Promise.all([readGates(this.#o.kube, resource, adapter), this.#stillAsked(resource, signal)]),
    ]);
    if (cluster.status === 'rejected') return { problem: asProblem(cluster.reason, 'ControlPlanePatched') };
    if (vault.status === 'rejected') {
      const problem = asProblem(vault.reason, 'VaultReady');
      if (problem.reason === 'Forbidden') this.#o.sessions.refused(user);
      return { problem };
    }
    const { observed, kubernetesCa } = vault.value;
    if (observed.missingCapabilities.length > 0) this.#o.sessions.refused(user);
    const [gates, stillAsked] = cluster.value;
    const live = soundLive(desired, { vault: observed });
    const fields = istiodFields(resource.spec, live && liveDigest(live));
    const kubernetes = judgeKubernetes(surroundings, gates, resource, adapter, fields, kubernetesCa);
    return { adapter, object: gates.controlPlane, stillAsked, observed: { vault: observed, kubernetes } };
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
  async #execute(context: Context, seen: Seen, steps: Step[]): Promise<Problem[]> {
    const results = await Promise.allSettled(steps.map((step) => this.#executeAndTell(context, seen, step)));
    return results.flatMap((result, i) => {
      const step = steps[i];
      return result.status === 'rejected' && step ? [asProblem(result.reason, conditionOfStep(step))] : [];
    });
  }

  async #executeAndTell(context: Context, seen: Seen, step: Step): Promise<void> {
    await this.#executeOne(context, seen, step);
    const { vault, kubernetes } = seen.observed;
    const issued = own(vault.state)?.intermediate?.fingerprint !== undefined;
    const again = step.kind === 'PatchControlPlane' ? kubernetes.controlPlane?.writtenBefore : issued;
    const { event, message, action, target } = describeStep(step, again);
    const { namespace, name } = context.resource.metadata;
    this.#o.logger.info(message, { namespace, name, step: step.kind, target });
    this.#report.event(context.resource, 'Normal', event, action, message);
  }

  async #executeOne({ resource, desired, client }: Context, seen: Seen, step: Step): Promise<void> {
    const { namespace, name } = resource.metadata;
    const { revision } = resource.spec.controlPlane;
    const { object } = seen;
    if (step.kind === 'ClaimControlPlane' || step.kind === 'PatchControlPlane') {
      if (!object) return;
      const fields = istiodFields(resource.spec, step.kind === 'PatchControlPlane' ? step.digest : undefined);
      const body =
        step.kind === 'ClaimControlPlane'
          ? annotationPatch(object, { [ownerAnnotation(revision)]: name })
          : seen.adapter.patch({ object, revision, fields });
      await this.#o.kube.patchObject(seen.adapter.gvr, namespace, resource.spec.controlPlane.name, plainJson(body), {
        type: 'merge',
        fieldManager,
      });
      return;
    }
    const reviewer = resource.spec.kubernetesAuth.config.tokenReviewer.secretRef;
    const context = {
      client,
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
      notice: (reason: string, message: string) => this.#report.event(resource, 'Warning', reason, 'Sign', message),
    };
    await executeVaultStep(context, step);
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

/** What one reconcile works with. */
interface Context {
  resource: IstioVaultCA;
  desired: Desired;
  client: VaultClient;
  surroundings: Surroundings;
  vault: VaultObserver;
}

/** One look. */
interface Seen {
  adapter: ControlPlaneAdapter;
  /** The control plane as it was when looked at: a patch names its resourceVersion. */
  object: JsonObject | undefined;
  /** The resource has not changed since this reconcile began. */
  stillAsked: boolean;
  observed: Observed;
}

/** A step that Vault accepted and that changed nothing: it is not repeated at once, and it is said so. */
function withoutEffect(step: Step): Problem {
  const message = `${describeStep(step).message}, but nothing of it is to be seen; somebody else changes it back, or Vault took it for something else`;
  return { condition: conditionOfStep(step), reason: 'VaultError', message, blocks: 'nothing' };
}

/** A problem, or the error itself when it is a bug. */
function asProblem(error: unknown, condition: StageCondition): Problem {
  const problem = toProblem(error, condition);
  if (!problem) throw error;
  return problem;
}
