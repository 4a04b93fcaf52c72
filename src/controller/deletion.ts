/**
 * Deletion of a resource. With `deletionPolicy: Retain`, the resource has no finalizer and the operator sends no request to Vault. With
 * `Delete`, a finalizer blocks the deletion until the cleanup is complete or gives up.
 */
import { reasons } from '../api/conditions.ts';
import { z } from 'zod';
import { annotations as known, finalizer } from '../api/annotations.ts';
import { dig, type JsonObject } from '../api/json.ts';
import type { IstioVaultCA } from '../api/schema.ts';
import { isKubeError } from '../kube/errors.ts';
import { DerivedState } from '../plan/facts/derived.ts';
import type { Desired } from '../plan/facts/desired.ts';
import { internalError, kindOf, recheckAfterMs, type Problem } from '../plan/facts/problem.ts';
import { simulate } from '../plan/simulate.ts';
import { deletingStatus } from '../plan/status/status.ts';
import { describePlanned } from '../plan/step-table.ts';
import { mountsThatStay, possiblyLeft, cleanup } from '../plan/vault/cleanup.ts';
import { Deadline } from '../runtime/deadline.ts';
import { isTerminating, resources } from './observe-kubernetes.ts';
import type { Bounds, LoopResult, Outcome, ReconcilerOptions } from './outcome.ts';
import { plainJson, type Reporter } from './report.ts';
import type { ReconcileLoop } from './reconcile-loop.ts';

/** Time until a deletion is rechecked if its problem names no time, milliseconds. */
const recheckMs = reasons.Deleting.recheckMs;

/** The time that a cleanup has at least, although its deadline has passed, milliseconds: it is then known what is left. */
const leastCleanupMs = 5_000;

/** The metadata that the operator needs to remove the finalizer. */
const finalizerMetadata = z.object({
  namespace: z.string(),
  name: z.string(),
  deletionTimestamp: z.string().optional(),
  finalizers: z.array(z.string()).default([]),
});

/** Whether a deletion includes a cleanup. With `mode: Plan` the operator created nothing, and a suspended resource stays as it is. */
const includesCleanup = ({ spec }: IstioVaultCA): boolean =>
  spec.deletionPolicy === 'Delete' && spec.mode === 'Enforce' && !spec.suspend;

export type DeletionOptions = Pick<
  ReconcilerOptions,
  'kube' | 'logger' | 'clock' | 'addressAllowed' | 'deletionDeadlineMs'
>;

export class Deletion {
  readonly #o: DeletionOptions;
  readonly #report: Reporter;
  readonly #loop: Pick<ReconcileLoop, 'run'>;
  /** When this process first reconciled a deletion, by `namespace/name`, in milliseconds of the clock's `elapsed`. */
  readonly #begun = new Map<string, { uid: string; atMs: number }>();

  constructor(options: DeletionOptions, report: Reporter, loop: Pick<ReconcileLoop, 'run'>) {
    this.#o = options;
    this.#report = report;
    this.#loop = loop;
  }

  /**
   * Adds the finalizer to a resource that is not being deleted, before the operator creates anything for it, or removes it.
   * @param raw the resource as read, for its resourceVersion
   * @param refused the spec is refused: the operator creates nothing for it, so the finalizer is not added; an existing one stays
   * @throws KubeError
   */
  async hold(raw: JsonObject, resource: IstioVaultCA, refused: boolean): Promise<void> {
    const held = resource.metadata.finalizers.includes(finalizer);
    const needed = includesCleanup(resource) && (held || !refused);
    if (held !== needed) await this.#setFinalizer(raw, resource, needed);
  }

  /**
   * Removes the finalizer from a resource that is being deleted and whose spec is invalid: a cleanup is impossible, and the deletion must
   * not block.
   * @returns whether it removed the finalizer
   * @throws KubeError
   */
  async abandon(raw: JsonObject): Promise<boolean> {
    const metadata = z.object({ metadata: finalizerMetadata }).safeParse(raw).data?.metadata;
    if (metadata?.deletionTimestamp === undefined || !metadata.finalizers.includes(finalizer)) return false;
    const { namespace, name } = metadata;
    this.#o.logger.warn('CleanupIncomplete: gave up (the spec cannot be read); Vault is left as it is', {
      namespace,
      name,
    });
    await this.#setFinalizer(raw, { metadata }, false);
    return true;
  }

  /**
   * Reconciles a resource that is being deleted.
   * @returns when to reconcile again; `undefined`: the resource does not have the operator's finalizer (any more)
   * @throws KubeError
   */
  async reconcile(
    raw: JsonObject,
    resource: IstioVaultCA,
    desired: Desired,
    { stop, signal }: Bounds,
  ): Promise<Outcome | undefined> {
    if (!resource.metadata.finalizers.includes(finalizer)) return undefined;
    if (!includesCleanup(resource)) {
      await this.#setFinalizer(raw, resource, false);
      return undefined;
    }
    if (resource.metadata.annotations[known.skipCleanup] === 'true') {
      this.#incomplete(resource, `annotation ${known.skipCleanup}`, possiblyLeft(desired));
      await this.#setFinalizer(raw, resource, false);
      return undefined;
    }
    const deadline = this.#deadline(resource);
    const purpose = { next: cleanup, deleting: true, readOnly: false };
    const result: LoopResult = this.#o.addressAllowed(resource.spec.vault.address)
      ? await this.#untilItGivesUp(resource, deadline, signal, (bound) =>
          this.#loop.run(resource, desired, purpose, bound),
        ).catch((bug: unknown) => {
          // a bug is logged as an error, but must not block the deletion permanently
          const { namespace, name } = resource.metadata;
          this.#o.logger.error('deletion failed', { resource: `${namespace}/${name}`, err: bug });
          return { observed: undefined, problems: [internalError], unfinished: false };
        })
      : { observed: undefined, problems: [notAllowed], unfinished: false };
    if (stop.aborted) return { requeueAfterMs: recheckMs };
    if (result.observed && result.problems.length === 0 && !result.unfinished) {
      this.#reportKeptMounts(resource, desired, result);
      await this.#setFinalizer(raw, resource, false);
      return undefined;
    }
    const reason = await this.#reasonToGiveUp(resource, deadline);
    if (reason !== undefined) {
      this.#incomplete(resource, reason, this.#remaining(desired, result), result.problems[0]);
      await this.#setFinalizer(raw, resource, false);
      return undefined;
    }
    return await this.#reportProblem(raw, resource, result, deadline);
  }

  /**
   * Reports owned mounts that the cleanup keeps. The root mount stays unless its deletion was confirmed by annotation. A mount that stays
   * because it holds objects of others is a warning.
   */
  #reportKeptMounts(resource: IstioVaultCA, desired: Desired, { observed }: LoopResult): void {
    if (!observed) return;
    const { root, intermediate } = mountsThatStay(new DerivedState(desired, observed, this.#o.clock.now()));
    if (intermediate !== undefined) this.#incomplete(resource, 'the intermediate', [intermediate]);
    if (root === undefined) return;
    if (known.confirmDeleteRoot in resource.metadata.annotations) this.#incomplete(resource, 'the root', [root]);
    else this.#report.event(resource, 'Normal', 'RootKept', 'Delete', root);
  }

  /** Writes the problem that the cleanup waits for to the status. @returns when to reconcile again, at the latest at the deadline */
  async #reportProblem(
    raw: JsonObject,
    resource: IstioVaultCA,
    { problems }: LoopResult,
    deadline: number,
  ): Promise<Outcome> {
    const [problem] = problems;
    if (!problem) return { requeueAfterMs: 0 };
    const { clock } = this.#o;
    await this.#report.status(raw, resource, deletingStatus(resource, problem, clock.now()));
    if (kindOf(problem) === 'transient') return { backoff: true, problem };
    const untilDeadline = deadline - clock.elapsed();
    return { requeueAfterMs: Math.max(0, Math.min(recheckAfterMs(problem) ?? recheckMs, untilDeadline)) };
  }

  /**
   * Returns when to give up the cleanup, in milliseconds of the clock's `elapsed`. The time counts from the first reconcile of this
   * process. If it counted from `deletionTimestamp`, the clock of the API server or operator downtime could shorten the cleanup.
   */
  #deadline({ metadata }: IstioVaultCA): number {
    const key = keyOf(metadata);
    const recorded = this.#begun.get(key);
    const begun = recorded?.uid === metadata.uid ? recorded : { uid: metadata.uid, atMs: this.#o.clock.elapsed() };
    this.#begun.set(key, begun);
    return begun.atMs + this.#o.deletionDeadlineMs;
  }

  /** Removes the record of a deleted resource. @param key `namespace/name` */
  forget(key: string): void {
    this.#begun.delete(key);
  }

  /**
   * Runs a cleanup with a signal that aborts when the cleanup is to give up: at the deadline, or when the namespace is being deleted. A
   * server that does not answer must not hold the resource longer.
   * @param signal aborts the cleanup too
   */
  async #untilItGivesUp<T>(
    { metadata }: IstioVaultCA,
    deadline: number,
    signal: AbortSignal,
    run: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { clock, kube, logger } = this.#o;
    const limit = new Deadline(clock, Math.max(leastCleanupMs, deadline - clock.elapsed()));
    const terminating = new AbortController();
    let over = false;
    const again = (): void => {
      if (!over) timer = clock.setTimeout(recheck, recheckMs);
    };
    const recheck = (): void => {
      isTerminating(kube, metadata.namespace).then(
        (yes) => {
          if (yes) terminating.abort(new Error('the namespace is being deleted'));
          else again();
        },
        (error: unknown) => {
          logger.warn('cannot see whether the namespace is being deleted', {
            namespace: metadata.namespace,
            err: error,
          });
          again();
        },
      );
    };
    let timer = clock.setTimeout(recheck, recheckMs);
    try {
      return await run(AbortSignal.any([signal, limit.signal, terminating.signal]));
    } finally {
      over = true;
      timer.cancel();
      limit.dispose();
    }
  }

  /** Returns why the cleanup gives up now; `undefined`: it continues. @throws KubeError */
  async #reasonToGiveUp(resource: IstioVaultCA, deadline: number): Promise<string | undefined> {
    if (this.#o.clock.elapsed() >= deadline) return 'the deletion deadline has passed';
    const terminating = await isTerminating(this.#o.kube, resource.metadata.namespace);
    return terminating ? 'the namespace is being deleted' : undefined;
  }

  /**
   * Returns the objects that the cleanup leaves behind: those of its remaining steps or, without a complete observation, all that can
   * exist.
   */
  #remaining(desired: Desired, { observed }: LoopResult): string[] {
    if (!observed || observed.vault.missingCapabilities.length > 0) return possiblyLeft(desired);
    const unused = { ...observed, kubernetes: { ...observed.kubernetes, istiodUses: [] } };
    const steps = simulate(desired, unused, (o) => cleanup(desired, o, this.#o.clock.now()), this.#o.clock.now());
    return steps.map((step) => describePlanned(step).target);
  }

  /** Reports an incomplete cleanup in the log and as an Event. */
  #incomplete(resource: IstioVaultCA, why: string, remaining: string[], problem?: Problem): void {
    const because = problem ? ` (${problem.reason}: ${problem.message})` : '';
    const note = `gave up (${why})${because}; left as it is: ${remaining.join(', ')}`;
    const { namespace, name } = resource.metadata;
    this.#o.logger.warn(`CleanupIncomplete: ${note}`, { namespace, name });
    this.#report.event(resource, 'Warning', 'CleanupIncomplete', 'Delete', note);
  }

  /** Adds or removes the finalizer. The resourceVersion guards the write, because it replaces the whole list. @throws KubeError */
  async #setFinalizer(
    raw: JsonObject,
    resource: { metadata: z.output<typeof finalizerMetadata> },
    held: boolean,
  ): Promise<void> {
    const { namespace, name } = resource.metadata;
    const others = resource.metadata.finalizers.filter((one) => one !== finalizer);
    const finalizers = held ? [...others, finalizer] : others;
    const body = plainJson({ metadata: { resourceVersion: dig(raw, 'metadata', 'resourceVersion'), finalizers } });
    try {
      await this.#o.kube.patchObject(resources, namespace, name, body, { type: 'merge' });
    } catch (error) {
      if (!isKubeError(error, 'NotFound')) throw error; // the resource does not exist any more
    }
    if (!held) this.forget(keyOf(resource.metadata));
  }
}

const keyOf = ({ namespace, name }: { namespace: string; name: string }): string => `${namespace}/${name}`;

const notAllowed: Problem = {
  condition: 'VaultReady',
  reason: 'AddressNotAllowed',
  message: "spec.vault.address is not on the operator's list (--vault-addresses)",
  blocks: 'all',
};
