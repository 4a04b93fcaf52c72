/**
 * The proxy of the environment, judged by the package of Go that client-go and Vault's commands choose theirs with.
 * @servers go-proxies
 */
import { execFileSync } from 'node:child_process';
import { expect, it } from '@jest/globals';
import fc from 'fast-check';
import { readProxies } from '../../src/runtime/proxy.ts';
import { ensureServer } from '../stack/servers.ts';

const octet = fc.constantFrom('10', '96', '0', '1', '127', '192');
const ipv4 = fc.tuple(octet, octet, octet, octet).map((parts) => parts.join('.'));
const ipv6 = fc.constantFrom('::1', 'fd00::1', 'fd00:10::1', '2001:db8::8', '::ffff:10.0.0.1');
const name = fc
  .array(fc.constantFrom('vault', 'svc', 'cluster', 'local', 'example', 'com', 'localhost'), {
    minLength: 1,
    maxLength: 3,
  })
  .map((labels) => labels.join('.'));
const port = fc.constantFrom('', ':443', ':80', ':8200');
const url = fc
  .tuple(
    fc.constantFrom('https', 'http'),
    fc.oneof(
      name,
      ipv4,
      ipv6.map((address) => `[${address}]`),
    ),
    port,
  )
  .map(([scheme, host, at]) => `${scheme}://${host}${at}`);
const entry = fc.oneof(
  fc.tuple(fc.constantFrom('', '.', '*.', '*'), name, port).map((parts) => parts.join('')),
  fc.tuple(ipv4, fc.constantFrom('', '/8', '/32', '/0', '/33', '/', ':443', ':')).map((parts) => parts.join('')),
  ipv6,
  fc.tuple(ipv6, fc.constantFrom('/8', '/128', '/0', '/129')).map((parts) => parts.join('')),
  fc.tuple(ipv6, port).map(([address, at]) => `[${address}]${at}`),
  fc.constantFrom('', ' ', '*', ':443', 'VAULT.svc', ' .svc '),
);
const proxies = fc.constantFrom(
  '',
  'http://proxy.example.org:3128',
  'proxy.example.org:3128',
  'https://proxy.example.org',
);

interface Question {
  http: string;
  https: string;
  no: string;
  urls: string[];
}

it('is the same', async () => {
  const question = fc.record<Question>({
    http: proxies,
    https: proxies,
    no: fc.array(entry, { maxLength: 4 }).map((entries) => entries.join(',')),
    urls: fc.array(url, { minLength: 1, maxLength: 8 }),
  });
  const questions = fc.sample(question, 2_000);
  const { binary } = await ensureServer('go-proxies');
  const input = questions.map((one) => `${JSON.stringify(one)}\n`).join('');
  const answers = execFileSync(binary, { input, encoding: 'utf8' }).trimEnd().split('\n');
  const ours = questions.map(({ http, https, no, urls }) => {
    const proxyFor = readProxies({ HTTP_PROXY: http, HTTPS_PROXY: https, NO_PROXY: no });
    return urls.map((one) => proxyFor(one)?.url ?? '');
  });
  const of = (list: string[][]) => list.map((answer, n) => ({ ...questions[n], answer }));
  expect(of(ours)).toEqual(of(answers.map((line) => JSON.parse(line) as string[])));
});
