/** Rounds of reading, planning and writing, for whatever plan: the one way in which anything is changed. */
import { isDeepStrictEqual } from 'node:util';
import { annotations as known } from '../api/annotations.ts';
import { resourceSchema, type IstioVaultCA } from '../api/schema.ts';
import { adapters } from '../control-planes/index.ts';
import type { IstiodObserver } from '../istiod/observe.ts';
import type { KubeClient } from '../kube/client.ts';
import type { Logger } from '../observability/logger.ts';
import type { Metrics } from '../observability/metrics.ts';
import { Secret } from '../observability/secret.ts';
import { otherOwners, ownsAuthMount } from '../plan/ownership/ownership.ts';
import type { Desired } from '../plan/facts/desired.ts';
import { istiodFields, renderName, type IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import { caDigest, DerivedState, DerivedVault } from '../plan/facts/derived.ts';
import { logRequests } from '../plan/proof/ready.ts';
import type { RepeatedConflict, Observed, ObservedVault } from '../plan/facts/observed.ts';
import type { ObservedIstiod } from '../plan/facts/observed-istiod.ts';
import { conditionOfStep, describeStep, type Plan, type Step } from '../plan/steps.ts';
import type { Problem } from '../plan/facts/problem.ts';
import { trustForRootQuery } from '../plan/rotation/rotation.ts';
import type { Clock } from '../runtime/clock.ts';
import { VaultClient } from '../vault/client.ts';
import { VaultError } from '../vault/errors.ts';
import { VaultObserver } from '../vault/observe.ts';
import type { Sessions } from '../vault/sessions.ts';
import { loginProblem, readConfigMapKey, sessionRequest } from './connection.ts';
import type { ConflictTracker } from './conflict-tracker.ts';
import { Executor, type DecisionInput, type ExecutionContext } from './execute.ts';
import {
  goneResources,
  evaluateKubernetes,
  readGates,
  readSurroundings,
  readUses,
  resources,
  targetOf,
  type Surroundings,
} from './observe-kubernetes.ts';
import { asProblem } from './problems.ts';
import type { Reporter } from './report.ts';

export interface ReconcileLoopOptions {
  kube: KubeClient;
  sessions: Pick<Sessions, 'open' | 'dropRefusedSession'>;
  /** Looks at istiod's replicas. */
  istiod: Pick<IstiodObserver, 'observe' | 'forget'>;
  metrics: Metrics;
  logger: Logger;
  clock: Clock;
  conflicts: ConflictTracker;
}

/** What is done in the rounds. */
export interface Purpose {
  next: (d: Desired, o: Observed, now: number) => Plan;
  /** The resource goes: also reads what decides what may go with it. */
  deleting: boolean;
  /** Looks once, and carries out nothing. */
  readOnly: boolean;
}

/** The shortest that the API server gives. */
const istiodTokenSeconds = 600;

/** More rounds than any path needs: what is left then goes on in the next reconcile. */
const maxIterations = 24;

export interface LoopResult {
  observed: Observed | undefined;
  problems: Problem[];
  /** Another look is needed although nothing failed for good. */
  unfinished: boolean;
}

export class ReconcileLoop {
  readonly #o: ReconcileLoopOptions;
  readonly #executor: Executor;

  constructor(options: ReconcileLoopOptions, report: Reporter) {
    this.#o = options;
    this.#executor = new Executor(options, report);
  }

  /** Goes round until nothing is left or something stands in the way. What a server did is a problem of the result, never thrown. */
  async run(resource: IstioVaultCA, desired: Desired, purpose: Purpose, signal: AbortSignal): Promise<LoopResult> {
    const ended = (problem: Problem): LoopResult => ({ observed: undefined, problems: [problem], unfinished: false });
    const client = await this.#connect(resource).catch((error: unknown) => asProblem(error, 'VaultReady'));
    if (!(client instanceof VaultClient)) return ended(client);
    const adapter = adapters[resource.spec.controlPlane.kind];
    const surroundings = await readSurroundings(this.#o.kube, resource, adapter).catch((error: unknown) =>
      asProblem(error, 'ControlPlanePatched'),
    );
    if (!('others' in surroundings)) return ended(surroundings);
    const vault = new VaultObserver(client, desired, () => this.#o.clock.now(), purpose.deleting);
    const context: Context = { resource, desired, client, adapter, surroundings, vault, purpose };
    let last: LoopResult = { observed: undefined, problems: [], unfinished: true };
    let since: Step[] | undefined;
    let conflicts = 0;
    const done = new Set<string>();
    for (let round = 0; round < maxIterations && !signal.aborted; round += 1) {
      const seen = await this.#observe(context, since, signal);
      // with a new token it goes on at once, and of one that cannot be replaced it shows that it is worth nothing
      if ('problem' in seen && seen.tokenDropped) return await this.run(resource, desired, purpose, signal);
      if ('problem' in seen) return { observed: last.observed, problems: [seen.problem], unfinished: false };
      const { observed, problems, steps } = await this.#decide(context, seen, signal);
      last = { observed, problems, unfinished: steps.length > 0 };
      if (steps.length === 0 || !seen.stillAsked || purpose.readOnly) return last;
      const repeated = steps.find((step) => done.has(JSON.stringify(step)));
      if (repeated) return { ...last, problems: [withoutEffect(repeated), ...problems], unfinished: false };
      const failures = await this.#executor.execute(context, seen, steps);
      since = failures.length === 0 ? steps : undefined;
      for (const step of failures.length === 0 ? steps : []) done.add(JSON.stringify(step));
      if (failures.length === 0) continue;
      // somebody was faster: look again and decide anew, but not for ever
      if (failures.every((p) => p.reason === 'Conflict') && (conflicts += 1) < 4) continue;
      return { observed, problems: [...failures, ...problems], unfinished: false };
    }
    return last;
  }

  /**
   * The plan for what was seen. When nothing is left to do, or nothing may be done, istiod is looked at too, and decided anew: a handshake
   * may take seconds, and repair must not wait for it. Not while something blocks everything: then there is nothing to compare with.
   */
  async #decide(
    { desired, purpose, adapter }: Context,
    { observed, stillAsked, target }: IterationInput,
    signal: AbortSignal,
  ): Promise<Decided> {
    const now = () => this.#o.clock.now();
    const first = purpose.next(desired, observed, now());
    const settled = first.steps.length === 0 || purpose.readOnly;
    if (!settled || !stillAsked || purpose.deleting || first.problems.some((p) => p.blocks === 'all'))
      return { observed, ...first };
    const { namespace, name } = desired.identity;
    const revisions = adapter.revisions(target);
    const withIstiod = (istiod: Observed['kubernetes']['istiod']): Observed => ({
      ...observed,
      kubernetes: { ...observed.kubernetes, istiod },
    });
    const logs = (seen: ObservedIstiod) => logRequests(new DerivedState(desired, withIstiod(seen), now()), seen);
    // with `mode: Plan` nobody is asked to sign anything
    const trusted = purpose.readOnly ? undefined : trustForRootQuery(new DerivedState(desired, observed, now()));
    const roots = trusted === undefined ? undefined : { trusted, token: () => this.#istiodToken(namespace) };
    try {
      const istiod = await this.#o.istiod.observe(
        `${namespace}/${name}`,
        { namespace, revisions, logRequests: logs, roots },
        signal,
      );
      const whole = withIstiod(istiod);
      return { observed: whole, ...purpose.next(desired, whole, now()) };
    } catch (error) {
      const problem: Problem = { ...asProblem(error, 'IstiodReady'), blocks: 'nothing' };
      return { observed, steps: first.steps, problems: [...first.problems, problem] };
    }
  }

  /** As a workload of this namespace has it; the only service account that the operator may ask for. */
  async #istiodToken(namespace: string): Promise<Secret> {
    const { token } = await this.#o.kube.requestToken(namespace, 'istio-vault-ca', ['istio-ca'], istiodTokenSeconds);
    return new Secret(token);
  }

  /** The spec that is carried out must still be the one that stands. */
  async #stillAsked(resource: IstioVaultCA, signal: AbortSignal): Promise<boolean> {
    const { namespace, name, uid, generation, annotations, deletionTimestamp } = resource.metadata;
    const found = await this.#o.kube.getObject(resources, namespace, name, { signal });
    const now = resourceSchema.safeParse(found).data?.metadata;
    return (
      now?.uid === uid &&
      now.generation === generation &&
      now.deletionTimestamp === deletionTimestamp &&
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
  ): Promise<IterationInput | { problem: Problem; tokenDropped?: boolean }> {
    const { resource, desired, surroundings, adapter } = context;
    const user = `${resource.metadata.namespace}/${resource.metadata.name}`;
    const [vault, cluster] = await Promise.allSettled([
      context.vault.observe(since).then(async (observed) => ({
        observed,
        kubernetesCa: context.purpose.deleting ? undefined : await this.#kubernetesCa(resource, desired, observed),
        goneOwners: await goneResources(this.#o.kube, otherOwners(new DerivedVault(desired, observed))),
      })),
      Promise.all([
        readGates(this.#o.kube, resource, adapter, renderName(desired)),
        this.#stillAsked(resource, signal),
        context.purpose.deleting ? readUses(this.#o.kube, resource) : [],
      ]),
    ]);
    if (cluster.status === 'rejected') return { problem: asProblem(cluster.reason, 'ControlPlanePatched') };
    if (vault.status === 'rejected') {
      const problem = asProblem(vault.reason, 'VaultReady');
      const denied = vault.reason instanceof VaultError && vault.reason.kind === 'Forbidden';
      return { problem, tokenDropped: denied && this.#o.sessions.dropRefusedSession(user, 'token') };
    }
    const { observed, kubernetesCa, goneOwners } = vault.value;
    if (observed.missingCapabilities.length > 0) this.#o.sessions.dropRefusedSession(user, 'rights');
    const [gates, stillAsked, istiodUses] = cluster.value;
    const live = new DerivedVault(desired, observed).currentCa;
    const fields = istiodFields(resource.spec, live && caDigest(live));
    const read = { kubernetesCa, goneOwners, istiodUses, istiod: undefined };
    const judged = evaluateKubernetes(surroundings, gates, resource, adapter, fields);
    const contest = this.#contest(resource, judged, fields);
    const kubernetes = { ...judged, ...read, ...(contest ? { contest } : {}) };
    const target = targetOf(resource, surroundings, gates);
    return { target, fields, render: gates.render, stillAsked, observed: { vault: observed, kubernetes } };
  }

  /** Whether the fields were taken back so often that they are left alone. */
  #contest(
    { metadata, spec }: IstioVaultCA,
    { controlPlane, ownerIs }: Judged,
    fields: IstiodFields,
  ): RepeatedConflict | undefined {
    if (spec.controlPlane.write !== 'Patch' || ownerIs !== 'us') return undefined;
    const asked = `${metadata.generation} ${metadata.annotations[known.reconcileRequestedAt] ?? ''}`;
    const { conflicts, clock } = this.#o;
    return conflicts.evaluate(
      `${metadata.namespace}/${metadata.name}`,
      asked,
      JSON.stringify(fields),
      controlPlane,
      clock.now(),
    );
  }

  /** Only read when the configuration of the auth mount is ours to write. */
  async #kubernetesCa(resource: IstioVaultCA, desired: Desired, vault: ObservedVault): Promise<string | undefined> {
    const { authMount } = vault;
    if (authMount && !ownsAuthMount(new DerivedVault(desired, vault))) return undefined;
    const { configMapRef } = resource.spec.kubernetesAuth.config.kubernetesCA;
    const field = 'spec.kubernetesAuth.config.kubernetesCA.configMapRef';
    return await readConfigMapKey(this.#o.kube, resource.metadata.namespace, configMapRef, field, 'AccessReady');
  }
}

/** What one reconcile works with. */
interface Context extends ExecutionContext {
  surroundings: Surroundings;
  vault: VaultObserver;
  purpose: Purpose;
}

/** One look. */
interface IterationInput extends DecisionInput {
  /** The resource has not changed since this reconcile began. */
  stillAsked: boolean;
}

type Judged = ReturnType<typeof evaluateKubernetes>;

/** A plan, and the observation that it is for. */
interface Decided extends Plan {
  observed: Observed;
}

/** A step that was accepted and that changed nothing: it is not repeated at once, and it is said so. */
function withoutEffect(step: Step): Problem {
  const message = `${describeStep(step).message}, but nothing of it is to be seen; somebody else changes it back, or the server took it for something else`;
  const condition = conditionOfStep(step);
  const reason = condition === 'ControlPlanePatched' ? 'Conflict' : 'VaultError';
  return { condition, reason, message, blocks: 'nothing' };
}
