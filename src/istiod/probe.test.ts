/** The handshake with a real TLS server on this machine, with certificates that openssl issues during the test. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createTcpServer, type AddressInfo, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { certificateFacts, isSignedBy, type CertificateFacts } from '../plan/facts/certificate.ts';
import { evaluateHandshake, type ExpectedCa } from '../plan/proof/handshake.ts';
import type { Served } from '../plan/facts/observed-istiod.ts';
import { systemClock } from '../runtime/clock.ts';
import { FakeClock } from '../runtime/fake-clock.ts';
import { probe } from './probe.ts';

let dir: string;
const read = (name: string) => readFileSync(join(dir, name), 'utf8');
const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' });
const facts = (name: string) => certificateFacts(read(`${name}.pem`))!;

/** Creates a key and a certificate; the certificate is self-signed if no issuer is given. */
function make(name: string, issuer: string | undefined, profile: 'ca' | 'leaf', key = name): void {
  if (key === name)
    openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', `${name}.key`);
  // istiod's own certificate has an empty subject
  const subject = profile === 'ca' ? `/O=test/CN=${name.replace(/\d+$/, '')}` : '/';
  openssl('req', '-new', '-key', `${key}.key`, '-subj', subject, '-out', `${name}.csr`, '-config', 'c.cnf');
  const signer =
    issuer === undefined ? ['-signkey', `${name}.key`] : ['-CA', `${issuer}.pem`, '-CAkey', `${issuer}.key`];
  openssl('x509', '-req', '-in', `${name}.csr`, '-out', `${name}.pem`, '-days', '2', '-extfile', 'c.cnf', '-extensions', profile, ...signer); // prettier-ignore
}

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'probe-'));
  const ca = 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash';
  const leaf = 'basicConstraints=CA:FALSE\nsubjectAltName=DNS:istiod.istio-system.svc';
  writeFileSync(join(dir, 'c.cnf'), `[req]\ndistinguished_name=dn\n[dn]\n[ca]\n${ca}\n[leaf]\n${leaf}\n`);
  make('root', undefined, 'ca');
  // two CA generations with the same subject
  make('intermediate1', 'root', 'ca');
  make('intermediate2', 'root', 'ca');
  // another certificate for the same key
  make('intermediate3', 'root', 'ca', 'intermediate2');
  make('other', undefined, 'ca');
  make('leaf1', 'intermediate1', 'leaf');
  make('leaf2', 'intermediate2', 'leaf');
  make('leafOther', 'other', 'leaf');
  // with an empty subject, and so an empty issuer
  make('nameless', undefined, 'leaf');
});
afterAll(() => rmSync(dir, { recursive: true }));

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

async function listen(server: Server): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

/** A TLS server that serves a leaf and, after it, these certificates. */
const serving = (leaf: string, ...chain: string[]) =>
  listen(
    createServer({
      key: read(`${leaf}.key`),
      cert: [leaf, ...chain].map((name) => read(`${name}.pem`)).join(''),
      ALPNProtocols: ['h2'],
    }),
  );
const ask = (
  port: number,
  signal = new AbortController().signal,
  clock: FakeClock | typeof systemClock = systemClock,
) => probe({ host: '127.0.0.1', port, servername: 'istiod.istio-system.svc' }, { clock, timeoutMs: 60_000, signal });

/** The expected CA: CA generation 2, by default with certificate intermediate2. */
const intended = (intermediate: CertificateFacts = facts('intermediate2')): ExpectedCa => ({
  intermediate,
  generation: 2,
  roots: [facts('root')],
  digest: undefined,
  intermediates: [
    { certificate: intermediate, generation: 2 },
    { certificate: facts('intermediate1'), generation: 1 },
  ],
  path: [intermediate, facts('root')],
  ownRoots: [facts('root')],
});
const judged = async (port: number, ca = intended()) => {
  const result = evaluateHandshake((await ask(port)) as Served, ca, Date.now());
  return result.kind === 'Stale' ? `Stale ${result.reason}` : result.kind;
};

describe('a handshake', () => {
  it('gives the leaf and what came along, in order', async () => {
    const served = (await ask(await serving('leaf2', 'intermediate2', 'root'))) as Served;
    expect(served.leaf.fingerprint).toBe(facts('leaf2').fingerprint);
    expect(served.chain.map((c) => c.fingerprint)).toEqual(['intermediate2', 'root'].map((n) => facts(n).fingerprint));
    expect(served.issuer).toBe('O=test, CN=intermediate');
    expect(isSignedBy(served.leaf, facts('intermediate2'))).toBe(true);
  });

  it.each<[string, string, string[], string]>([
    ['the live intermediate', 'leaf2', ['intermediate2'], 'Proven'],
    ['the live intermediate, with its root', 'leaf2', ['intermediate2', 'root'], 'Proven'],
    ['the generation before', 'leaf1', ['intermediate1'], 'Stale OlderIntermediate'],
    ['the live one without its chain', 'leaf2', [], 'Stale ChainMismatch'],
    ['the live one with the chain of the generation before', 'leaf2', ['intermediate1'], 'Stale ChainMismatch'],
    ['another CA', 'leafOther', ['other'], 'Foreign'],
    ['another CA without a chain', 'leafOther', [], 'Foreign'],
    ['another CA, with ours beside it', 'leafOther', ['intermediate2', 'root'], 'Foreign'],
  ])('with %s', async (_name, leaf, chain, expected) => {
    expect(await judged(await serving(leaf, ...chain))).toBe(expected);
  });

  it('with a certificate whose issuer has an empty name', async () => {
    expect(await ask(await serving('nameless'))).toMatchObject({ issuer: '', chain: [] });
    expect(facts('nameless').selfIssued).toBe(true);
  });

  it('with the key of the live intermediate, but its certificate of before', async () => {
    const resigned = intended(facts('intermediate3'));
    resigned.intermediates.push({ certificate: facts('intermediate2'), generation: 1 });
    expect(await judged(await serving('leaf2', 'intermediate2'), resigned)).toBe('Stale OlderIntermediate');
    expect(await judged(await serving('leaf2', 'intermediate3'), resigned)).toBe('Proven');
  });
});

describe('no handshake', () => {
  it('with nobody there', async () => {
    const port = await serving('leaf2');
    for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve));
    expect(await ask(port)).toEqual({ unreachable: 'ECONNREFUSED' });
  });

  it('with somebody who speaks no TLS', async () => {
    const port = await listen(createTcpServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')));
    const answer = await ask(port);
    expect(answer).toEqual({ unreachable: expect.stringMatching(/^(ERR_SSL_|the connection was closed)/) as unknown });
  });

  it('with somebody who hangs up', async () => {
    const port = await listen(createTcpServer((socket) => socket.destroy()));
    const answer = await ask(port);
    expect(answer).toEqual({
      unreachable: expect.stringMatching(/^(ECONNRESET|the connection was closed)$/) as unknown,
    });
  });

  it('with somebody who says nothing: in the time that is given, by the clock', async () => {
    const silent = createTcpServer((socket) => void socket.on('error', () => socket.destroy()));
    const port = await listen(silent);
    const clock = new FakeClock();
    const answer = ask(port, undefined, clock);
    await new Promise((resolve) => silent.once('connection', resolve));
    await clock.advance(60_000);
    expect(await answer).toEqual({ unreachable: 'no answer within 60 seconds' });
    expect(clock.pending).toBe(0);
  });

  it('when the work is stopped, before and meanwhile', async () => {
    const silent = createTcpServer((socket) => void socket.on('error', () => socket.destroy()));
    const port = await listen(silent);
    const stop = new AbortController();
    const answer = ask(port, stop.signal);
    await new Promise((resolve) => silent.once('connection', resolve));
    stop.abort();
    expect(await answer).toEqual({ unreachable: 'stopped' });
    expect(await ask(port, AbortSignal.abort())).toEqual({ unreachable: 'stopped' });
  });
});
