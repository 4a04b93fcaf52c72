/** What GitOps tools make of every state that the operator can show: asked of kstatus, of Argo CD's Lua and of Flux's CEL. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { customResourceDefinition } from '../../src/api/crd.ts';
import { readyChain, reasons, type Reason, type StageCondition } from '../../src/api/conditions.ts';
import { group, kind, resourceSchema, version, type IstioVaultCA } from '../../src/api/schema.ts';
import type { Status } from '../../src/api/status-schema.ts';
import { invalidSpecStatus } from '../../src/controller/invalid-spec.ts';
import type { Observed } from '../../src/plan/facts/observed.ts';
import { plan } from '../../src/plan/plan.ts';
import type { Problem } from '../../src/plan/facts/problem.ts';
import { simulate } from '../../src/plan/simulate.ts';
import { deletingStatus, startingStatus, statusOf, suspendedStatus } from '../../src/plan/status/status.ts';
import { askTools, checkRecorded, disagreements, promisedHealth, recordStates, type Answer, type Health, type Shown } from '../stack/gitops-health.ts'; // prettier-ignore
import { makeTemporaryDir, startKube, waitFor } from '../stack/index.ts';
import { apply, applyOk, resourcePath, type Json } from '../support/cluster.ts';
import { d, now, podOf, withIstiod } from '../unit/istiod-world.ts';
import { converge, emptyWorld, identity, minimalSpec } from '../unit/model.ts';

const generation = 7;
const provisioned = converge(d, emptyWorld()).world;
const proven = withIstiod(provisioned, [podOf(provisioned, 'istiod-1')]);
const withoutControlPlane: Observed = {
  ...provisioned,
  kubernetes: { ...provisioned.kubernetes, controlPlane: undefined },
};

const resource = (status?: Status): IstioVaultCA =>
  resourceSchema.parse({
    apiVersion: `${group}/${version}`,
    kind,
    metadata: { ...identity, generation },
    spec: minimalSpec(),
    status,
  });
const problem = (condition: StageCondition, reason: Reason, blocks: Problem['blocks'] = 'all'): Problem => ({
  condition,
  reason,
  message: `about ${reason}`,
  blocks,
});
const status = (observed: Observed | undefined, ...problems: Problem[]): Status =>
  statusOf({ resource: resource(), desired: d, observed, problems, now });
const starting = (before?: Status): Status =>
  startingStatus({ resource: resource(before), desired: d, observed: undefined, problems: [], now });
const suspended = (before?: Status): Status => suspendedStatus(resource(before), now);
const deleting = (before?: Status): Status => deletingStatus(resource(before), problem('VaultReady', 'Deleting'), now);

const shown = (of: Shown['status'], over: { spec?: Shown['spec']; metadata?: Partial<Shown['metadata']> } = {}): Shown => ({
  apiVersion: `${group}/${version}`,
  kind,
  spec: over.spec ?? { suspend: false },
  metadata: { namespace: identity.namespace, name: identity.name, generation, ...over.metadata },
  status: of,
}); // prettier-ignore
const goes = (of: Status): Shown => shown(of, { metadata: { deletionTimestamp: '2030-01-01T00:00:00Z' } });
const stays = (of: Status): Shown => shown(of, { spec: { suspend: true } });
/** The spec was changed after this status was written. */
const outdated = (of: Status): Shown => shown(of, { metadata: { generation: generation + 1 } });

const health = (kstatus: string, argo: string, flux = kstatus): Health => ({ kstatus, argo, flux });
const current = health('Current', 'Healthy');
const failed = health('Failed', 'Degraded');
const inProgress = health('InProgress', 'Progressing');
const waitsForIstiod = health('InProgress', 'Healthy', 'Current');
const terminating = health('Terminating', 'Progressing', 'InProgress');
const suspendedAnd = (kstatus: string): Health => health(kstatus, 'Suspended');

const stalledStatus = status(undefined, problem('VaultReady', 'MountNotOwned'));
const noControlPlane = problem('ControlPlanePatched', 'ControlPlaneNotFound', 'controlPlane');
/** Provisioned, waiting for the control plane, and yet a person must act. */
const bothAtOnce = status(withoutControlPlane, noControlPlane, problem('ControlPlanePatched', 'FieldConflict', 'controlPlane')); // prettier-ignore
/** `mode: Render` is to come; its reason is in the checks already. */
const awaitingCommit: Status = {
  ...status(provisioned),
  conditions: status(provisioned).conditions?.map((c) =>
    c.type === 'Ready' ? { ...c, status: 'False' as const, reason: 'AwaitingCommit' } : c,
  ),
};
const refusal = z.object({ spec: z.string() }).safeParse({}).error!;
const refused = invalidSpecStatus({ metadata: { generation } }, refusal, now);
const toDo = (world: Observed): Status =>
  statusOf({
    resource: resource(),
    desired: d,
    observed: world,
    problems: [],
    pending: simulate(d, world, (o) => plan(d, o, now), now),
    now,
  });

const named: [string, Shown, Health][] = [
  ['every replica is proven', shown(status(proven)), current],
  ['the spec was changed since it was Ready', outdated(status(proven)), inProgress],
  ['the changed spec is being looked at', shown(starting(status(proven))), inProgress],
  ['everything is made and there is no istiod', shown(status(provisioned)), waitsForIstiod],
  ['the spec was changed since then', outdated(status(provisioned)), inProgress],
  ['and is being looked at', shown(starting(status(provisioned))), inProgress],
  ['there is no control plane', shown(status(withoutControlPlane, noControlPlane)), waitsForIstiod],
  ['the fields wait for a commit', shown(awaitingCommit), waitsForIstiod],
  ['a replica is not proven', shown(status(withIstiod(provisioned, [podOf(provisioned, 'istiod-1', { injected: false, served: undefined })]))), inProgress],
  ['nothing is done yet', shown(status(emptyWorld())), inProgress],
  ['Vault is sealed', shown(status(undefined, problem('VaultReady', 'Sealed'))), inProgress],
  ['a person must act', shown(stalledStatus), failed],
  ['the spec was changed since a person had to act', outdated(stalledStatus), inProgress],
  ['a person must act while it waits for the control plane', shown(bothAtOnce), failed],
  ['the schema does not take the spec', shown(refused), failed],
  ['mode: Plan, and steps to take', shown(toDo(emptyWorld())), inProgress],
  ['mode: Plan, and nothing to do', shown(toDo(proven)), current],
  ['suspended when Ready', stays(suspended(status(proven))), suspendedAnd('Current')],
  ['suspended while it waited for istiod', stays(suspended(status(provisioned))), suspendedAnd('InProgress')],
  ['suspended when a person had to act', stays(suspended(stalledStatus)), suspendedAnd('InProgress')],
  ['suspended from the beginning', stays(suspended()), suspendedAnd('InProgress')],
  ['being deleted', goes(deleting(status(proven))), terminating],
  ['being deleted, and nobody has looked yet', goes(status(proven)), terminating],
  ['being deleted when a person had to act', goes(stalledStatus), terminating],
  ['new, as the API server shows it', shown({ observedGeneration: -1 }), inProgress],
  ['new, being looked at', shown(starting()), inProgress],
]; // prettier-ignore

describe('when', () => {
  let answers: Answer[];
  beforeAll(async () => {
    answers = await askTools(named.map(([, object]) => object));
  });

  it.each(named.map(([name, object, expected], i) => ({ name, object, expected, i })))(
    '$name: $expected.kstatus, $expected.argo, $expected.flux',
    ({ object, expected, i }) => {
      const { message, ...said } = answers[i]!;
      expect(said).toEqual(expected);
      expect(message).not.toBe('');
      // the rule that what tests bring about is measured by
      expect(promisedHealth(object)).toEqual(expected);
    },
  );

  it('Argo CD is asked, its message is what the operator says', () => {
    const says = (name: string) => answers[named.findIndex(([one]) => one === name)]?.message;
    expect(says('Vault is sealed')).toBe('Sealed: about Sealed');
    expect(says('a person must act while it waits for the control plane')).toBe('FieldConflict: about FieldConflict');
    expect(says('every replica is proven')).toBe('Ready: every istiod replica serves this CA');
  });
});

describe('whatever the reason', () => {
  const worlds: [string, Observed | undefined][] = [
    ['nothing could be read', undefined],
    ['nothing is there', emptyWorld()],
    ['everything is made', provisioned],
    ['every replica is proven', proven],
  ];
  const objects = worlds.flatMap(([world, observed]) =>
    (Object.keys(reasons) as Reason[]).flatMap((reason) =>
      readyChain.flatMap((stage) =>
        (observed === undefined ? (['all'] as const) : (['all', 'nothing'] as const)).map((blocks) => ({
          about: `${world}; ${stage} ${reason}, blocks ${blocks}`,
          stalled: reasons[reason].kind === 'stalled',
          status: status(observed, problem(stage, reason, blocks)),
        })),
      ),
    ),
  );

  it('at whatever condition, the tools say what docs/gitops.md promises', async () => {
    const all = objects.flatMap(({ status: of }) => [
      shown(of),
      outdated(of),
      shown(starting(of)),
      stays(suspended(of)),
      goes(deleting(of)),
    ]);
    expect(await disagreements(all)).toEqual([]);
  });

  it('they fail exactly on what a person must act on', async () => {
    const answers = await askTools(objects.map((one) => shown(one.status)));
    const wrong = objects.filter(({ stalled }, i) => {
      const { kstatus, argo, flux } = answers[i]!;
      return [kstatus === 'Failed', argo === 'Degraded', flux === 'Failed'].some((fails) => fails !== stalled);
    });
    expect(wrong.map(({ about }) => about)).toEqual([]);
  });
});

describe('a status that is not the operator’s', () => {
  it.each<{ what: string; object: Shown; said: Health }>([
    {
      what: 'none at all, from a CRD without its default',
      object: shown(undefined),
      // kstatus knows no better; Flux waits on Unknown
      said: health('Current', 'Progressing', 'Unknown'),
    },
    { what: 'an empty one', object: shown({}), said: health('Current', 'Progressing', 'InProgress') },
    {
      what: 'one without a generation',
      object: shown({ ...status(provisioned), observedGeneration: undefined }),
      said: inProgress,
    },
    { what: 'one without Ready', object: shown({ observedGeneration: generation, conditions: [] }), said: health('Current', 'Progressing', 'InProgress') },
  ])('$what is not taken for a healthy one by the checks', async ({ object, said }) => {
    const [answer] = await askTools([object]);
    expect(answer).toMatchObject(said);
  });
}); // prettier-ignore

describe('states that tests bring about', () => {
  it('are recorded from before there is the kind, across restarts, and lead to an error that shows them', async () => {
    const kube = await startKube();
    const file = join(makeTemporaryDir('states'), 'states.jsonl');
    const recording = recordStates(kube, file);
    try {
      const recorded = (): Shown[] =>
        existsSync(file)
          ? readFileSync(file, 'utf8').split('\n').slice(0, -1).map((line) => JSON.parse(line) as Shown)
          : []; // prettier-ignore
      const seen = (what: string, test: (object: Shown) => boolean) =>
        waitFor(`${what} to be recorded`, () => Promise.resolve(recorded().some(test)));
      const spec = minimalSpec() as unknown as Json;
      const namespace = 'default';
      await applyOk(kube, customResourceDefinition());
      await waitFor('the CRD to be served', async () => {
        const object = { apiVersion: `${group}/${version}`, kind, metadata: { name: 'a', namespace }, spec };
        return (await apply(kube, object)).status < 300;
      });
      await seen('the new one', ({ status: of }) => of?.observedGeneration === -1);
      await kube.compactEtcd();
      await kube.restart();
      await kube.request('PATCH', resourcePath(namespace, 'a'), { spec: { suspend: true } });
      await seen('the suspended one', (object) => object.spec?.suspend === true);
      expect(await checkRecorded(file)).toBeGreaterThanOrEqual(2);

      // without a condition kstatus takes it for finished: nothing that the operator may ever write
      await kube.request('PATCH', `${resourcePath(namespace, 'a')}/status`, { status: { observedGeneration: 2 } });
      await seen('the status without conditions', ({ status: of }) => of?.observedGeneration === 2);
      await expect(checkRecorded(file)).rejects.toThrow(/disagree[^]*"kstatus":"Current"[^]*"observedGeneration":2/);
    } finally {
      await recording.stop();
      await kube.stop();
    }
  });
});
