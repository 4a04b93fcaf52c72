/** How long the finalizer blocks a deletion, with a fake API server. Tests with real servers verify the cleanup itself. */
import { beforeEach, describe, expect, it } from '@jest/globals';
import type { JsonObject } from '../api/json.ts';
import { identity, minimalSpec } from '../../test/unit/model.ts';
import { finalizer } from '../api/annotations.ts';
import { group, kind, resourceSchema, version } from '../api/schema.ts';
import { clientOn } from '../kube/client.ts';
import { silentLogger } from '../runtime/logger.ts';
import { desire } from '../plan/facts/desired.ts';
import { FakeClock } from '../runtime/fake-clock.ts';
import { internalError } from '../plan/facts/problem.ts';
import { Deletion } from './deletion.ts';
import type { ReconcileLoop } from './reconcile-loop.ts';
import { plainJson, Reporter } from './report.ts';

const minute = 60_000;
const deadlineMs = 10 * minute;

let clock: FakeClock;
let terminating: boolean;
/** Set: the API server answers a question about the namespace only when this is called. */
let answersLate: ((answer: () => void) => void) | undefined;
/** The address is allowed, and the cleanup hangs until its signal aborts. */
let hangs: boolean;
/** The finalizer lists that were written. */
let finalizers: unknown[];
/** Notes of the `CleanupIncomplete` Events. */
let notes: string[];
let deletion: Deletion;

beforeEach(() => {
  clock = new FakeClock();
  terminating = false;
  finalizers = [];
  notes = [];
  const kube = clientOn(({ method, path, body }) => {
    if (path.includes('/namespaces/') && method === 'GET') {
      const answer = { metadata: terminating ? { deletionTimestamp: '2026-01-01T00:00:00Z' } : {} };
      return answersLate ? new Promise((resolve) => answersLate?.(() => resolve(answer))) : Promise.resolve(answer);
    }
    const written = (body as { metadata?: { finalizers?: unknown } }).metadata?.finalizers;
    if (written !== undefined) finalizers.push(written);
    return Promise.resolve({});
  });
  const record = ({ reason, note }: { reason: string; note: string }) => {
    if (reason === 'CleanupIncomplete') notes.push(note);
  };
  // the address is not allowed, so no request reaches a Vault server, and the cleanup never completes
  hangs = false;
  answersLate = undefined;
  const options = { kube, logger: silentLogger, clock, addressAllowed: () => hangs, deletionDeadlineMs: deadlineMs };
  const failed = { observed: undefined, problems: [internalError], unfinished: false };
  const loop: Pick<ReconcileLoop, 'run'> = {
    run: (_resource, _desired, _purpose, signal) =>
      new Promise((resolve) => signal.addEventListener('abort', () => resolve(failed), { once: true })),
  };
  deletion = new Deletion(options, new Reporter(kube, { record }, silentLogger), loop);
}); // prettier-ignore

/** One reconcile of a deletion. @returns when the deletion is rechecked, in milliseconds; `undefined`: the finalizer is removed */
async function look(metadata: Record<string, unknown> = {}): Promise<number | undefined> {
  const raw: JsonObject = plainJson({
    apiVersion: `${group}/${version}`,
    kind,
    metadata: { ...identity, resourceVersion: '1', finalizers: [finalizer], deletionTimestamp: '2026-01-01T00:00:00Z', ...metadata },
    spec: { ...minimalSpec(), deletionPolicy: 'Delete' },
  }); // prettier-ignore
  const resource = resourceSchema.parse(raw);
  const desired = desire(identity, resource.spec, resource.metadata.annotations);
  const { signal } = new AbortController();
  const outcome = await deletion.reconcile(raw, resource, desired, { stop: signal, signal });
  return outcome && 'requeueAfterMs' in outcome ? outcome.requeueAfterMs : undefined;
}

describe('the deadline', () => {
  it.each([
    ['now', '2026-01-01T00:00:00Z'],
    ['long past, by a clock that is behind or for want of an operator', '2020-01-01T00:00:00Z'],
    ['to come, by a clock that is ahead', '2030-01-01T00:00:00Z'],
  ])('is a whole one from the first look, when the deletion is %s', async (_, deletionTimestamp) => {
    expect(await look({ deletionTimestamp })).toBe(5_000);
    await clock.advance(deadlineMs - 1);
    expect(await look({ deletionTimestamp })).toBe(1);
    expect([finalizers, notes]).toEqual([[], []]);
    await clock.advance(1);
    expect(await look({ deletionTimestamp })).toBeUndefined();
    expect(finalizers).toEqual([[]]);
    expect(notes).toEqual([expect.stringMatching(/^gave up \(the deletion deadline has passed\)/)]);
  });

  it.each([
    ['forward', 60 * minute],
    ['back', -60 * minute],
  ])('stays where it is when the machine’s clock is set %s', async (_, byMs) => {
    await look();
    clock.set(byMs);
    await clock.advance(deadlineMs - 1);
    expect(await look()).toBe(1);
    await clock.advance(1);
    expect(await look()).toBeUndefined();
  });

  it('is anew for another resource of the same name, be it that the one before was let go, was gone, or was never seen to go', async () => {
    await look();
    await clock.advance(deadlineMs);
    await look();
    expect(await look()).toBe(5_000);
    await clock.advance(deadlineMs);
    deletion.forget('istio-system/istioca');
    expect(await look()).toBe(5_000);
    await clock.advance(deadlineMs);
    expect(await look({ uid: 'u-2' })).toBe(5_000);
  });

  it('does not count in a namespace that is being deleted: it gives up after one try', async () => {
    terminating = true;
    expect(await look({ deletionTimestamp: '2030-01-01T00:00:00Z' })).toBeUndefined();
    expect([finalizers, notes]).toEqual([[[]], [expect.stringContaining('the namespace is being deleted')]]);
  });

  it('does not count with skip-cleanup: nothing is tried', async () => {
    expect(await look({ annotations: { 'istiovaultca.io/skip-cleanup': 'true' } })).toBeUndefined();
    expect([finalizers, notes]).toEqual([[[]], [expect.stringContaining('skip-cleanup')]]);
  });
});

describe('while a cleanup hangs', () => {
  beforeEach(() => {
    hangs = true;
  });

  it('the deadline holds', async () => {
    const done = look();
    await clock.advance(deadlineMs - 1);
    expect(notes).toEqual([]);
    await clock.advance(1);
    expect(await done).toBeUndefined();
    expect(notes).toEqual([expect.stringMatching(/^gave up \(the deletion deadline has passed\)/)]);
    expect(clock.pending).toBe(0);
  });

  it('nothing is looked at any more once it is over, also if the API server answers late', async () => {
    let late: (() => void) | undefined;
    answersLate = (answer) => {
      late = answer;
    };
    const done = look();
    await clock.advance(5_000);
    await clock.advance(deadlineMs - 5_000);
    answersLate = undefined;
    expect(await done).toBeUndefined();
    late?.();
    await clock.advance(60_000);
    expect(clock.pending).toBe(0);
  });

  it('it gives up soon after its namespace begins to be deleted', async () => {
    const done = look();
    await clock.advance(minute);
    terminating = true;
    await clock.advance(5_000);
    expect(await done).toBeUndefined();
    expect(notes).toEqual([expect.stringContaining('the namespace is being deleted')]);
    expect(clock.pending).toBe(0);
  });
});
