/**
 * The end of a resource. With `Retain` nothing holds it, and nothing is asked of Vault. With `Delete` a finalizer holds it until what it
 * made is gone, or until that was tried long enough.
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
import { isTerminating, resources } from './observe-kubernetes.ts';
import type { LoopResult, Outcome, ReconcilerOptions } from './outcome.ts';
import { plainJson, type Reporter } from './report.ts';
import type { ReconcileLoop } from './reconcile-loop.ts';

/** How soon a deletion that cannot be told anything of is looked at again, milliseconds. */
const recheckMs = reasons.Deleting.recheckMs;

/** What must be readable of a resource to take the finalizer off. */
const heldMetadata = z.object({
  namespace: z.string(),
  name: z.string(),
  deletionTimestamp: z.string().optional(),
  finalizers: z.array(z.string()).default([]),
});

/** Whether deletion has anything to do: nothing was made in `Plan`, and a suspended resource is left as it is. */
const wantsCleanup = ({ spec }: IstioVaultCA): boolean =>
  spec.deletionPolicy === 'Delete' && spec.mode === 'Enforce' && !spec.suspend;

export type DeletionOptions = Pick<
  ReconcilerOptions,
  'kube' | 'logger' | 'clock' | 'addressAllowed' | 'deletionDeadlineMs'
>;

export class Deletion {
  readonly #o: DeletionOptions;
  readonly #report: Reporter;
  readonly #rounds: Pick<ReconcileLoop, 'run'>;
  /** When this process first looked at a deletion, by resource, in milliseconds of the clock's `elapsed`. */
  readonly #begun = new Map<string, { uid: string; atMs: number }>();

  constructor(options: DeletionOptions, report: Reporter, rounds: Pick<ReconcileLoop, 'run'>) {
    this.#o = options;
    this.#report = report;
    this.#rounds = rounds;
  }

  /**
   * Puts the finalizer on a living resource, before anything is made for it, or takes it off.
   * @param refused nothing is made for such a spec; what was made for an earlier one stays held
   * @throws KubeError
   */
  async hold(raw: JsonObject, resource: IstioVaultCA, refused: boolean): Promise<void> {
    const held = resource.metadata.finalizers.includes(finalizer);
    const wanted = wantsCleanup(resource) && (held || !refused);
    if (held !== wanted) await this.#setFinalizer(raw, resource, wanted);
  }

  /**
   * A resource that is being deleted and whose spec cannot be read: nothing can be cleaned up after it, and nothing shall hold it.
   * @returns whether it was one
   * @throws KubeError
   */
  async abandon(raw: JsonObject): Promise<boolean> {
    const metadata = z.object({ metadata: heldMetadata }).safeParse(raw).data?.metadata;
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
   * One look at a resource that is being deleted.
   * @returns when to look again; undefined: nothing of ours holds it any more
   * @throws KubeError
   */
  async reconcile(
    raw: JsonObject,
    resource: IstioVaultCA,
    desired: Desired,
    signal: AbortSignal,
  ): Promise<Outcome | undefined> {
    if (!resource.metadata.finalizers.includes(finalizer)) return undefined;
    if (!wantsCleanup(resource)) {
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
    const round: LoopResult = this.#o.addressAllowed(resource.spec.vault.address)
      ? await this.#rounds.run(resource, desired, purpose, signal).catch((bug: unknown) => {
          // loud, but no reason to hold the resource for ever
          const { namespace, name } = resource.metadata;
          this.#o.logger.error('deletion failed', { resource: `${namespace}/${name}`, err: bug });
          return { observed: undefined, problems: [internalError], unfinished: false };
        })
      : { observed: undefined, problems: [notAllowed], unfinished: false };
    if (signal.aborted) return { requeueAfterMs: recheckMs };
    if (round.observed && round.problems.length === 0 && !round.unfinished) {
      this.#tellWhatStays(resource, desired, round);
      await this.#setFinalizer(raw, resource, false);
      return undefined;
    }
    const reason = await this.#reasonToGiveUp(resource, deadline);
    if (reason !== undefined) {
      this.#incomplete(resource, reason, this.#left(desired, round), round.problems[0]);
      await this.#setFinalizer(raw, resource, false);
      return undefined;
    }
    return await this.#waits(raw, resource, round, deadline);
  }

  /** Mounts of ours that stay: the root's unless it was confirmed; what foreign things keep there is worth a warning. */
  #tellWhatStays(resource: IstioVaultCA, desired: Desired, { observed }: LoopResult): void {
    if (!observed) return;
    const { root, intermediate } = mountsThatStay(new DerivedState(desired, observed, this.#o.clock.now()));
    if (intermediate !== undefined) this.#incomplete(resource, 'the intermediate', [intermediate]);
    if (root === undefined) return;
    if (known.confirmDeleteRoot in resource.metadata.annotations) this.#incomplete(resource, 'the root', [root]);
    else this.#report.event(resource, 'Normal', 'RootKept', 'Delete', root);
  }

  async #waits(raw: JsonObject, resource: IstioVaultCA, { problems }: LoopResult, deadline: number): Promise<Outcome> {
    const [problem] = problems;
    if (!problem) return { requeueAfterMs: 0 };
    const { clock } = this.#o;
    await this.#report.status(raw, resource, deletingStatus(resource, problem, clock.now()));
    if (kindOf(problem) === 'transient') return { backoff: true, problem };
    const left = deadline - clock.elapsed();
    return { requeueAfterMs: Math.max(0, Math.min(recheckAfterMs(problem) ?? recheckMs, left)) };
  }

  /**
   * When to give up, by the clock's `elapsed`. Counted from the first look of this process and not from `deletionTimestamp`: neither the API
   * server's clock nor a time in which no operator ran may shorten the cleanup.
   */
  #deadline({ metadata }: IstioVaultCA): number {
    const key = keyOf(metadata);
    const before = this.#begun.get(key);
    const begun = before?.uid === metadata.uid ? before : { uid: metadata.uid, atMs: this.#o.clock.elapsed() };
    this.#begun.set(key, begun);
    return begun.atMs + this.#o.deletionDeadlineMs;
  }

  /** A resource that is gone. @param key `namespace/name` */
  forget(key: string): void {
    this.#begun.delete(key);
  }

  async #reasonToGiveUp(resource: IstioVaultCA, deadline: number): Promise<string | undefined> {
    if (this.#o.clock.elapsed() >= deadline) return 'the deletion deadline has passed';
    const terminating = await isTerminating(this.#o.kube, resource.metadata.namespace);
    return terminating ? 'the namespace is being deleted' : undefined;
  }

  /** What is still there, as far as it can be told. */
  #left(desired: Desired, { observed }: LoopResult): string[] {
    if (!observed || observed.vault.missingCapabilities.length > 0) return possiblyLeft(desired);
    const unused = { ...observed, kubernetes: { ...observed.kubernetes, istiodUses: [] } };
    const steps = simulate(desired, unused, (o) => cleanup(desired, o, this.#o.clock.now()), this.#o.clock.now());
    return steps.map((step) => describePlanned(step).target);
  }

  #incomplete(resource: IstioVaultCA, why: string, left: string[], problem?: Problem): void {
    const because = problem ? ` (${problem.reason}: ${problem.message})` : '';
    const note = `gave up (${why})${because}; left as it is: ${left.join(', ')}`;
    const { namespace, name } = resource.metadata;
    this.#o.logger.warn(`CleanupIncomplete: ${note}`, { namespace, name });
    this.#report.event(resource, 'Warning', 'CleanupIncomplete', 'Delete', note);
  }

  /** Guarded by the resourceVersion, since the list is written whole. */
  async #setFinalizer(
    raw: JsonObject,
    resource: { metadata: z.output<typeof heldMetadata> },
    held: boolean,
  ): Promise<void> {
    const { namespace, name } = resource.metadata;
    const others = resource.metadata.finalizers.filter((one) => one !== finalizer);
    const finalizers = held ? [...others, finalizer] : others;
    const body = plainJson({ metadata: { resourceVersion: dig(raw, 'metadata', 'resourceVersion'), finalizers } });
    try {
      await this.#o.kube.patchObject(resources, namespace, name, body, { type: 'merge' });
    } catch (error) {
      if (!isKubeError(error, 'NotFound')) throw error; // gone already
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
