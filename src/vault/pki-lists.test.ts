/** What a mount of others can answer, at a server that sends it: too much, too many, or an error. Real lists: test/e2e/revocation-outside.test.ts. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from '@jest/globals';
import { VaultClient } from './client.ts';
import { findIssuers, readList } from './pki-lists.ts';

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

/** A client of a server that answers like Vault to `sys/health`, and with this to everything else. */
async function clientOf(status: number, body: string): Promise<VaultClient> {
  const health = JSON.stringify({ initialized: true, sealed: false, standby: false, version: '2.7.2' });
  const server = http.createServer((request, response) => {
    const isHealth = request.url === '/v1/sys/health';
    response.writeHead(isHealth ? 200 : status).end(isHealth ? health : body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const client = new VaultClient({
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    patienceMs: 0,
  });
  cleanups.push(
    () => server.close(),
    () => server.closeAllConnections(),
    () => client.close(),
  );
  await client.health();
  return client;
}

const answer = (data: unknown): string => JSON.stringify({ data });
const errors = (text: string): string => JSON.stringify({ errors: [text] });

describe('the list of an issuer', () => {
  it.each([
    ['of more than is read', 200, answer({ crl: 'a'.repeat(1024 * 1024) })],
    ['of more than 128 KiB', 200, answer({ crl: `-----BEGIN X509 CRL-----\n${'A'.repeat(200_000)}\n-----END X509 CRL-----\n` })], // prettier-ignore
    ['that has none', 500, errors('unable to find CRL for issuer: id:a/ref:a')],
    ['that does not exist', 500, errors('unable to find PKI issuer for reference: a')],
    ['of a mount that does not exist', 404, errors('no handler for route "pki/issuer/a/crl". route entry not found.')],
    ['that may not be read', 403, errors('permission denied')],
  ])('%s counts as none', async (_, status, body) => {
    expect(await readList(await clientOf(status, body), 'pki', 'a')).toBeUndefined();
  });

  it('is not missing if the server fails', async () => {
    const client = await clientOf(500, errors('internal error'));
    await expect(readList(client, 'pki', 'a')).rejects.toMatchObject({ kind: 'Server', status: 500 });
    await expect(findIssuers(client, 'pki', ['0a'])).rejects.toMatchObject({ kind: 'Server', status: 500 });
  });
});

describe('the issuers with a serial number', () => {
  const info = (count: number, serial: (at: number) => string) =>
    answer({ key_info: Object.fromEntries(Array.from({ length: count }, (_, i) => [`id-${i}`, { serial_number: serial(i) }])) }); // prettier-ignore

  it.each<[string, number, string, string[]]>([
    ['one among thousands', 200, info(20_000, (at) => (at === 17_000 ? '0A:0B' : '01')), ['id-17000']],
    ['ten at most', 200, info(5000, () => '0a:0b'), Array.from({ length: 10 }, (_, i) => `id-${i}`)],
    ['none in a list that is longer than is read', 200, info(130_000, () => '0a:0b'), []],
    ['none where the server does not show them', 200, answer({ key_info: { a: { issuer_name: 'x' } } }), []],
    ['none in something else', 200, answer({ key_info: 'x' }), []],
    ['none in an empty mount', 404, JSON.stringify({ errors: [] }), []],
    ['none in a mount that may not be listed', 403, errors('permission denied'), []],
  ])('are %s', async (_, status, body, ids) => {
    expect(await findIssuers(await clientOf(status, body), 'pki', ['0a:0b'])).toEqual(ids);
  });
});
