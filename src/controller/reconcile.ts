/** One reconcile of a resource: parse it, hold or release it, run the loop, then write one status. */
import { istiodPhases, type IstiodPhase } from '../api/istiod.ts';
import type { JsonObject } from '../api/json.ts';
import { resourceSchema, type IstioVaultCA } from '../api/schema.ts';
import type { Status } from '../api/status-schema.ts';
import { desire, type Desired } from '../plan/facts/desired.ts';
import { DerivedState } from '../plan/facts/derived.ts';
import { recheckIn } from '../plan/proof/ready.ts';
import { ownEntry, type Observed } from '../plan/facts/observed.ts';
import type { IstiodPod } from '../plan/facts/observed-istiod.ts';
import { plan } from '../plan/plan.ts';
import { internalError, kindOf, recheckAfterMs, type Problem } from '../plan/facts/problem.ts';
import { describeForeignRoles } from '../plan/vault/foreign-roles.ts';
import { outsideDueAt } from '../plan/vault/outside-root-checks.ts';
import { othersDueAt } from '../plan/vault/unmanaged-ca.ts';
import { listsDueAt } from '../plan/vault/revocation-lists.ts';
import { describeStaleStandby } from '../plan/vault/stale-standby.ts';
import { rotationDue } from '../plan/rotation/rotation.ts';
import { Deadline } from '../runtime/deadline.ts';
import { deletingStatus, startingStatus, statusOf, suspendedStatus } from '../plan/status/status.ts';
import { Deletion } from './deletion.ts';
import { refusals, simulatedSteps } from './dry-run.ts';
import { invalidSpecStatus } from './invalid-spec.ts';
import { resources } from './observe-kubernetes.ts';
import { Reporter } from './report.ts';
import { asProblem } from './problems.ts';
import type { Bounds, LoopResult, Outcome, ReconcilerOptions } from './outcome.ts';
import { ReconcileLoop } from './reconcile-loop.ts';

/**
 * Delay before a reconcile that ended with steps left is continued, milliseconds. A Vault that never shows what was written would otherwise
 * keep a place busy for ever.
 */
const unfinishedMs = 5_000;

export class Reconciler {
  readonly #o: ReconcilerOptions;
  readonly #report: Reporter;
  readonly #loop: ReconcileLoop;
  readonly #deletion: Deletion;
  /** The roles of others that were reported last, as text, by `namespace/name`. */
  readonly #foreignRoles = new Map<string, string>();
  /** The last warning of a standby with older data, by resource. */
  readonly #staleStandbys = new Map<string, string>();
  /** Ends the running reconcile of a resource, by `namespace/name`. */
  readonly #interruptions = new Map<string, AbortController>();

  constructor(options: ReconcilerOptions) {
    this.#o = options;
    this.#report = new Reporter(options.kube, options.events, options.logger);
    this.#loop = new ReconcileLoop(options, this.#report);
    this.#deletion = new Deletion(options, this.#report, this.#loop);
  }

  /**
   * Reconciles a resource.
   * @param key `namespace/name`
   * @param stop aborts when the operator stops
   */
  async reconcile(key: string, stop: AbortSignal): Promise<Outcome> {
    const limit = new Deadline(this.#o.clock, this.#o.reconcileTimeoutMs);
    const interruption = new AbortController();
    this.#interruptions.set(key, interruption);
    const stops = AbortSignal.any([stop, interruption.signal]);
    try {
      return await this.#reconcile(key, { stop: stops, signal: AbortSignal.any([stops, limit.signal]) });
    } finally {
      this.#interruptions.delete(key);
      limit.dispose();
    }
  }

  /**
   * Ends the running reconcile of a resource that is being deleted, unless it is that of the deletion: the deletion must not wait for a
   * server that does not answer.
   */
  interrupt(key: string): void {
    this.#interruptions.get(key)?.abort(new Error('the resource is being deleted'));
  }

  /**
   * Whether the last decision about a resource was made on this version of its control plane object.
   * @param key `namespace/name` of the resource
   * @param object undefined: it does not exist
   */
  hasSeen(key: string, object: unknown): boolean {
    return this.#loop.hasSeen(key, object);
  }

  async #reconcile(key: string, bounds: Bounds): Promise<Outcome> {
    const { signal } = bounds;
    const [namespace = '', name = ''] = key.split('/');
    const raw = await this.#o.kube.getObject(resources, namespace, name, { signal });
    if (raw === undefined) {
      this.#o.sessions.forget(key);
      this.#o.istiod.forget(key);
      this.#o.conflicts.forget(key);
      this.#loop.forget(key);
      this.#deletion.forget(key);
      this.#foreignRoles.delete(key);
      this.#staleStandbys.delete(key);
      this.#o.metrics.forgetResource(namespace, name);
      return { requeueAfterMs: this.#o.resyncMs };
    }
    const parsed = resourceSchema.safeParse(raw);
    if (!parsed.success) {
      if (await this.#deletion.abandon(raw)) return { requeueAfterMs: this.#o.resyncMs };
      await this.#report.status(raw, undefined, invalidSpecStatus(raw, parsed.error, this.#o.clock.now()));
      return { requeueAfterMs: this.#o.resyncMs };
    }
    const resource = parsed.data;
    if (resource.metadata.deletionTimestamp !== undefined) {
      this.#interruptions.delete(key);
      const waits = await this.#deletion
        .reconcile(raw, resource, this.#desire(resource), bounds)
        .catch((error: unknown) =>
          this.#failed(error, (problem) =>
            this.#report.status(raw, resource, deletingStatus(resource, problem, this.#o.clock.now())),
          ),
        );
      if (waits) return waits;
      this.#o.sessions.release(key);
      return { requeueAfterMs: this.#o.resyncMs };
    }
    const refused = refusals(resource, this.#desire(resource), this.#o);
    const failed = await this.#deletion.hold(raw, resource, refused.length > 0).catch((error: unknown) =>
      this.#failed(error, (problem) => {
        const input = { resource, desired: this.#desire(resource), observed: undefined, now: this.#o.clock.now() };
        return this.#report.status(raw, resource, statusOf({ ...input, problems: [problem] }));
      }),
    );
    if (failed) return failed;
    if (resource.spec.suspend) {
      this.#o.sessions.release(key);
      await this.#report.status(raw, resource, suspendedStatus(resource, this.#o.clock.now()));
      return { requeueAfterMs: this.#o.resyncMs };
    }
    return await this.#converge(raw, resource, refused, bounds);
  }

  async #converge(
    raw: JsonObject,
    resource: IstioVaultCA,
    refused: Problem[],
    { stop, signal }: Bounds,
  ): Promise<Outcome> {
    const { clock } = this.#o;
    const { namespace, name } = resource.metadata;
    const desired = this.#desire(resource);
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
    if (refused.length > 0) this.#o.sessions.release(`${namespace}/${name}`);
    const result =
      refused.length > 0
        ? { observed: undefined, problems: refused, unfinished: false }
        : await this.#converging(resource, desired, signal).catch(async (bug: unknown) => {
            await this.#report.status(raw, resource, statusOf(input(undefined, [internalError])));
            throw bug;
          });
    // what a stop has cut short says nothing about the resource
    if (stop.aborted) return { requeueAfterMs: this.#o.resyncMs };
    const pending = this.#pending(resource, desired, result);
    const status = statusOf({ ...input(result.observed, result.problems), ...(pending ? { pending } : {}) });
    await this.#report.status(raw, resource, status);
    this.#warn(resource, desired, result.observed);
    this.#measure(resource, status, result.observed);
    return this.#outcome(result, desired, clock.now());
  }

  /**
   * Returns the outcome of a write of the finalizer that failed. Most failures pass within seconds and are only logged; a missing permission
   * also appears in the status.
   * @throws what is a bug
   */
  async #failed(error: unknown, show: (problem: Problem) => Promise<void>): Promise<Outcome> {
    const problem = asProblem(error, 'ControlPlanePatched');
    if (problem.reason !== 'Forbidden') return { backoff: true, problem };
    await show(problem);
    return { requeueAfterMs: recheckAfterMs(problem) ?? this.#o.resyncMs };
  }

  #desire({ metadata, spec }: IstioVaultCA): Desired {
    const { namespace, name, uid, annotations } = metadata;
    return desire({ cluster: this.#o.clusterUid, namespace, name, uid }, spec, annotations, this.#o.crlLeadMs);
  }

  async #converging(resource: IstioVaultCA, desired: Desired, signal: AbortSignal): Promise<LoopResult> {
    const readOnly = resource.spec.mode === 'Plan';
    return await this.#loop.run(resource, desired, { next: plan, deleting: false, readOnly: readOnly }, signal);
  }

  /** With `mode: Plan` the steps that would follow from what was seen. */
  #pending({ spec }: IstioVaultCA, desired: Desired, result: LoopResult) {
    return spec.mode === 'Plan' && result.observed ? simulatedSteps(desired, result, this.#o.clock.now()) : undefined;
  }

  /** Reports what no condition shows: roles that somebody else made in the PKI mounts, and standbys with older data. */
  #warn(resource: IstioVaultCA, desired: Desired, observed: Observed | undefined): void {
    if (!observed) return;
    const key = `${resource.metadata.namespace}/${resource.metadata.name}`;
    const s = new DerivedState(desired, observed, this.#o.clock.now());
    const standby = describeStaleStandby(s);
    // the next connection can reach another node, and the one after it this one again
    if (standby !== undefined && this.#staleStandbys.get(key) !== standby) {
      this.#staleStandbys.set(key, standby);
      this.#warning(resource, 'StaleStandby', standby);
    }
    if (observed.vault.missingCapabilities.length > 0) return;
    const roles = describeForeignRoles(s);
    const before = this.#foreignRoles.get(key);
    if (roles === undefined) this.#foreignRoles.delete(key);
    else this.#foreignRoles.set(key, roles);
    if (roles !== undefined && roles !== before) this.#warning(resource, 'ForeignRole', roles);
  }

  #warning(resource: IstioVaultCA, reason: string, text: string): void {
    const { namespace, name } = resource.metadata;
    this.#o.logger.warn(`${reason}: ${text}`, { namespace, name });
    this.#report.event(resource, 'Warning', reason, 'Check', text);
  }

  #measure(resource: IstioVaultCA, status: Status, observed: Observed | undefined): void {
    const { namespace, name } = resource.metadata;
    const { metrics } = this.#o;
    const seconds = (time: string | undefined) => (time === undefined ? undefined : Date.parse(time) / 1000);
    metrics.setRootNotAfter(namespace, name, seconds(status.root?.notAfter));
    metrics.setIntermediateNotAfter(namespace, name, seconds(status.intermediate?.notAfter));
    const csr = observed && ownEntry(observed.vault.staging)?.csr;
    metrics.setSignatureRequested(namespace, name, status.csr === undefined ? undefined : seconds(csr?.madeAt));
    const phases = (status.istiod ?? []).map(({ phase }) => phase);
    const count = (phase: IstiodPhase) => phases.filter((one) => one === phase).length;
    metrics.setIstiodReplicas(namespace, name, Object.fromEntries(istiodPhases.map((one) => [one, count(one)])));
    metrics.setSelfSignedFallback(namespace, name, phases.includes('SelfSignedFallback'));
    if (observed?.kubernetes.istiod)
      metrics.setIstiodNotAfter(namespace, name, servedUntil(observed.kubernetes.istiod.pods));
  }

  #outcome(result: LoopResult, desired: Desired, now: number): Outcome {
    const transient = result.problems.find((p) => kindOf(p) === 'transient');
    if (transient) return { backoff: true, problem: transient };
    const waits = result.problems.map(recheckAfterMs).filter((ms) => ms !== undefined);
    const s = result.observed && new DerivedState(desired, result.observed, now);
    const next = [
      s?.renewAt,
      s && rotationDue(s),
      s && outsideDueAt(s),
      s && othersDueAt(s),
      ...(s ? listsDueAt(s) : []),
    ];
    const untilDue = next.filter((at) => at !== undefined && at > now).map((at) => (at ?? now) - now);
    const look = s && recheckIn(s);
    const again = result.unfinished && desired.spec.mode === 'Enforce';
    return {
      requeueAfterMs: again ? unfinishedMs : Math.min(this.#o.resyncMs, look ?? Infinity, ...waits, ...untilDue),
    };
  }
}

/** When the first certificate of what each replica serves ends, in seconds since the epoch, by pod. */
function servedUntil(pods: readonly IstiodPod[]): Map<string, number> {
  return new Map(
    pods.flatMap(({ name, served }) =>
      served && 'leaf' in served
        ? [[name, Math.min(...[served.leaf, ...served.chain].map(({ notAfter }) => notAfter)) / 1000] as const]
        : [],
    ),
  );
}
