/** The token of the token reviewer, which Vault never shows: how often the configuration of the auth mount is written because of it. */
import { describe, expect, it } from '@jest/globals';
import type { Observed } from '../../src/plan/facts/observed.ts';
import { plan } from '../../src/plan/plan.ts';
import { simulateStep } from '../../src/plan/simulate.ts';
import type { Step, StepKind } from '../../src/plan/steps.ts';
import { converge, desiredOf, emptyWorld, start } from './model.ts';

const d = desiredOf({
  kubernetesAuth: {
    config: { tokenReviewer: { mode: 'Secret', secretRef: { name: 'istio-vault-ca-reviewer', key: 'token' } } },
  },
});

/** A world without an auth mount, so that the operator makes it. @param reviewerHash of the token in the Secret */
function empty(reviewerHash: string): Observed {
  const world = emptyWorld();
  world.vault.authMount = undefined;
  Object.assign(world.kubernetes, { reviewerHash, kubernetesCa: 'a' });
  return world;
}

/**
 * Reconciles several times while the steps of one kind fail: a failed step ends a reconcile, and the next one does not know what was written.
 * @returns the kinds of the steps that were carried out
 */
function reconcileWhileFailing(from: Observed, failing: StepKind): StepKind[] {
  const done: StepKind[] = [];
  let world = from;
  for (let reconcile = 0; reconcile < 5; reconcile += 1) {
    world.vault.reviewerWritten = undefined;
    for (let steps: Step[] = plan(d, world, start).steps, ok = true; ok && steps.length > 0;) {
      for (const step of steps.filter(({ kind }) => kind !== failing)) {
        world = simulateStep(d, world, step, start);
        done.push(step.kind);
      }
      ok = steps.every(({ kind }) => kind !== failing);
      steps = plan(d, world, start).steps;
    }
  }
  return done;
}

const writes = (kinds: StepKind[]) => kinds.filter((kind) => kind === 'WriteAuthConfig').length;

describe('a changed token', () => {
  it('is written once', () => {
    const { world } = converge(d, empty('one'));
    Object.assign(world.kubernetes, { reviewerHash: 'two' });
    world.vault.reviewerWritten = undefined;
    const { done, last, world: at } = converge(d, world);
    expect(done.map(({ kind }) => kind)).toEqual(['WriteAuthConfig', 'WriteState']);
    expect(last).toEqual({ problems: [], steps: [] });
    at.vault.reviewerWritten = undefined;
    expect(plan(d, at, start).steps).toEqual([]);
  });

  it.each<[StepKind, (world: Observed) => void]>([
    ['WritePolicy', ({ vault }) => void (vault.policy = `${vault.policy ?? ''}# changed`)],
    ['WriteRole', ({ vault }) => void (vault.role = undefined)],
    ['LimitVersions', ({ vault }) => void (vault.liveVersions = 7)],
  ])('is written once, also while %s fails again and again', (failing, damage) => {
    const { world } = converge(d, empty('one'));
    Object.assign(world.kubernetes, { reviewerHash: 'two' });
    damage(world);
    expect(writes(reconcileWhileFailing(world, failing))).toBe(1);
  });
});

describe('the first token', () => {
  it('is written no more than once again, while another step fails again and again', () => {
    expect(writes(reconcileWhileFailing(empty('one'), 'GenerateRoot'))).toBeLessThanOrEqual(2);
  });

  it('holds up nothing else if the configuration cannot be written', () => {
    const kinds = reconcileWhileFailing(empty('one'), 'WriteAuthConfig');
    expect(kinds).toEqual(expect.arrayContaining(['GenerateRoot', 'PublishLive', 'WriteRole']));
  });
});
