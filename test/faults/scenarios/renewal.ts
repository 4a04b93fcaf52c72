/** A new intermediate on request, on a resource that has its current and its previous generation already. */
import type { Resource } from '../../support/cluster.ts';
import { kubernetesEssence, vaultEssence } from '../essence.ts';
import type { Stage } from '../stage.ts';
import type { Scenario } from './scenario.ts';

const generationOf = (resource: Resource | undefined): number => resource?.status?.intermediate?.generation ?? 0;
const before = (stage: Stage): number => Number(stage.notes.get('generation') ?? 0);

/** Requests a new intermediate. */
async function rotate(stage: Stage): Promise<void> {
  const generation = generationOf(await stage.provisioned());
  stage.notes.set('generation', generation);
  await stage.annotate({ 'istiovaultca.io/rotate-intermediate': `from ${generation}` });
}

async function rotated(stage: Stage): Promise<void> {
  await stage.provisioned((resource) => generationOf(resource) > before(stage));
}

export const renewal: Scenario = {
  name: 'renewal',
  reusable: true,
  leastWrites: 7,
  expected: {
    issuers: { root: 1, intermediate: 2 },
    liveDefects: [],
    liveIsDefault: true,
    staging: 'none',
    generations: { live: 1, highest: 1, recorded: 1, root: 1 },
  },
  prepare: async (stage) => {
    await stage.apply();
    await stage.provisioned();
    await rotate(stage);
    await rotated(stage);
    await stage.look();
  },
  act: rotate,
  settled: rotated,
  look: (stage) => stage.look(),
  essence: async (stage) => ({ ...(await vaultEssence(stage, before(stage))), ...(await kubernetesEssence(stage)) }),
};
