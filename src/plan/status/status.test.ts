import { beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { desiredOf, emptyWorld, identity, minimalSpec } from '../../../test/unit/model.ts';
import { readyChain, reasons, holdingReason, type Reason, type StageCondition } from '../../api/conditions.ts';
import { group, kind, resourceSchema, version, type IstioVaultCA } from '../../api/schema.ts';
import { statusSchema, type Condition, type Status } from '../../api/status-schema.ts';
import { ownEntry, type Observed } from '../facts/observed.ts';
import { plan } from '../plan.ts';
import type { Problem } from '../facts/problem.ts';
import { simulate, simulateStep } from '../simulate.ts';
import { startingStatus, statusOf, suspendedStatus } from './status.ts';

const now = Date.now();
const time = (ms: number) => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
const hour = 3_600_000;
const d = desiredOf();

/** The world before each iteration of a first reconcile; in the last one, everything exists. */
let worlds: Observed[];

beforeAll(() => {
  worlds = [emptyWorld()];
  for (;;) {
    const world = worlds.at(-1)!;
    const { steps } = plan(d, world, now);
    if (steps.length === 0) break;
    worlds.push(steps.reduce((w, step) => simulateStep(d, w, step, now), world));
  }
});
const provisioned = () => worlds.at(-1)!;

const resource = (status?: Status, over: { generation?: number; annotations?: Record<string, string> } = {}): IstioVaultCA =>
  resourceSchema.parse({
    apiVersion: `${group}/${version}`,
    kind,
    metadata: { ...identity, generation: 7, ...over },
    spec: minimalSpec(),
    status,
  }); // prettier-ignore
const problem = (condition: StageCondition, reason: Reason, blocks: Problem['blocks'] = 'all'): Problem => ({
  condition,
  reason,
  message: `about ${reason}`,
  blocks,
});
const status = (observed: Observed | undefined, problems: Problem[] = [], from = resource(), at = now): Status =>
  statusOf({ resource: from, desired: d, observed, problems, now: at });
const find = (s: Status, type: string): Condition | undefined => s.conditions?.find((c) => c.type === type);
const brief = (s: Status, type: string) => {
  const c = find(s, type);
  return c && `${c.status} ${c.reason}`;
};

const reasonNames = Object.keys(reasons) as Reason[];
const anyProblem = fc
  .tuple(fc.constantFrom(...readyChain), fc.constantFrom(...reasonNames), fc.constantFrom('all' as const, 'controlPlane' as const, 'nothing' as const))
  .map(([condition, reason, blocks]) => problem(condition, reason, blocks)); // prettier-ignore
const anyProblems = fc.array(anyProblem, { maxLength: 3 });
/** The observation is missing only if a problem blocks everything. */
const anySituation = fc.tuple(fc.option(fc.nat(30), { nil: undefined }), anyProblems).map(([index, problems]) => ({
  observed: () => (index === undefined ? undefined : worlds[index % worlds.length]),
  problems: index === undefined ? [...problems, problem('VaultReady', 'Unreachable')] : problems,
}));

describe('every status', () => {
  it('obeys the rules of kstatus and of the contract', () => {
    fc.assert(
      fc.property(anySituation, ({ observed, problems }) => {
        const s = status(observed(), problems);
        expect(statusSchema.parse(s)).toEqual(s);
        expect(s.observedGeneration).toBe(7);
        const conditions = s.conditions ?? [];
        const types = conditions.map((c) => c.type);
        expect(new Set(types).size).toBe(types.length);
        expect(types).toEqual(expect.arrayContaining(['Ready', ...readyChain, 'Provisioned']));
        for (const c of conditions) {
          expect(c).toMatchObject({ observedGeneration: 7, lastTransitionTime: time(now) });
          expect(c.reason).toMatch(/^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$/);
          expect(c.message).not.toBe('');
        }

        const stalled = find(s, 'Stalled');
        const reconciling = find(s, 'Reconciling');
        const ready = find(s, 'Ready')!;
        for (const c of [stalled, reconciling]) if (c) expect(c.status).toBe('True');
        // exactly one of the three conditions reports the progress
        expect([ready.status === 'True', stalled, reconciling].filter(Boolean)).toHaveLength(1);
        expect(stalled !== undefined).toBe(problems.some((p) => reasons[p.reason].kind === 'stalled'));

        const first = readyChain.map((type) => find(s, type)!).find((c) => c.status !== 'True');
        expect(ready.status === 'True').toBe(first === undefined);
        if (first) {
          const explained = problems.find((p) => p.blocks === 'all');
          const expected = first.status === 'Unknown' && explained ? explained : first;
          expect([ready.reason, ready.message]).toEqual([expected.reason, expected.message]);
        }
      }),
    );
  });

  it('keeps the time of a transition as long as the status of a condition is the same', () => {
    fc.assert(
      fc.property(anySituation, anySituation, (before, after) => {
        const old = status(before.observed(), before.problems, resource(), now - hour);
        const next = status(after.observed(), after.problems, resource(old));
        for (const c of next.conditions ?? []) {
          const same = find(old, c.type)?.status === c.status;
          expect({ type: c.type, time: c.lastTransitionTime }).toEqual({
            type: c.type,
            time: time(same ? now - hour : now),
          });
        }
      }),
    );
  });

  it('is the same when nothing has changed: no clock and no counter', () => {
    fc.assert(
      fc.property(anySituation, ({ observed, problems }) => {
        const once = status(observed(), problems);
        expect(status(observed(), problems, resource(once), now + hour)).toEqual(once);
      }),
    );
  });

  it('never shows a key', () => {
    for (const world of worlds) expect(JSON.stringify(status(world))).not.toMatch(/PRIVATE KEY/);
  });
});

describe('reasons', () => {
  it.each([...reasonNames, ...Object.values(holdingReason)])('%s is one that the API server takes', (reason) => {
    expect(reason).toMatch(/^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$/);
    expect(reason.length).toBeLessThanOrEqual(128);
  });
});

describe('Ready', () => {
  it('of a provisioned CA waits for istiod only', () => {
    const s = status(provisioned());
    const chain = readyChain.map((type) => brief(s, type));
    expect(chain).toEqual([
      'True VaultAnswers',
      'True RootValid',
      'True IntermediateValid',
      'True KeyMatches',
      'True AccessConfigured',
      'True FieldsPresent',
      'Unknown IstiodNotFound',
    ]);
    expect([brief(s, 'Ready'), brief(s, 'Provisioned'), brief(s, 'Reconciling')]).toEqual([
      'Unknown IstiodNotFound',
      'True Provisioned',
      'True IstiodNotFound',
    ]);
  });

  it.each<{ reason: string; problems: Problem[]; ready: string; also: Record<string, string | undefined> }>([
    {
      reason: 'Vault cannot be reached',
      problems: [problem('VaultReady', 'Unreachable')],
      ready: 'False Unreachable',
      also: { Reconciling: 'True Unreachable', Stalled: undefined, Provisioned: 'False Unreachable' },
    },
    {
      reason: 'a refusal that concerns a later stage explains the earlier ones',
      problems: [problem('KeyStored', 'MountNotOwned')],
      ready: 'False MountNotOwned',
      also: { KeyStored: 'False MountNotOwned', RootReady: 'Unknown MountNotOwned', Stalled: 'True MountNotOwned' },
    },
    {
      reason: 'of two problems that of the earlier stage',
      problems: [problem('ControlPlanePatched', 'FieldConflict', 'controlPlane'), problem('VaultReady', 'Sealed')],
      ready: 'False Sealed',
      also: { ControlPlanePatched: 'False FieldConflict', Stalled: 'True FieldConflict', Reconciling: undefined },
    },
  ])('$reason', ({ problems, ready, also }) => {
    const s = status(problems[0]?.condition === 'VaultReady' ? undefined : emptyWorld(), problems);
    expect(brief(s, 'Ready')).toBe(ready);
    expect(Object.fromEntries(Object.keys(also).map((type) => [type, brief(s, type)]))).toEqual(also);
  });

  it('is no more than Progressing while there are steps to take', () => {
    const s = status(emptyWorld());
    expect([brief(s, 'VaultReady'), brief(s, 'Ready'), brief(s, 'Reconciling')]).toEqual([
      'True VaultAnswers',
      'False Progressing',
      'True Progressing',
    ]);
  });

  it('a missing control plane is no reason against Provisioned, another problem is', () => {
    const world = { ...provisioned(), kubernetes: { ...provisioned().kubernetes, controlPlane: undefined } };
    const missing = status(world, [problem('ControlPlanePatched', 'ControlPlaneNotFound', 'controlPlane')]);
    expect([brief(missing, 'Ready'), brief(missing, 'Provisioned')]).toEqual([
      'False ControlPlaneNotFound',
      'True Provisioned',
    ]);
    const refused = status(world, [problem('ControlPlanePatched', 'FieldConflict', 'controlPlane')]);
    expect(brief(refused, 'Provisioned')).toBe('False FieldConflict');
  });
});

describe('what is shown', () => {
  const certificate = () => ownEntry(provisioned().vault.live)!.certificate!;
  const root = () => provisioned().vault.rootPki!.issuers[0]!.certificate;

  it('are the certificates that were seen', () => {
    const s = status(provisioned());
    expect(s).toMatchObject({
      vault: { product: 'OpenBao', version: '2.7.2' },
      root: { serial: root().serial, fingerprint: root().fingerprint, generation: 1 },
      intermediate: {
        serial: certificate().serial,
        fingerprint: certificate().fingerprint,
        notAfter: time(certificate().notAfter),
        generation: 1,
      },
      controlPlane: { kind: 'TetrateControlPlane', name: 'controlplane' },
    });
    expect(s.controlPlane?.digest).toMatch(/^[0-9a-f]{64}$/);
    expect(Date.parse(s.intermediate?.renewAt ?? '')).toBeLessThan(certificate().notAfter);
  });

  it('stay the last good ones while nothing can be read', () => {
    const good = status(provisioned());
    const bad = status(undefined, [problem('VaultReady', 'Sealed')], resource(good));
    const { root, intermediate, vault, controlPlane, history } = good;
    expect(bad).toMatchObject({ root, intermediate, vault, controlPlane, ...(history ? { history } : {}) });
    expect(brief(bad, 'Ready')).toBe('False Sealed');
    expect(brief(bad, 'IntermediateReady')).toBe('Unknown Sealed');
  });

  it('go when Vault was read and they are gone', () => {
    const good = status(provisioned());
    const gone = status(emptyWorld(), [], resource(good));
    expect([gone.root, gone.intermediate]).toEqual([undefined, undefined]);
  });

  it('is the text that a look was asked with', () => {
    const asked = resource(undefined, { annotations: { 'istiovaultca.io/reconcile-requested-at': 'x'.repeat(300) } });
    expect(status(provisioned(), [], asked).lastHandledReconcileAt).toBe('x'.repeat(256));
    expect(status(provisioned())).not.toHaveProperty('lastHandledReconcileAt');
  });

  it.each<{ reason: string; spec: Record<string, unknown>; condition: string; says: string }>([
    {
      reason: 'RootSpecChanged',
      spec: { root: { commonName: 'Other' } },
      condition: 'RootReady',
      says: 'commonName: Istio Root CA → Other',
    },
  ])('$reason names what differs from what was issued', ({ reason, spec, condition, says }) => {
    const s = statusOf({ resource: resource(), desired: desiredOf(spec), observed: provisioned(), problems: [], now });
    expect([brief(s, condition), brief(s, 'Stalled')]).toEqual([`False ${reason}`, `True ${reason}`]);
    expect(find(s, condition)?.message).toContain(says);
  });
});

describe('mode: Plan', () => {
  const pendingOf = (world: Observed) =>
    statusOf({ resource: resource(), desired: d, observed: world, problems: [], pending: simulate(d, world, (o) => plan(d, o, now), now), now }); // prettier-ignore

  it('lists the whole way, and waits for a person', () => {
    const s = pendingOf(emptyWorld());
    expect(statusSchema.parse(s)).toEqual(s);
    expect(s.plan?.map((step) => step.target)).toEqual(
      expect.arrayContaining(['vault:sys/mounts/pki', 'vault:sys/mounts/istioca', 'vault:live', 'controlPlane:fields']),
    );
    expect([brief(s, 'Ready'), brief(s, 'KeyStored'), find(s, 'Reconciling'), find(s, 'Stalled')]).toEqual([
      'False ChangesPending',
      'False ChangesPending',
      undefined,
      undefined,
    ]);
  });

  it('with nothing to do says what it would say anyway', () => {
    const s = pendingOf(provisioned());
    expect([s.plan, brief(s, 'Ready'), brief(s, 'Provisioned')]).toEqual([
      undefined,
      'Unknown IstiodNotFound',
      'True Provisioned',
    ]);
  });
});

describe('suspended', () => {
  const suspended = (s?: Status) => suspendedStatus(resource(s, { generation: 8 }), now);

  it('Ready keeps its status and says so; all else that was seen stays', () => {
    for (const [world, problems] of [[provisioned(), []], [undefined, [problem('VaultReady', 'MountNotOwned')]]] as const) {
      const before = status(world, [...problems], resource(), now - hour);
      const s = suspended(before);
      expect(statusSchema.parse(s)).toEqual(s);
      expect(s.observedGeneration).toBe(8);
      expect(find(s, 'Ready')).toMatchObject({
        status: find(before, 'Ready')?.status,
        reason: 'Suspended',
        observedGeneration: 8,
        lastTransitionTime: time(now - hour),
      });
      expect([find(s, 'Stalled'), find(s, 'Reconciling')]).toEqual([undefined, undefined]);
      for (const type of readyChain) expect(brief(s, type)).toBe(brief(before, type));
      expect([s.root, s.intermediate]).toEqual([before.root, before.intermediate]);
    }
  }); // prettier-ignore

  it('from the beginning: Ready is Unknown', () => {
    expect(suspended().conditions).toEqual([
      {
        type: 'Ready',
        status: 'Unknown',
        reason: 'Suspended',
        message: 'spec.suspend is true: nothing is read or written until it is false',
        observedGeneration: 8,
        lastTransitionTime: time(now),
      },
    ]);
  });

  it('again changes nothing, and going on ends it', () => {
    const once = suspended(status(provisioned()));
    expect(suspendedStatus(resource(once, { generation: 8 }), now + hour)).toEqual(once);
    expect(brief(status(provisioned(), [], resource(once)), 'Ready')).toBe('Unknown IstiodNotFound');
  });
});

describe('a new generation', () => {
  it('is never taken for finished before it was looked at', () => {
    const before = status(provisioned(), [], resource(), now - hour);
    for (const old of [undefined, before]) {
      const s = startingStatus({ resource: resource(old), desired: d, observed: undefined, problems: [], now });
      expect(statusSchema.parse(s)).toEqual(s);
      expect(s.observedGeneration).toBe(7);
      expect([brief(s, 'Ready'), brief(s, 'Reconciling'), brief(s, 'Stalled')]).toEqual([
        'Unknown Progressing',
        'True Progressing',
        undefined,
      ]);
      expect(s.intermediate).toEqual(old?.intermediate);
    }
  });
});
