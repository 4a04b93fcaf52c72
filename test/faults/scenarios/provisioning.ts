/** From nothing to a provisioned control plane. */
import { kubernetesEssence, vaultEssence } from '../essence.ts';
import type { Scenario } from './scenario.ts';

export const provisioning: Scenario = {
  name: 'provisioning',
  reusable: false,
  leastWrites: 13,
  expected: {
    issuers: { root: 1, intermediate: 1 },
    keys: { root: 1, intermediate: 1 },
    liveDefects: [],
    liveIsDefault: true,
    staging: 'none',
  },
  prepare: () => Promise.resolve(),
  act: (stage) => stage.apply(),
  settled: async (stage) => {
    await stage.provisioned();
  },
  look: (stage) => stage.look(),
  essence: async (stage) => ({ ...(await vaultEssence(stage)), ...(await kubernetesEssence(stage)) }),
};
