/**
 * `deletionPolicy: Delete`: the objects that the resource created are removed, the root mount only if confirmed; the control plane is
 * restored.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Stage } from '../stage.ts';
import type { Scenario } from './scenario.ts';

/** The objects of the stage that still exist in Vault. */
async function left(stage: Stage): Promise<string[]> {
  const { mounts, policy, name, vault } = stage;
  const paths = [
    ['root mount', `sys/mounts/${mounts.root}`],
    ['intermediate mount', `sys/mounts/${mounts.intermediate}`],
    ['KV mount', `sys/mounts/${mounts.keyStore}`],
    ['live entry', stage.entryPath()],
    ['staged entry', stage.entryPath('-staging')],
    ['state', stage.entryPath('-state')],
    ['policy', `sys/policies/acl/${policy}`],
    ['role', `auth/kubernetes/role/${name}-istiod`],
  ] as const;
  const statuses = await Promise.all(paths.map(async ([, path]) => (await vault.request('GET', path)).status));
  return paths.filter((_, i) => statuses[i] === 200).map(([what]) => what);
}

/** A provisioned resource; in the second scenario with a confirmed removal of the root. */
async function prepare(stage: Stage, confirm: boolean): Promise<void> {
  stage.notes.set('spec', (await stage.controlPlane())['spec']);
  await stage.apply();
  const serial = (await stage.provisioned()).status?.root?.serial ?? '';
  if (confirm) await stage.annotate({ 'istiovaultca.io/confirm-delete-root': serial });
  await stage.look();
}

const scenario = (name: string, confirm: boolean): Scenario => ({
  name,
  reusable: false,
  leastWrites: 5,
  expected: { left: confirm ? [] : ['root mount', 'KV mount', 'state'], controlPlaneAsBefore: true },
  spec: () => ({ deletionPolicy: 'Delete' }),
  rights: { rootGoes: confirm },
  prepare: (stage) => prepare(stage, confirm),
  act: async ({ kube, path }) => {
    await kube.request('DELETE', path);
  },
  settled: async (stage) => {
    await stage.wait('gone', (resource) => resource === undefined);
  },
  look: () => Promise.resolve(),
  essence: async (stage) => {
    const { spec, metadata } = (await stage.controlPlane()) as { spec: unknown; metadata: { annotations?: object } };
    return {
      left: await left(stage),
      controlPlaneAsBefore: isDeepStrictEqual(spec, stage.notes.get('spec')),
      annotations: Object.keys(metadata.annotations ?? {}),
    };
  },
});

export const deletion = scenario('deletion', false);
export const deletionWithRoot = scenario('deletion with the root', true);
