/**
 * Provisioning, with every single write to Vault failing once: its answer lost, or the operator killed right after it. What is
 * left at the end must be what an undisturbed run leaves. The servers are real; only the connection between is made to fail.
 * `npm run test:faults` does it with every request and every fault.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { isDeepStrictEqual } from 'node:util';
import { Provisioning } from '../faults/provisioning.ts';
import { isVaultWrite } from '../faults/proxy.ts';
import { sharedStack } from '../stack/index.ts';

const provisioning = new Provisioning(sharedStack());

beforeAll(async () => {
  await provisioning.start();
});

afterAll(async () => {
  await provisioning.stop();
});

describe.each([
  { product: 'OpenBao', source: 'Bundle', version: 2 },
  { product: 'Vault', source: 'PKI', version: 1 },
] as const)('$product, $source delivery, KV $version', (configuration) => {
  it.each(['answer lost', 'killed after'] as const)('each write %s: the end is the same', async (fault) => {
    const undisturbed = await provisioning.run(configuration, isVaultWrite);
    expect(undisturbed.end).toMatchObject({
      issuers: { root: 1, intermediate: 1 },
      keys: { root: 1, intermediate: 1 },
      liveDefects: [],
      liveIsDefault: true,
    });
    expect(undisturbed.requests.length).toBeGreaterThanOrEqual(13);
    const different: unknown[] = [];
    for (const [index, request] of undisturbed.requests.entries()) {
      const { end, injected } = await provisioning.run(configuration, isVaultWrite, { at: index + 1, fault });
      if (!injected || !isDeepStrictEqual(end, undisturbed.end)) different.push({ request, injected, end });
    }
    expect(different).toEqual([]);
  });
});
