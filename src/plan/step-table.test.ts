import { describe, expect, it } from '@jest/globals';
import { desiredOf, converge, derived, emptyWorld, start } from '../../test/unit/model.ts';
import { cleanup } from './vault/cleanup.ts';
import { describeDone, describePlanned } from './step-table.ts';
import type { Step } from './steps.ts';

const leaving = { deletionPolicy: 'Delete' };
const d = desiredOf(leaving);
const { done, world } = converge(d, emptyWorld());
const away = converge(
  d,
  {
    ...world,
    vault: { ...world.vault, remains: { otherEntries: [], otherRoles: [], rootMountRoles: [], signed: [] } },
  },
  { next: cleanup, now: start },
);
const steps: Step[] = [...done, ...away.done];

describe('the words of a step', () => {
  it.each([...new Map(steps.map((step) => [step.kind, step]))])(
    '%s: a plan asks for it, an Event reports it',
    (_, step) => {
      const planned = describePlanned(step).message;
      const reported = describeDone(step).message;
      // what is still to be done must not read as done
      expect(planned).toMatch(
        /^(Set|Enable|Record|Tune|Configure|Write|Generate|Create|Stage|Destroy|Import|Sign|Restore|Publish|Make|Limit|Remove|Release|Delete|Disable) /,
      );
      expect(reported).toMatch(/^(Set|[A-Z][a-z]+ed|Wrote|Made) /);
      for (const text of [planned, reported]) expect(text).not.toMatch(/undefined|\.$/);
    },
  );

  it('of a repetition say what was wrong with the object', () => {
    expect(describeDone({ kind: 'WritePolicy', name: 'istioca', text: '' }, true).message).toBe(
      'Updated policy istioca: it was missing or differed from the desired state',
    );
  });

  it('of an ordinary renewal speak of no repair', () => {
    const asked = desiredOf({}, { 'istiovaultca.io/rotate-intermediate': 'now' });
    const { done: renewal } = converge(asked, converge(desiredOf(), emptyWorld()).world);
    expect(renewal.map(({ kind }) => kind)).toEqual(expect.arrayContaining(['ImportKey', 'SetDefaultIssuer']));
    expect(
      renewal.map((step) => describeDone(step, true).message).filter((text) => /missing|differed/.test(text)),
    ).toEqual([]);
  });

  it('a first reconcile and a deletion bring about most kinds', () => {
    expect(derived(d, world).currentCa).toBeDefined();
    expect(new Set(steps.map(({ kind }) => kind)).size).toBeGreaterThan(15);
  });
});
