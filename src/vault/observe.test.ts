import { describe, expect, it } from '@jest/globals';
import { specSchema } from '../api/schema.ts';
import { desire, type Desired } from '../plan/facts/desired.ts';
import type { StateEntry } from '../plan/facts/state-entry.ts';
import type { VaultClient } from './client.ts';
import { stateData } from './entries.ts';
import { VaultError } from './errors.ts';
import { VaultObserver } from './observe.ts';

const identity = { cluster: 'c-1', namespace: 'istio-system', name: 'istioca', uid: 'u-1' };
const desiredOf = (over: Record<string, unknown>): Desired => {
  const vault = { address: 'https://vault.example', auth: { kubernetes: { role: 'istio-vault-ca' } } };
  const spec = specSchema.parse({ vault, controlPlane: { kind: 'Sail', name: 'default' }, ...over });
  return desire(identity, spec, {});
};

/** A Vault in which the key store has a state entry, and nothing is below `pki/`, where it refuses everything as it does without a mount. */
function vaultOf(state: string): VaultClient {
  const answers: Record<string, unknown> = {
    'sys/mounts/kv': { type: 'kv', options: { version: '2' }, config: {} },
    'kv/data/istioca-state': { data: { ...stateData('', {} as StateEntry), state, 'istio-vault-ca': desiredOf({}).mark }, metadata: { version: 1 } }, // prettier-ignore
  };
  const read = (path: string) =>
    path.startsWith('pki/')
      ? Promise.reject(new VaultError('Forbidden', 'read', path, 403, '403 permission denied'))
      : Promise.resolve(answers[path]);
  const call = async (_method: string, path: string, { paths = [] }: { paths?: string[] } = {}) => {
    if (path === 'sys/capabilities-self') return { status: 200, data: Object.fromEntries(paths.map((one) => [one, ['root']])) }; // prettier-ignore
    const data = path.startsWith('pki/') ? undefined : await read(path);
    return { status: data === undefined ? 404 : 200, data: data ?? {} };
  };
  const health = { product: 'OpenBao', version: '2.7.2', time: 0, standby: false, initialized: true, sealed: false };
  return {
    health: () => Promise.resolve(health),
    list: () => Promise.resolve([]),
    write: (path: string, body: { paths?: string[] }) => call('POST', path, body),
    read,
    call,
  } as unknown as VaultClient;
}

describe('an observation', () => {
  it('with revocation lists goes on when the mount of the issuer is gone', async () => {
    const entry = {
      time: '2030-01-01T00:00:00Z',
      kind: 'Intermediate',
      serial: '0a:0b',
      fingerprint: 'aa',
      reason: '',
    };
    const state = { highestGeneration: 1, role: '', made: [], handled: {}, history: [entry] };
    const d = desiredOf({ root: { source: 'Existing' }, delivery: { crl: true } });
    const observed = await new VaultObserver(vaultOf(JSON.stringify(state)), d, () => 0).observe(undefined);
    expect(observed).toMatchObject({ existing: { found: [] }, revokedIntermediates: [], lists: {} });
  });
});
