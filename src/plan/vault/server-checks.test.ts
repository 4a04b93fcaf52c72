import { expect, it } from '@jest/globals';
import { desiredOf, emptyWorld, start } from '../../../test/unit/model.ts';
import { DerivedState } from '../facts/derived.ts';
import type { ObservedVault } from '../facts/observed.ts';
import { vaultTooOld } from './server-checks.ts';

const found = (over: Partial<ObservedVault>) => {
  const world = emptyWorld();
  Object.assign(world.vault, over);
  return vaultTooOld(new DerivedState(desiredOf(), world, start));
};

it.each(['1.10.11', '1.9.0+ent', '0.11.6'])('Vault %s is too old, and nothing is written', (version) => {
  expect(found({ product: 'Vault', version })).toMatchObject({ reason: 'VaultTooOld', blocks: 'all' });
});

it.each<[ObservedVault['product'], string]>([
  ['Vault', '1.11.0'],
  ['Vault', '1.19.5+ent'],
  ['Vault', '2.0.0-rc1'],
  ['OpenBao', '1.9.0'],
])('%s %s is not', (product, version) => {
  expect(found({ product, version })).toBeUndefined();
});
