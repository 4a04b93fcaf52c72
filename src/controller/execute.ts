/** Executes the steps of a plan: in Vault, on the control plane, and on what shows users something to do; with an Event for each. */
import { fieldManager } from '../api/annotations.ts';
import { dig, type JsonObject } from '../api/json.ts';
import type { IstioVaultCA } from '../api/schema.ts';
import { type ControlPlaneAdapter, type Target, type Write } from '../control-planes/adapter.ts';
import type { KubeClient } from '../kube/client.ts';
import type { Logger } from '../observability/logger.ts';
import { DerivedState } from '../plan/facts/derived.ts';
import type { Desired } from '../plan/facts/desired.ts';
import type { IstiodFields } from '../plan/control-plane/istiod-fields.ts';
import { expectedConflict } from '../plan/control-plane/field-ownership.ts';
import { ownEntry, type Observed } from '../plan/facts/observed.ts';
import type { Problem } from '../plan/facts/problem.ts';
import { conditionOfStep, describeDone } from '../plan/step-table.ts';
import type { Step } from '../plan/steps.ts';
import type { Clock } from '../runtime/clock.ts';
import type { VaultClient } from '../vault/client.ts';
import { executeVaultStep, type VaultStep } from '../vault/execute.ts';
import { applyWrites } from './apply-writes.ts';
import { readReviewerToken } from './connection.ts';
import { readGivenKey } from './given-ca.ts';
import type { ConflictTracker } from './conflict-tracker.ts';
import { configMaps, renderConfigMap } from './observe-kubernetes.ts';
import { asProblem } from './problems.ts';
import { plainJson, type Reporter } from './report.ts';
import { executeRequestStep } from './signature-requests.ts';

interface ExecutorOptions {
  logger: Logger;
  clock: Clock;
  conflicts: Pick<ConflictTracker, 'wrote'>;
}

/** What steps are executed with. */
export interface ExecutionContext {
  /** Fails when the time of the reconcile is over, like `client`. */
  kube: KubeClient;
  resource: IstioVaultCA;
  desired: Desired;
  client: VaultClient;
  adapter: ControlPlaneAdapter;
}

/** What the steps were decided on: a write is guarded by it. */
export interface DecisionInput {
  /** The control plane as it was observed, with what belongs to it. */
  target: Target;
  /** The fields that istiod's Pod template must have for the current CA. */
  fields: IstiodFields;
  /** The ConfigMap that shows what to commit; undefined: there is none. */
  render: JsonObject | undefined;
  /** The ConfigMap that shows the certificate signing request; undefined: there is none. */
  requestMap: JsonObject | undefined;
  observed: Observed;
}

type ControlPlaneStep = Extract<Step, { kind: 'ClaimControlPlane' | 'PatchControlPlane' | 'ReleaseControlPlane' }>;
type RenderStep = Extract<Step, { kind: 'PublishRender' | 'RemoveRender' }>;

const versionOf = (object: JsonObject | undefined): string => String(dig(object, 'metadata', 'resourceVersion'));

/** Executes what was decided, and decides nothing itself. */
export class Executor {
  readonly #o: ExecutorOptions;
  readonly #report: Reporter;

  constructor(options: ExecutorOptions, report: Reporter) {
    this.#o = options;
    this.#report = report;
  }

  /** Executes steps in parallel. Records an Event for each that was done, and returns a problem for each that was not. */
  async execute(context: ExecutionContext, seen: DecisionInput, steps: Step[]): Promise<Problem[]> {
    const results = await Promise.allSettled(steps.map((step) => this.#executeAndReport(context, seen, step)));
    return results.flatMap((result, i) => {
      const step = steps[i];
      return result.status === 'rejected' && step ? [asProblem(result.reason, conditionOfStep(step))] : [];
    });
  }

  async #executeAndReport(context: ExecutionContext, seen: DecisionInput, step: Step): Promise<void> {
    await this.#executeOne(context, seen, step);
    const issued = ownEntry(seen.observed.vault.state)?.intermediate?.fingerprint !== undefined;
    const { event, message, action, target } = describeDone(step, issued);
    const { namespace, name } = context.resource.metadata;
    this.#o.logger.info(message, { namespace, name, step: step.kind, target });
    this.#report.event(context.resource, 'Normal', event, action, message);
  }

  async #executeOne(context: ExecutionContext, seen: DecisionInput, step: Step): Promise<void> {
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
      case 'PublishCSR':
      case 'RemoveCSR':
      case 'RequestSignature':
        await executeRequestStep(context.kube, context.resource, seen.requestMap, step);
        return;
      default:
        await this.#onVault(context, step);
    }
  }

  async #onControlPlane(
    { kube, resource, desired, adapter }: ExecutionContext,
    seen: DecisionInput,
    step: ControlPlaneStep,
  ): Promise<void> {
    const { target, fields, observed } = seen;
    const { namespace, name } = resource.metadata;
    const { conflicts, clock } = this.#o;
    const writes: Record<ControlPlaneStep['kind'], () => Write[]> = {
      ClaimControlPlane: () => adapter.claim(target, name),
      PatchControlPlane: () => adapter.write(target, fields),
      ReleaseControlPlane: () => adapter.release(target),
    };
    const warning =
      step.kind === 'PatchControlPlane'
        ? expectedConflict(new DerivedState(desired, observed, clock.now()))
        : undefined;
    if (warning !== undefined) this.#report.event(resource, 'Warning', 'ManagedElsewhere', 'Update', warning);
    const scope = adapter.clusterScoped ? undefined : namespace;
    await applyWrites(kube, adapter.gvr, scope, target, writes[step.kind]());
    if (step.kind === 'PatchControlPlane') conflicts.wrote(`${namespace}/${name}`, JSON.stringify(fields), clock.now());
  }

  async #onRender(
    { kube, resource, adapter }: ExecutionContext,
    { target, fields, render }: DecisionInput,
    step: RenderStep,
  ): Promise<void> {
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
    // the ConfigMap carries the ownership marker: what others wrote in its data is replaced
    const guarded = { metadata: { resourceVersion: versionOf(render) }, data: wanted['data'] };
    await kube.patchObject(configMaps, namespace, step.name, plainJson(guarded), { type: 'merge', fieldManager });
  }

  async #onVault({ kube, resource, desired, client }: ExecutionContext, step: VaultStep): Promise<void> {
    const reviewerJwt = () => readReviewerToken(kube, resource);
    const notice = (reason: string, message: string) =>
      this.#report.event(resource, 'Warning', reason, 'Sign', message);
    const givenKey = () => readGivenKey(kube, resource);
    await executeVaultStep({ client, desired, reviewerJwt, givenKey, notice, now: () => this.#o.clock.now() }, step);
  }
}
