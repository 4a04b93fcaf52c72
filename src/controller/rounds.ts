/** Rounds of reading, planning and writing, for whatever plan: the one way in which anything is changed. */
import { isDeepStrictEqual } from 'node:util';
import { annotations as known, fieldManager } from '../api/annotations.ts';
import type { StageCondition } from '../api/conditions.ts';
import { resourceSchema, type IstioVaultCA } from '../api/schema.ts';
import { dig, type ControlPlaneAdapter, type JsonObject, type Target, type Write } from '../control-planes/adapter.ts';
import { adapters } from '../control-planes/index.ts';
import type { KubeClient } from '../kube/client.ts';
import type { Logger } from '../observability/logger.ts';
import type { Metrics } from '../observability/metrics.ts';
import { Secret } from '../observability/secret.ts';
import { otherOwners, ownsAuthMount } from '../plan/adoption.ts';
import { istiodFields, renderName, type Desired, type IstiodFields } from '../plan/desired.ts';
import { foretold } from '../plan/checks/peace.ts';
import { liveDigest, soundLive } from '../plan/facts.ts';
import type { IstiodLooker } from '../istiod/look.ts';
import { wishesOf } from '../plan/istiod-ready.ts';
import { own, type Contest, type Observed, type ObservedVault } from '../plan/observed.ts';
import type { Plan } from '../plan/plan.ts';
import type { Problem } from '../plan/problem.ts';
import { asksForRoots } from '../plan/rotation.ts';
import { conditionOfStep, describeStep, type Step } from '../plan/steps.ts';
import type { Clock } from '../runtime/clock.ts';
import { VaultClient } from '../vault/client.ts';
import { executeVaultStep, type VaultStep } from '../vault/execute.ts';
import { VaultError } from '../vault/errors.ts';
import { VaultObserver } from '../vault/observe.ts';
import type { Sessions } from '../vault/sessions.ts';
import { carryOut } from './carry-out.ts';
import type { Contests } from './contests.ts';
import { loginProblem, readConfigMapKey, readSecretKey, sessionRequest } from './connection.ts';
import {
  goneResources,
  judgeKubernetes,
  readGates,
  readSurroundings,
  readUses,
  configMaps,
  renderConfigMap,
  resources,
  targetOf,
  type Surroundings,
} from './observe-kubernetes.ts';
import { toProblem } from './problems.ts';
import { plainJson, type Reporter } from './report.ts';

export interface RoundsOptions {
  kube: KubeClient;
  sessions: Pick<Sessions, 'open' | 'refused'>;
  /** Looks at istiod's replicas. */
  looker: Pick<IstiodLooker, 'look' | 'forget'>;
  metrics: Metrics;
  logger: Logger;
  clock: Clock;
  contests: Contests;
}

/** What is done in the rounds. */
export interface Purpose {
  next: (d: Desired, o: Observed, now: number) => Plan;
  /** The resource goes: also reads what decides what may go with it. */
  deleting: boolean;
  /** Looks once, and carries out nothing. */
  lookOnly: boolean;
}

/** The shortest that the API server gives. */
const istiodTokenSeconds = 600;

/** More rounds than any path needs: what is left then goes on in the next reconcile. */
const maxRounds = 24;

export interface Round {
  observed: Observed | undefined;
  problems: Problem[];
  /** Another look is needed although nothing failed for good. */
  unfinished: boolean;
}

export class Rounds {
  readonly #o: RoundsOptions;
  readonly #report: Reporter;

  constructor(options: RoundsOptions, report: Reporter) {
    this.#o = options;
    this.#report = report;
  }

  /** Goes round until nothing is left or something stands in the way. What a server did is a problem of the result, never thrown. */
  async run(resource: IstioVaultCA, desired: Desired, purpose: Purpose, signal: AbortSignal): Promise<Round> {
    const ended = (problem: Problem): Round => ({ observed: undefined, problems: [problem], unfinished: false });
    const client = await this.#connect(resource).catch((error: unknown) => asProblem(error, 'VaultReady'));
    if (!(client instanceof VaultClient)) return ended(client);
    const adapter = adapters[resource.spec.controlPlane.kind];
    const surroundings = await readSurroundings(this.#o.kube, resource, adapter).catch((error: unknown) =>
      asProblem(error, 'ControlPlanePatched'),
    );
    if (!('siblings' in surroundings)) return ended(surroundings);
    const vault = new VaultObserver(client, desired, () => this.#o.clock.now(), purpose.deleting);
    const context: Context = { resource, desired, client, adapter, surroundings, vault, purpose };
    let last: Round = { observed: undefined, problems: [], unfinished: true };
    let since: Step[] | undefined;
    let conflicts = 0;
    const done = new Set<string>();
    for (let round = 0; round < maxRounds && !signal.aborted; round += 1) {
      const seen = await this.#observe(context, since, signal);
      // with a new token it goes on at once, and of one that cannot be replaced it shows that it is worth nothing
      if ('problem' in seen && seen.tokenDropped) return await this.run(resource, desired, purpose, signal);
      if ('problem' in seen) return { observed: last.observed, problems: [seen.problem], unfinished: false };
      const { observed, problems, steps } = await this.#decide(context, seen, signal);
      last = { observed, problems, unfinished: steps.length > 0 };
      if (steps.length === 0 || !seen.stillAsked || purpose.lookOnly) return last;
      const repeated = steps.find((step) => done.has(JSON.stringify(step)));
      if (repeated) return { ...last, problems: [withoutEffect(repeated), ...problems], unfinished: false };
      const failures = await this.#execute(context, seen, steps);
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
    { observed, stillAsked, target }: Seen,
    signal: AbortSignal,
  ): Promise<Decided> {
    const now = () => this.#o.clock.now();
    const first = purpose.next(desired, observed, now());
    const settled = first.steps.length === 0 || purpose.lookOnly;
    if (!settled || !stillAsked || purpose.deleting || first.problems.some((p) => p.blocks === 'all'))
      return { observed, ...first };
    const { namespace, name } = desired.identity;
    const revisions = adapter.revisions(target);
    const withIstiod = (istiod: Observed['kubernetes']['istiod']): Observed => ({
      ...observed,
      kubernetes: { ...observed.kubernetes, istiod },
    });
    const wishes = (seen: Parameters<typeof wishesOf>[2]) => wishesOf(desired, withIstiod(seen), seen, now());
    // with `mode: Plan` nobody is asked to sign anything
    const trusted = purpose.lookOnly ? undefined : asksForRoots(desired, observed);
    const roots = trusted === undefined ? undefined : { trusted, token: () => this.#istiodToken(namespace) };
    try {
      const istiod = await this.#o.looker.look(`${namespace}/${name}`, { namespace, revisions, wishes, roots }, signal);
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
  ): Promise<Seen | { problem: Problem; tokenDropped?: boolean }> {
    const { resource, desired, surroundings, adapter } = context;
    const user = `${resource.metadata.namespace}/${resource.metadata.name}`;
    const [vault, cluster] = await Promise.allSettled([
      context.vault.observe(since).then(async (observed) => ({
        observed,
        kubernetesCa: context.purpose.deleting ? undefined : await this.#kubernetesCa(resource, desired, observed),
        goneOwners: await goneResources(this.#o.kube, otherOwners(desired, observed)),
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
      return { problem, tokenDropped: denied && this.#o.sessions.refused(user, 'token') };
    }
    const { observed, kubernetesCa, goneOwners } = vault.value;
    if (observed.missingCapabilities.length > 0) this.#o.sessions.refused(user, 'rights');
    const [gates, stillAsked, istiodUses] = cluster.value;
    const live = soundLive(desired, { vault: observed });
    const fields = istiodFields(resource.spec, live && liveDigest(live));
    const read = { kubernetesCa, goneOwners, istiodUses, istiod: undefined };
    const judged = judgeKubernetes(surroundings, gates, resource, adapter, fields);
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
  ): Contest | undefined {
    if (spec.controlPlane.write !== 'Patch' || ownerIs !== 'us') return undefined;
    const asked = `${metadata.generation} ${metadata.annotations[known.reconcileRequestedAt] ?? ''}`;
    const { contests, clock } = this.#o;
    return contests.judge(
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
    if (authMount && !ownsAuthMount(desired, vault)) return undefined;
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

  async #executeOne(context: Context, seen: Seen, step: Step): Promise<void> {
    switch (step.kind) {
      case 'ClaimControlPlane':
      case 'PatchControlPlane':
      case 'ReleaseControlPlane':
        await this.#onControlPlane(context, seen, step);
        return;
      case 'PublishRender':
      case 'RemoveRender':
        await this.#onRender(context, seen, step);
        return;
      default:
        await this.#onVault(context, step);
    }
  }

  async #onControlPlane({ resource, desired, adapter }: Context, seen: Seen, step: ControlPlaneStep): Promise<void> {
    const { target, fields, observed } = seen;
    const { namespace, name } = resource.metadata;
    const { contests, clock, kube } = this.#o;
    const writes: Record<ControlPlaneStep['kind'], () => Write[]> = {
      ClaimControlPlane: () => adapter.claim(target, name),
      PatchControlPlane: () => adapter.write(target, fields),
      ReleaseControlPlane: () => adapter.release(target),
    };
    const warning = step.kind === 'PatchControlPlane' ? foretold(desired, observed) : undefined;
    if (warning !== undefined) this.#report.event(resource, 'Warning', 'ManagedElsewhere', 'Update', warning);
    const scope = adapter.clusterScoped ? undefined : namespace;
    await carryOut(kube, adapter.gvr, scope, target, writes[step.kind]());
    if (step.kind === 'PatchControlPlane') contests.wrote(`${namespace}/${name}`, JSON.stringify(fields), clock.now());
  }

  async #onRender({ resource, adapter }: Context, { target, fields, render }: Seen, step: RenderStep): Promise<void> {
    const { kube } = this.#o;
    const { namespace } = resource.metadata;
    if (step.kind === 'RemoveRender') {
      const guard = { uid: String(dig(render, 'metadata', 'uid')), resourceVersion: versionOf(render) };
      await kube.deleteObject(configMaps, namespace, step.name, guard);
      return;
    }
    const wanted = renderConfigMap(resource, step.name, adapter.render(target, fields));
    if (!render) {
      await kube.createObject(configMaps, namespace, plainJson(wanted));
      return;
    }
    // it bears our mark: what others have put in the place of what is to be shown gives way
    const guarded = { metadata: { resourceVersion: versionOf(render) }, data: wanted['data'] };
    await kube.patchObject(configMaps, namespace, step.name, plainJson(guarded), { type: 'merge', fieldManager });
  }

  async #onVault({ resource, desired, client }: Context, step: VaultStep): Promise<void> {
    const { namespace } = resource.metadata;
    const reviewer = resource.spec.kubernetesAuth.config.tokenReviewer.secretRef;
    const field = 'spec.kubernetesAuth.config.tokenReviewer.secretRef';
    const reviewerJwt = async () =>
      reviewer && (await readSecretKey(this.#o.kube, namespace, reviewer, field, 'AccessReady'));
    const notice = (reason: string, message: string) =>
      this.#report.event(resource, 'Warning', reason, 'Sign', message);
    await executeVaultStep({ client, desired, reviewerJwt, notice }, step);
  }
}

/** What one reconcile works with. */
interface Context {
  resource: IstioVaultCA;
  desired: Desired;
  client: VaultClient;
  adapter: ControlPlaneAdapter;
  surroundings: Surroundings;
  vault: VaultObserver;
  purpose: Purpose;
}

/** One look. */
interface Seen {
  /** The control plane as it was when looked at, and what belongs to it: a write is guarded by it. */
  target: Target;
  /** What istiod's pod template is to carry, for what is live. */
  fields: IstiodFields;
  /** The ConfigMap that shows what to commit. */
  render: JsonObject | undefined;
  /** The resource has not changed since this reconcile began. */
  stillAsked: boolean;
  observed: Observed;
}

type ControlPlaneStep = Extract<Step, { kind: 'ClaimControlPlane' | 'PatchControlPlane' | 'ReleaseControlPlane' }>;
type RenderStep = Extract<Step, { kind: 'PublishRender' | 'RemoveRender' }>;
type Judged = ReturnType<typeof judgeKubernetes>;

/** A plan, and the observation that it is for. */
interface Decided extends Plan {
  observed: Observed;
}

const versionOf = (object: JsonObject | undefined): string => String(dig(object, 'metadata', 'resourceVersion'));

/** A step that was accepted and that changed nothing: it is not repeated at once, and it is said so. */
function withoutEffect(step: Step): Problem {
  const message = `${describeStep(step).message}, but nothing of it is to be seen; somebody else changes it back, or the server took it for something else`;
  const condition = conditionOfStep(step);
  const reason = condition === 'ControlPlanePatched' ? 'Conflict' : 'VaultError';
  return { condition, reason, message, blocks: 'nothing' };
}

/** A problem, or the error itself when it is a bug. */
export function asProblem(error: unknown, condition: StageCondition): Problem {
  const problem = toProblem(error, condition);
  if (!problem) throw error;
  return problem;
}
