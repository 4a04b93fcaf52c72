import { describe, expect, it } from '@jest/globals';
import type { Problem } from '../plan/facts/problem.ts';
import type { Step } from '../plan/steps.ts';
import { exitCode, planJson, planText } from './print-plan.ts';

const steps: Step[] = [
  { kind: 'MountKV', mount: 'kv', version: 2, description: '' },
  { kind: 'WritePolicy', name: 'istioca', text: '' },
];
const problem = (reason: Problem['reason'], blocks: Problem['blocks'], message = 'do this'): Problem => ({
  condition: 'ControlPlanePatched',
  reason,
  message,
  blocks,
});

describe('the exit code', () => {
  it.each<[number, string, Step[], Problem[]]>([
    [0, 'nothing to do', [], []],
    [2, 'something to do', steps, []],
    [1, 'nothing gets past it', [], [problem('Sealed', 'all')]],
    [1, 'a person must decide, though Vault can be set up', steps, [problem('FieldConflict', 'controlPlane')]],
    [1, 'it could not be seen', steps, [problem('KubernetesError', 'nothing')]],
    [2, 'something is waited for', steps, [problem('ControlPlaneNotFound', 'controlPlane')]],
    [0, 'a commit is waited for', [], [problem('AwaitingCommit', 'controlPlane')]],
  ])('is %i: %s', (code, _, planned, problems) => {
    expect(exitCode({ steps: planned, problems })).toBe(code);
  });
});

describe('for people', () => {
  it('a line a step, a line a problem, a summary', () => {
    const problems = [
      problem('ControlPlaneNotFound', 'controlPlane'),
      problem('FieldConflict', 'controlPlane', 'a\n b'),
    ];
    expect(planText({ steps, problems }).split('\n')).toEqual([
      'Create  vault:sys/mounts/kv             Enable KV version 2 at mount kv/',
      'Update  vault:sys/policies/acl/istioca  Write policy istioca',
      'ControlPlanePatched  ControlPlaneNotFound  do this',
      'ControlPlanePatched  FieldConflict         a b',
      '2 steps to take; in the way: FieldConflict; waits for: ControlPlaneNotFound. Nothing was changed.',
      '',
    ]);
  });

  it('is short when there is little to say', () => {
    expect(planText({ steps: [], problems: [] })).toBe('nothing to do. Nothing was changed.\n');
    expect(planText({ steps: [], problems: [], suspended: true })).toContain('spec.suspend');
    expect(planText({ steps: [], problems: [problem('Sealed', 'all')] })).toMatch(/\nin the way: Sealed\. Nothing/);
  });

  it('carries no token that got into a message', () => {
    const token = `hvs.${'x'.repeat(30)}`;
    const shown = { steps: [], problems: [problem('VaultError', 'all', token)] };
    expect(planText(shown) + planJson(shown)).not.toContain(token);
  });
});

it('JSON says the same', () => {
  expect(
    JSON.parse(planJson({ steps: steps.slice(0, 1), problems: [problem('AwaitingCommit', 'controlPlane')] })),
  ).toEqual({
    steps: [{ action: 'Create', target: 'vault:sys/mounts/kv', message: 'Enable KV version 2 at mount kv/' }],
    problems: [
      { condition: 'ControlPlanePatched', reason: 'AwaitingCommit', message: 'do this', blocks: 'controlPlane' },
    ],
    summary: '1 step to take; waits for: AwaitingCommit. Nothing was changed.',
  });
});
