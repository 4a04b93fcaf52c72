/**
 * The loop of a reconcile, whatever its plan: observe, plan, execute, and again, until no step is left or a problem blocks all. The only way
 * in which anything is changed.
 */
import type { IstioVaultCA } from '../api/schema.ts';
import { adapters } from '../control-planes/index.ts';
import type { KubeClient } from '../kube/client.ts';
import { Secret } from '../observability/secret.ts';
import { DerivedState } from '../plan/facts/derived.ts';
import type { Desired } from '../plan/facts/desired.ts';
import type { IstiodPod, ObservedIstiod } from '../plan/facts/observed-istiod.ts';
import type { Observed } from '../plan/facts/observed.ts';
import type { Problem } from '../plan/facts/problem.ts';
import { logRequests } from '../plan/proof/ready.ts';
import { hidesSigner } from '../plan/proof/handshake.ts';
import { asksForRoots, asksForZtunnels } from '../plan/rotation/rotation.ts';
import { conditionOfStep, describeDone, writesToCluster } from '../plan/step-table.ts';
import type { Plan, Step } from '../plan/steps.ts';
import { VaultClient } from '../vault/client.ts';
import { VaultObserver } from '../vault/observe.ts';
import { loginProblem, sessionRequest, type ReferenceReader } from './connection.ts';
import { Executor } from './execute.ts';
import { readSurroundings } from './observe-kubernetes.ts';
import { Observer, type FailedObservation, type Observation, type ObservationContext } from './observe.ts';
import type { LoopContext, LoopResult, ReconcileLoopOptions } from './outcome.ts';
import { asProblem } from './problems.ts';
import type { Reporter } from './report.ts';

/** What a loop is for. */
export interface Purpose extends LoopContext {
  next: (d: Desired, o: Observed, now: number) => Plan;
  /** Observes once, and executes nothing. */
  readOnly: boolean;
}

/** Lifetime of the token for istiod; the shortest that the API server issues. */
const istiodTokenSeconds = 600;

/** More iterations than any path needs: what is left then continues in the next reconcile. */
const maxIterations = 24;

/** So many iterations in which every failure is a conflict are repeated at once. */
const maxConflicts = 3;

/** A plan, and the observation that it was made from. */
interface Decision extends Plan {
  observed: Observed;
}

interface Context extends ObservationContext {
  purpose: Purpose;
}

const failed = (problem: Problem): LoopResult => ({ observed: undefined, problems: [problem], unfinished: false });

/** Runs the loop for one resource at a time. */
export class ReconcileLoop {
  readonly #o: ReconcileLoopOptions;
  readonly #observer: Observer;
  readonly #executor: Executor;

  constructor(options: ReconcileLoopOptions, report: Reporter) {
    this.#o = options;
    this.#observer = new Observer(options);
    this.#executor = new Executor(options, report);
  }

  /** As of `Observer.hasSeen`. */
  hasSeen(key: string, object: unknown): boolean {
    return this.#observer.hasSeen(key, object);
  }

  /** Forgets a deleted resource. @param key `namespace/name` */
  forget(key: string): void {
    this.#observer.forget(key);
  }

  /**
   * Repeats observe, plan, execute until nothing is left or a problem stands in the way. A failure of a server is a problem of the result.
   * @throws only what is a bug
   */
  async run(resource: IstioVaultCA, desired: Desired, purpose: Purpose, signal: AbortSignal): Promise<LoopResult> {
    const context = await this.#begin(resource, desired, purpose, signal);
    if ('reason' in context) return failed(context);
    let last: LoopResult = { observed: undefined, problems: [], unfinished: true };
    let since: Step[] | undefined;
    let conflicts = 0;
    const done = new Set<string>();
    for (let iteration = 0; iteration < maxIterations && !signal.aborted; iteration += 1) {
      const { seen, first } = await this.#observe(context, since);
      // a new token is tried at once; if the refused one cannot be replaced, the condition shows that it was refused
      if (!first && seen.sessionDropped) return await this.run(resource, desired, purpose, signal);
      if (!first) return { observed: last.observed, problems: [seen.problem], unfinished: false };
      const { observed, problems, steps } = await this.#decide(context, seen, first, signal);
      last = { observed, problems, unfinished: steps.length > 0 };
      if (steps.length === 0 || !seen.isCurrent || purpose.readOnly) return last;
      const repeated = steps.find((step) => done.has(JSON.stringify(step)));
      if (repeated) return { ...last, problems: [withoutEffect(repeated), ...problems], unfinished: false };
      const failures = await this.#executor.execute(context, seen, steps);
      if (failures.length === 0) {
        since = steps;
        for (const step of steps) done.add(JSON.stringify(step));
        continue;
      }
      since = undefined;
      conflicts += 1;
      // another writer was faster: observe and decide again, but not without end
      if (failures.every((p) => p.reason === 'Conflict') && conflicts <= maxConflicts) continue;
      return { observed, problems: [...failures, ...problems], unfinished: false };
    }
    return last;
  }

  /**
   * Observes, and plans. If what may forbid a write was kept from before, and Vault needs no further step, it is read again: a write to the cluster
   * follows, or nothing is left to do.
   */
  async #observe(
    context: Context,
    since: Step[] | undefined,
  ): Promise<{ seen: Observation; first: Plan } | { seen: FailedObservation; first: undefined }> {
    const { desired, purpose } = context;
    const planned = (seen: Observation | FailedObservation) =>
      'problem' in seen
        ? { seen, first: undefined }
        : { seen, first: purpose.next(desired, seen.observed, this.#o.clock.now()) };
    const before = planned(await this.#observer.observe(context, since));
    if (!before.first || !before.seen.clusterWasKept) return before;
    const { steps } = before.first;
    return steps.length > 0 && !steps.some(writesToCluster) ? before : planned(await this.#observer.refresh(context));
  }

  /** Connects to Vault, and reads of the cluster what does not change while a reconcile lasts; a problem if either fails. */
  async #begin(
    resource: IstioVaultCA,
    desired: Desired,
    purpose: Purpose,
    signal: AbortSignal,
  ): Promise<Context | Problem> {
    const { deleting } = purpose;
    const kube = this.#o.kube.within(signal);
    const client = await this.#connect(kube, resource, signal).catch((error: unknown) =>
      asProblem(error, 'VaultReady'),
    );
    if (!(client instanceof VaultClient)) return client;
    const adapter = adapters[resource.spec.controlPlane.kind];
    const surroundings = await readSurroundings(kube, resource, adapter).catch((error: unknown) =>
      asProblem(error, 'ControlPlanePatched'),
    );
    if ('reason' in surroundings) return surroundings;
    const vault = new VaultObserver(client, desired, () => this.#o.clock.now(), deleting);
    return { kube, resource, desired, client, adapter, surroundings, vault, deleting, purpose, signal };
  }

  async #connect(kube: KubeClient, resource: IstioVaultCA, signal: AbortSignal): Promise<VaultClient> {
    const { kube: unbounded, metrics, sessions } = this.#o;
    const references: ReferenceReader = {
      getObject: (...args) => kube.getObject(...args),
      // the token is requested at the login, which other resources can wait for too
      requestToken: (...args) => unbounded.requestToken(...args),
    };
    const onRequest = (operation: string, code: number) => metrics.vaultRequest(operation, code);
    const request = await sessionRequest(references, resource, onRequest);
    return await sessions.open(request, signal).catch((error: unknown) => {
      throw loginProblem(error, resource) ?? error;
    });
  }

  /**
   * The plan for an observation. If it has no steps, or none may be executed, istiod is observed too and the plan is made again: a handshake can
   * take seconds, and restoring drift does not wait for it. While a problem blocks all, there is no CA to compare istiod with.
   */
  async #decide(context: Context, seen: Observation, first: Plan, signal: AbortSignal): Promise<Decision> {
    const { desired, purpose } = context;
    const { observed } = seen;
    const settled = first.steps.length === 0 || purpose.readOnly;
    if (!settled || !seen.isCurrent || purpose.deleting || first.problems.some((p) => p.blocks === 'all'))
      return { observed, ...first };
    try {
      const whole = withIstiod(observed, await this.#observeIstiod(context, seen, signal));
      return { observed: whole, ...purpose.next(desired, whole, this.#o.clock.now()) };
    } catch (error) {
      const problem: Problem = { ...asProblem(error, 'IstiodReady'), blocks: 'nothing' };
      return { observed, steps: first.steps, problems: [...first.problems, problem] };
    }
  }

  /** Observes istiod's replicas. @throws KubeError */
  async #observeIstiod(context: Context, { observed, target, istiodValues }: Observation, signal: AbortSignal) {
    const { desired, purpose, adapter } = context;
    const { namespace, name } = desired.identity;
    const derive = (o: Observed) => new DerivedState(desired, o, this.#o.clock.now());
    // in mode Plan no replica is asked to sign a certificate
    const state = derive(observed);
    const trusted = purpose.readOnly ? undefined : state.currentCa?.root;
    const request = {
      namespace,
      revisions: adapter.revisions(target),
      settings: istiodValues,
      signing:
        trusted === undefined
          ? undefined
          : {
              isAsked: (pod: IstiodPod) => asksForRoots(state) || hidesSigner(pod, state),
              trusted,
              token: () => istiodToken(context.kube, namespace),
            },
      ztunnels: asksForZtunnels(state),
      logRequests: (seen: ObservedIstiod) => logRequests(derive(withIstiod(observed, seen)), seen),
    };
    return await this.#o.istiod.observe(`${namespace}/${name}`, request, signal);
  }
}

/** A token that istiod accepts from a workload of this namespace, for the only service account that the operator may request tokens of. */
async function istiodToken(kube: KubeClient, namespace: string): Promise<Secret> {
  const { token } = await kube.requestToken(namespace, 'istio-vault-ca', ['istio-ca'], istiodTokenSeconds);
  return new Secret(token);
}

const withIstiod = (observed: Observed, istiod: ObservedIstiod): Observed => ({
  ...observed,
  kubernetes: { ...observed.kubernetes, istiod },
});

/** A step that the server accepted and that changed nothing: it is not repeated at once, and the condition says so. */
function withoutEffect(step: Step): Problem {
  const message = `${describeDone(step).message}, but nothing of it is to be seen; somebody else changes it back, or the server took it for something else`;
  const condition = conditionOfStep(step);
  const reason = writesToCluster(step) ? 'Conflict' : 'VaultError';
  return { condition, reason, message, blocks: 'nothing' };
}
