/**
 * What people and scripts do with kubectl: apply, wait, get and describe, with the real program.
 * @servers kubectl
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { makeTemporaryDir, sharedStack } from '../stack/index.ts';
import type { Json } from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { podTemplateOf } from '../support/istiod-pod.ts';
import {
  issueLeaf,
  playIstiod,
  Replicas,
  wellAt,
  writeMeshRoot,
  type PlayedIstiod,
} from '../support/istiod-replicas.ts';
import { kubectl } from '../support/kubectl.ts';
import { servedBy } from '../support/look.ts';
import { makeScene, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
/** An operator that looks elsewhere: what is written meanwhile, it finds later. */
const elsewhere = ['--namespaces=kube-public'];
const { restart } = useOperator(elsewhere);
const namespace = 'by-kubectl';
const run = (...args: string[]) => kubectl(kube, '--namespace', namespace, ...args);
const wait = (condition: string, timeout = '60s') =>
  run('wait', 'ivca/istioca', `--for=condition=${condition}`, `--timeout=${timeout}`);
/** What kubectl says when a condition does not hold right now. */
const notNow = { message: expect.stringMatching(/condition not met|timed out waiting for the condition/) as unknown };

/** The one row of `kubectl get`, by column: what stands under its name. */
async function row(...args: string[]): Promise<Record<string, string>> {
  const [head = '', line = '', ...others] = (await run('get', 'ivca', ...args)).trimEnd().split('\n');
  expect(others).toEqual([]);
  const columns = [...head.matchAll(/\S+(?: \S+)*/g)];
  return Object.fromEntries(
    columns.map(({ 0: name, index }, i) => [name, line.slice(index, columns[i + 1]?.index).trim()]),
  );
}

let scene: Scene;
let istiods: PlayedIstiod[] = [];

beforeAll(async () => {
  scene = await makeScene(kube, vaults.OpenBao, { namespace });
});
afterAll(() => istiods.forEach(({ server }) => server.close()));

/** Two replicas that serve the CA. */
async function startReplicas(): Promise<void> {
  const [leaf, root] = await Promise.all([issueLeaf(scene), servedBy(scene, 'pki')]);
  istiods = await Promise.all([playIstiod(leaf), playIstiod(leaf)]);
  const path = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
  const replicas = new Replicas(scene, podTemplateOf((await kube.request('GET', path)).body as Json));
  await writeMeshRoot(kube, namespace, root);
  await replicas.deploy(2);
  for (const [i, { address }] of istiods.entries()) await replicas.pod(`istiod-${i + 1}`, wellAt(address));
}

it('a resource that the operator has not seen is not finished, for kstatus too', async () => {
  const file = join(makeTemporaryDir('manifest'), 'istioca.json');
  writeFileSync(file, JSON.stringify(scene.resource));
  expect(await run('apply', '-f', file)).toContain('created');
  // without a generation kstatus would take it for Current
  expect(JSON.parse(await run('get', 'ivca', 'istioca', '-o=jsonpath={.status}'))).toEqual({ observedGeneration: -1 });
  await expect(wait('Provisioned', '0s')).rejects.toMatchObject(notNow);
  expect(await row()).toMatchObject({ NAME: 'istioca', READY: '', REASON: '' });
});

it('wait --for=condition=Provisioned ends when the CA is there, before there is an istiod', async () => {
  await restart(['--resync=2s']);
  expect(await wait('Provisioned')).toContain('condition met');
  await expect(wait('Ready', '0s')).rejects.toMatchObject(notNow);
  expect(await row()).toEqual({
    NAME: 'istioca',
    READY: 'Unknown',
    REASON: 'IstiodNotFound',
    ISTIOD: '',
    EXPIRES: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/) as unknown,
    AGE: expect.stringMatching(/^\d+[sm]/) as unknown,
  });
});

it('wait --for=condition=Ready ends when every replica is proven', async () => {
  const [said] = await Promise.all([wait('Ready'), startReplicas()]);
  expect(said).toContain('condition met');
  expect(await row()).toMatchObject({ READY: 'True', REASON: 'Ready', ISTIOD: '2/2' });
  expect(await row('-o=wide')).toMatchObject({
    'ROOT EXPIRES': expect.stringMatching(/^\d{4}-/) as unknown,
    VAULT: scene.vault.address,
    'CONTROL PLANE': 'controlplane',
  });
});

it('wait does not take the conditions of an older spec for those of this one', async () => {
  await restart(elsewhere);
  await run('patch', 'ivca/istioca', '--type=merge', '--patch={"spec":{"intermediate":{"renewBefore":"1000h"}}}');
  for (const condition of ['Provisioned', 'Ready']) await expect(wait(condition, '0s')).rejects.toMatchObject(notNow);
  await restart(['--resync=2s']);
  for (const condition of ['Provisioned', 'Ready']) expect(await wait(condition)).toContain('condition met');
});

it('describe tells how it is, why, and what was done', async () => {
  const text = await run('describe', 'ivca', 'istioca');
  for (const type of ['Ready', 'VaultReady', 'KeyStored', 'Provisioned', 'IstiodReady'])
    expect(text).toMatch(new RegExp(`^ +Type: +${type}$`, 'm'));
  expect(text).toMatch(/^ +Message: +every istiod replica serves this CA$/m);
  expect(text).toMatch(/^ +Pod: +istiod-1$/m);
  expect(text).toMatch(/^ +Istiod Proven: +2\/2$/m);
  const events = text.slice(text.indexOf('\nEvents:'));
  expect(events).toMatch(/^ +Normal +IntermediateSigned /m);
  expect(events).toMatch(/^ +Normal +Ready .*every istiod replica serves this CA$/m);
  expect(text).not.toContain('PRIVATE KEY');
});

it('wait --for=delete ends when it is gone', async () => {
  await run('delete', 'ivca/istioca', '--wait=false');
  await run('wait', 'ivca/istioca', '--for=delete', '--timeout=60s');
  await expect(run('get', 'ivca', 'istioca')).rejects.toThrow(/NotFound/);
});
