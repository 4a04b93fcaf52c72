import { expect, it } from '@jest/globals';
import { desiredOf, emptyWorld, start } from '../../../test/unit/model.ts';
import { DerivedState } from '../facts/derived.ts';
import type { ObservedVault } from '../facts/observed.ts';
import { describeStaleStandby } from './stale-standby.ts';

const described = (over: Partial<ObservedVault>) => {
  const world = emptyWorld();
  Object.assign(world.vault, { standby: true, ...over });
  return describeStaleStandby(new DerivedState(desiredOf(), world, start));
};

it.each(['2.5.0', '2.6.1', '2.6.0-beta20260101', 'v2.5.3'])('a standby of OpenBao %s has older data', (version) => {
  expect(described({ version })).toContain(`a standby of OpenBao ${version} answered at https://`);
});

it.each<[string, Partial<ObservedVault>]>([
  ['an active node', { version: '2.6.1', standby: false }],
  ['2.7, which is asked for the newest data', { version: '2.7.2' }],
  ['2.4, whose standbys answer no reads', { version: '2.4.4' }],
  ['a version that only begins alike', { version: '2.50.0' }],
  ['Vault', { product: 'Vault', version: '2.6.0' }],
])('%s does not', (_, over) => {
  expect(described(over)).toBeUndefined();
});
