/**
 * A rival that takes the fields back: a loop that applies the user's manifest again, as a GitOps tool does.
 * @servers kubectl
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { dig } from '../../src/api/json.ts';
import { dumpYaml } from '../../src/runtime/yaml.ts';
import { makeTemporaryDir, sharedStack, waitFor } from '../stack/index.ts';
import { kubeWrites } from '../support/audit.ts';
import { applyOk, conditionOf, requestReconcile, waitForCondition } from '../support/cluster.ts';
import { eventsOf } from '../support/events.ts';
import { useOperator } from '../support/harness.ts';
import { kubectl } from '../support/kubectl.ts';
import { controlPlane, makeScene, merge, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
useOperator(['--contest-probe=3s']);

const namespace = 'contest';
const path = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
let of: Scene;
let rounds = 0;
let rival: { stop: () => Promise<void> } | undefined;

/** Applies what is in Git every second, until it is stopped. */
function startRival(manager: string): { stop: () => Promise<void> } {
  const file = join(makeTemporaryDir('rival'), 'controlplane.yaml');
  const marks = {
    metadata: { annotations: { 'argocd.argoproj.io/tracking-id': 'mesh:install.tetrate.io/ControlPlane' } },
  };
  writeFileSync(
    file,
    dumpYaml(merge(controlPlane(namespace, [{ kind: 'Deployment', name: 'other', patches: [] }]), marks)),
  );
  const end = new AbortController();
  const loop = (async () => {
    while (!end.signal.aborted) {
      await kubectl(kube, 'apply', '--server-side', '--force-conflicts', `--field-manager=${manager}`, '-f', file);
      rounds += 1;
      await pause(1_000, undefined, { signal: end.signal }).catch(() => undefined);
    }
  })();
  return {
    stop: async () => {
      end.abort();
      await loop;
    },
  };
}

/** How often the operator has patched the ControlPlane; where the rival was faster, it was refused. */
const patches = async (): Promise<number> =>
  (await kubeWrites(kube, undefined, 'done')).filter(
    (line) => line === `patch controlplanes/ ${namespace}/controlplane`,
  ).length;
const carries = async (): Promise<boolean> =>
  JSON.stringify((await kube.request('GET', path)).body).includes('ROOT_CA_DIR');
const round = async (more: number) => {
  const from = rounds;
  await waitFor(`the rival to have applied ${more} times more`, () => rounds >= from + more, {
    timeoutMs: more * 5_000,
  });
};

beforeAll(async () => {
  of = await makeScene(kube, vaults.OpenBao, { namespace });
  await applyOk(kube, of.resource);
  await waitForCondition(kube, namespace, of.name, { type: 'ControlPlanePatched', status: 'True' });
});
afterAll(() => rival?.stop());

it('is not fought for ever: the third time the operator stops, and says what makes peace', async () => {
  rival = startRival('argocd-controller');
  const resource = await waitForCondition(kube, namespace, of.name, {
    type: 'Stalled',
    status: 'True',
    reason: 'ContestedField',
  });
  // the claim, the first write, and the two after it was taken back; what follows are tries
  expect(await patches()).toBeLessThanOrEqual(4 + 1);
  const message = conditionOf(resource, 'ControlPlanePatched')?.message ?? '';
  expect(message).toContain('Argo CD (field manager argocd-controller) reverted the fields of the operator');
  expect(message).toContain(
    '`ignoreDifferences: [{group: install.tetrate.io, kind: ControlPlane, name: controlplane, jsonPointers: [/spec/components/istio/kubeSpec/overlays]}]`',
  );
  expect(message).toContain('spec.controlPlane.write: Render');
  // nothing else of the CA suffers from it
  for (const type of ['VaultReady', 'RootReady', 'IntermediateReady', 'KeyStored', 'AccessReady'])
    expect(conditionOf(resource, type)?.status).toBe('True');
});

it('is tried more and more seldom while the rival goes on', async () => {
  const [before, began] = [await patches(), Date.now()];
  await round(20);
  const tries = (await patches()) - before;
  // every second the rival, 3, 6, 12 seconds after one another the operator: n tries take 3 * (2^n - 1) seconds
  expect(tries).toBeGreaterThanOrEqual(1);
  expect(tries).toBeLessThanOrEqual(Math.log2((Date.now() - began) / 3_000 + 1) + 1);
  await waitForCondition(kube, namespace, of.name, { type: 'Stalled', status: 'True', reason: 'ContestedField' });
});

it('is over when the rival stops', async () => {
  await rival?.stop();
  rival = undefined;
  const resource = await waitForCondition(
    kube,
    namespace,
    of.name,
    { type: 'ControlPlanePatched', status: 'True' },
    60_000,
  );
  expect(conditionOf(resource, 'Stalled')).toBeUndefined();
  // what the rival did last may have undone a try
  await waitFor('the fields to stand', carries, { timeoutMs: 60_000 });
  // the rival's own entry has stayed
  expect(JSON.stringify(dig((await kube.request('GET', path)).body, 'spec'))).toContain('"name":"other"');
});

it('is tried at once when a person asks', async () => {
  rival = startRival('argocd-controller');
  await waitForCondition(kube, namespace, of.name, { type: 'Stalled', status: 'True', reason: 'ContestedField' });
  const before = await patches();
  await rival.stop();
  rival = undefined;
  await requestReconcile(kube, namespace, of.name, 'now');
  await waitForCondition(kube, namespace, of.name, { type: 'ControlPlanePatched', status: 'True' });
  expect(await patches()).toBeGreaterThan(before);
});

it('is foretold: a tool that manages the field is warned of before the first write', async () => {
  const early = await makeScene(kube, vaults.OpenBao, { namespace: 'contest-foretold', overlays: null });
  const file = join(makeTemporaryDir('rival'), 'controlplane.yaml');
  writeFileSync(file, dumpYaml(controlPlane(early.namespace, [{ kind: 'Deployment', name: 'other', patches: [] }])));
  await kubectl(kube, 'apply', '--server-side', '--field-manager=kustomize-controller', '-f', file);
  await applyOk(kube, early.resource);
  const event = await waitFor('the Event', async () => {
    return (await eventsOf(kube, early.namespace)).find(({ reason }) => reason === 'ManagedElsewhere');
  });
  expect(event.note).toContain('Flux (field manager kustomize-controller) manages the field that is written now');
  expect(event.note).toContain('spec.controlPlane.write: Render');
});
