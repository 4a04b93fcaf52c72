/** Rounds of reading, planning and writing, for whatever plan: the one way in which anything is changed. */
import { isDeepStrictEqual } from 'node:util';
import { fieldManager, ownerAnnotation } from '../api/annotations.ts';
import type { StageCondition } from '../api/conditions.ts';
import { resourceSchema, type IstioVaultCA } from '../api/schema.ts';
import { annotationPatch, type ControlPlaneAdapter, type JsonObject } from '../control-planes/adapter.ts';
import { adapterFor } from '../control-planes/index.ts';
import type { KubeClient } from '../kube/client.ts';
import type { Logger } from '../observability/logger.ts';
import type { Metrics } from '../observability/metrics.ts';
import { Secret } from '../observability/secret.ts';
import { otherOwners, ownsAuthMount } from '../plan/adoption.ts';
import { istiodFields, type Desired } from '../plan/desired.ts';
import { liveDigest, soundLive } from '../plan/facts.ts';
import type { IstiodLooker } from '../istiod/look.ts';
import { wishesOf } from '../plan/istiod-ready.ts';
import { own, type Observed, type ObservedVault } from '../plan/observed.ts';
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
import { loginProblem, readConfigMapKey, readSecretKey, sessionRequest } from './connection.ts';
import {
  goneResources,
  judgeKubernetes,
  readGates,
  readSurroundings,
  readUses,
  resources,
  type Surroundings,
} from './observe-kubernetes.ts';
import { toProblem } from './problems.ts';
import { plainJson, type Reporter } from './report.ts';

export interface RoundsOptions {
  kube: KubeClient;
  sessions: Sessions;
  /** Looks at istiod's replicas. */
  looker: Pick<IstiodLooker, 'look' | 'forget'>;
  metrics: Metrics;
  logger: Logger;
  clock: Clock;
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
    const surroundings = await readSurroundings(this.#o.kube, resource).catch((error: unknown) =>
      asProblem(error, 'ControlPlanePatched'),
    );
    if (!('siblings' in surroundings)) return ended(surroundings);
    const vault = new VaultObserver(client, desired, () => this.#o.clock.now(), purpose.deleting);
    const context: Context = { resource, desired, client, surroundings, vault, purpose };
    let last: Round = { observed: undefined, problems: [], unfinished: true };
    let since: Step[] | undefined;
    let conflicts = 0;
    const done = new Set<string>();
    for (let round = 0; round < maxRounds && !signal.aborted; round += 1) {
      const seen = await this.#observe(context, since, signal);
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
  async #decide({ desired, purpose }: Context, { observed, stillAsked }: Seen, signal: AbortSignal): Promise<Decided> {
    const now = () => this.#o.clock.now();
    const first = purpose.next(desired, observed, now());
    const settled = first.steps.length === 0 || purpose.lookOnly;
    if (!settled || !stillAsked || purpose.deleting || first.problems.some((p) => p.blocks === 'all'))
      return { observed, ...first };
    const { namespace, name } = desired.identity;
    const { revision } = desired.spec.controlPlane;
    const withIstiod = (istiod: Observed['kubernetes']['istiod']): Observed => ({
      ...observed,
      kubernetes: { ...observed.kubernetes, istiod },
    });
    const wishes = (seen: Parameters<typeof wishesOf>[2]) => wishesOf(desired, withIstiod(seen), seen, now());
    // with `mode: Plan` nobody is asked to sign anything
    const trusted = purpose.lookOnly ? undefined : asksForRoots(desired, observed);
    const roots = trusted === undefined ? undefined : { trusted, token: () => this.#istiodToken(namespace) };
    try {
      const istiod = await this.#o.looker.look(`${namespace}/${name}`, { namespace, revision, wishes, roots }, signal);
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
  ): Promise<Seen | { problem: Problem }> {
    const { resource, desired, surroundings } = context;
    const user = `${resource.metadata.namespace}/${resource.metadata.name}`;
    const adapter = adapterFor(resource.spec.controlPlane.kind);
    const [vault, cluster] = await Promise.allSettled([
      context.vault.observe(since).then(async (observed) => ({
        observed,
        kubernetesCa: context.purpose.deleting ? undefined : await this.#kubernetesCa(resource, desired, observed),
        goneOwners: await goneResources(this.#o.kube, otherOwners(desired, observed)),
      })),
      Promise.all([
        readGates(this.#o.kube, resource, adapter),
        this.#stillAsked(resource, signal),
        context.purpose.deleting ? readUses(this.#o.kube, resource) : [],
      ]),
    ]);
    if (cluster.status === 'rejected') return { problem: asProblem(cluster.reason, 'ControlPlanePatched') };
    if (vault.status === 'rejected') {
      const problem = asProblem(vault.reason, 'VaultReady');
      const denied = vault.reason instanceof VaultError && vault.reason.kind === 'Forbidden';
      // a token that was revoked: with a new one it goes on at once
      return { problem: denied && this.#o.sessions.refused(user) ? { ...problem, retryAfterMs: 0 } : problem };
    }
    const { observed, kubernetesCa, goneOwners } = vault.value;
    if (observed.missingCapabilities.length > 0) this.#o.sessions.refused(user);
    const [gates, stillAsked, istiodUses] = cluster.value;
    const live = soundLive(desired, { vault: observed });
    const fields = istiodFields(resource.spec, live && liveDigest(live));
    const read = { kubernetesCa, goneOwners, istiodUses, istiod: undefined };
    const kubernetes = { ...judgeKubernetes(surroundings, gates, resource, adapter, fields), ...read };
    return { adapter, object: gates.controlPlane, stillAsked, observed: { vault: observed, kubernetes } };
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
    if (step.kind === 'ClaimControlPlane' || step.kind === 'PatchControlPlane' || step.kind === 'ReleaseControlPlane') {
      await this.#patchControlPlane(context, seen, step);
      return;
    }
    await this.#onVault(context, step);
  }

  async #patchControlPlane(
    { resource }: Context,
    { object, adapter }: Seen,
    step: Exclude<Step, VaultStep>,
  ): Promise<void> {
    if (!object) return;
    const { namespace, name } = resource.metadata;
    const { revision, name: target } = resource.spec.controlPlane;
    const bodies = {
      ClaimControlPlane: () => annotationPatch(object, { [ownerAnnotation(revision)]: name }),
      ReleaseControlPlane: () => adapter.release({ object, revision }),
      PatchControlPlane: () =>
        adapter.patch({
          object,
          revision,
          fields: istiodFields(resource.spec, step.kind === 'PatchControlPlane' ? step.digest : undefined),
        }),
    };
    const body = plainJson(bodies[step.kind]());
    await this.#o.kube.patchObject(adapter.gvr, namespace, target, body, { type: 'merge', fieldManager });
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
  surroundings: Surroundings;
  vault: VaultObserver;
  purpose: Purpose;
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

/** A plan, and the observation that it is for. */
interface Decided extends Plan {
  observed: Observed;
}

/** A step that Vault accepted and that changed nothing: it is not repeated at once, and it is said so. */
function withoutEffect(step: Step): Problem {
  const message = `${describeStep(step).message}, but nothing of it is to be seen; somebody else changes it back, or Vault took it for something else`;
  return { condition: conditionOfStep(step), reason: 'VaultError', message, blocks: 'nothing' };
}

/** A problem, or the error itself when it is a bug. */
export function asProblem(error: unknown, condition: StageCondition): Problem {
  const problem = toProblem(error, condition);
  if (!problem) throw error;
  return problem;
}
