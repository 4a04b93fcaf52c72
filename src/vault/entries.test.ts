import { describe, expect, it } from '@jest/globals';
import { generateKeyPairSync } from 'node:crypto';
import { parseLive } from './entries.ts';

const identity = { cluster: 'c', namespace: 'n', name: 'x', uid: 'u' };

describe('a live entry of somebody else', () => {
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
  const pem = key.export({ type: 'pkcs8', format: 'pem' }).toString();
  const certificate = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
  const seen = (data: Record<string, unknown>) => parseLive(identity, { casVersion: 1, data });

  it('shows of its files only what is public', () => {
    const found = seen({ 'ca-key.pem': pem, 'root-cert.pem': `# ours\n${pem}${certificate}` });
    expect(found).toMatchObject({ entry: 'foreign', foreign: { root: certificate } });
    const body = pem.split('\n')[1]!;
    expect(JSON.stringify(found)).not.toContain(body);
  });

  it('shows of what lies beside them the names only', () => {
    const found = seen({
      'ca-key.pem': pem,
      note: 'a word in confidence',
      ttl: '30s',
      generation: '3',
      more: { a: 1 },
    });
    expect(found.foreign?.others).toEqual(['note', 'ttl', 'generation', 'more']);
    expect(JSON.stringify(found)).not.toContain('confidence');
  });

  it('may hold nothing but a key', () => {
    expect(seen({ 'ca-key.pem': pem }).foreign).toEqual({
      publicKey: expect.any(String),
      root: '',
      certificates: [],
      generation: 0,
      others: [],
    });
  });
});
