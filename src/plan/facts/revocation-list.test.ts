/** Lists as OpenSSL signs them, of keys that are made for the test. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { certificateFacts, type CertificateFacts } from './certificate.ts';
import {
  caOf,
  isListOf,
  listsIn,
  longestList,
  maySignLists,
  revocationList,
  type RevocationList,
} from './revocation-list.ts';

const dir = mkdtempSync(join(tmpdir(), 'revocation-list-'));
afterAll(() => rmSync(dir, { recursive: true }));

interface Ca {
  certificate: CertificateFacts;
  /** Signs a list. @param revoked serial numbers in hex */
  sign: (revoked: string[], ...more: string[]) => string;
  /** Signs a list with these extensions. @param extensions lines of a section; undefined: version 1, without any */
  signAs: (extensions: string | undefined) => string;
}

const extensions = 'authorityKeyIdentifier=keyid';

/** Makes a CA. @param key arguments of `openssl genpkey` */
function makeCa(folder: string, name: string, ...key: string[]): Ca {
  const cwd = join(dir, folder);
  mkdirSync(cwd);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd, stdio: 'pipe' }).toString();
  const config = (lines: string | undefined) =>
    writeFileSync(join(cwd, 'config'), `[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\ndefault_md=sha384\n${lines === undefined ? '' : `crl_extensions=ext\n[ext]\n${lines}\n[point]\nonlyuser=TRUE\n`}`); // prettier-ignore
  config(extensions);
  openssl('genpkey', ...key, '-out', 'key.pem');
  const usage = name === 'no usage' ? ['-addext', 'keyUsage=critical,keyCertSign'] : [];
  openssl('req', '-x509', '-new', '-key', 'key.pem', '-subj', `/CN=${name}`, '-days', '30', '-out', 'ca.pem', ...usage);
  const certificate = certificateFacts(readFileSync(join(cwd, 'ca.pem'), 'utf8'))!;
  const sign = (revoked: string[], ...more: string[]) => {
    const lines = revoked.map((serial) => `R\t300101000000Z\t260101000000Z\t${serial.toUpperCase()}\tunknown\t/CN=x\n`);
    writeFileSync(join(cwd, 'index.txt'), lines.join(''));
    const files = ['-keyfile', 'key.pem', '-cert', 'ca.pem', '-config', 'config'];
    return openssl('ca', '-gencrl', '-batch', ...files, '-crldays', '3', ...more);
  };
  const signAs = (lines: string | undefined) => {
    config(lines);
    const list = sign([]);
    config(extensions);
    return list;
  };
  return { certificate, sign, signAs };
}

const rsa = ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'];
const ec = ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'];
let one: Ca;
let other: Ca;
let sameName: Ca;
beforeAll(() => {
  one = makeCa('one', 'one', ...ec);
  other = makeCa('other', 'other', ...rsa);
  sameName = makeCa('same', 'one', ...ec);
});

describe('a list', () => {
  it('has its times, and serial numbers as certificates show them', () => {
    const before = Date.now() - 2000;
    const list = revocationList(listsIn(one.sign(['0a01', 'F1B2', '07']))[0]!.pem)!;
    expect(Object.keys(list.revoked).sort()).toEqual(['07', '0a:01', 'f1:b2']);
    expect(list.revoked['07']).toBe(Date.parse('2026-01-01T00:00:00Z'));
    expect(list.thisUpdate).toBeGreaterThan(before);
    expect(list.nextUpdate - list.thisUpdate).toBe(3 * 24 * 3_600_000);
  });

  it.each<[string, () => Ca, string[]]>([
    ['ECDSA', () => one, []],
    ['RSA', () => other, []],
    ['RSASSA-PSS', () => other, ['-sigopt', 'rsa_padding_mode:pss']],
  ])('signed with %s is of the CA that signed it, and of no other', (_, ca, more) => {
    const [list] = listsIn(ca().sign([], ...more));
    const of = [one, other, sameName].filter(({ certificate }) => isListOf(list!, certificate));
    expect(of).toEqual([ca()]);
  });

  it('that somebody changed is of nobody', () => {
    const [list] = listsIn(one.sign(['0a01']));
    const der = Buffer.from(list!.pem.replace(/-----[^-]+-----|\s/g, ''), 'base64');
    const at = der.indexOf(Buffer.from('0a01', 'hex'));
    der.writeUInt8(0x0b, at);
    const pem = `-----BEGIN X509 CRL-----\n${der.toString('base64')}\n-----END X509 CRL-----\n`;
    expect(Object.keys(listsIn(pem)[0]?.revoked ?? {})).toEqual(['0b:01']);
    expect(isListOf(listsIn(pem)[0]!, one.certificate)).toBe(false);
  });

  it.each<[string, string | undefined, RegExp | undefined]>([
    ['version 2 with the key of its CA', extensions, undefined],
    ['version 1, as OpenSSL makes it unless it is told otherwise', undefined, /version 1/],
    ['no key of its CA', 'issuerAltName=DNS:a', /no authority key identifier/],
    ['certificates of users only', `${extensions}\nissuingDistributionPoint=critical,@point`, /critical extension/],
  ])('with %s: whether proxies take it', (_, lines, why) => {
    const [list] = listsIn(one.signAs(lines));
    if (why) expect(list?.unfit).toMatch(why);
    else expect(list?.unfit).toBeUndefined();
    expect(isListOf(list!, one.certificate)).toBe(true);
  });

  it('of a CA whose key usage does not permit lists is of nobody', () => {
    const ca = makeCa('usage', 'no usage', ...ec);
    const [list] = listsIn(ca.sign([]));
    expect([maySignLists(ca.certificate), isListOf(list!, ca.certificate)]).toEqual([false, false]);
    expect(maySignLists(one.certificate)).toBe(true);
  });

  it('is encoded as others write it, whatever stands in the block; what has more behind it is none', () => {
    const pem = one.sign([]);
    const [begin = '', ...lines] = pem.trim().split('\n');
    const body = lines.slice(0, -1).join('');
    const block = (text: string) => listsIn(`${begin}\n${text}\n${lines.at(-1) ?? ''}\n`)[0]?.pem;
    expect(block(`  ${body.slice(0, 10)}\r\n\t${body.slice(10)}`)).toBe(pem);
    const longer = Buffer.concat([Buffer.from(body, 'base64'), Buffer.from([0])]);
    expect(block(longer.toString('base64'))).toBeUndefined();
  });

  it('names its CA: equal for two lists of one, different for another key of the same name', () => {
    const ca = (of: Ca): RevocationList['ca'] => listsIn(of.sign([]))[0]!.ca;
    expect(ca(one)).toBe(ca(one));
    expect(new Set([ca(one), ca(other), ca(sameName)]).size).toBe(3);
    for (const each of [one, other, sameName]) expect(caOf(each.certificate)).toBe(ca(each));
  });
});

describe('a text', () => {
  it('with several lists, certificates and other things gives its lists in their order', () => {
    const text = [
      'hello',
      one.certificate.pem,
      other.sign(['0a']),
      'between',
      one.sign([]),
      '-----BEGIN X509 CRL-----',
    ];
    expect(listsIn(text.join('\n')).map(({ revoked }) => Object.keys(revoked))).toEqual([['0a'], []]);
  });

  it.each([
    ['nothing', ''],
    ['what is no DER', '-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n'],
    ['a certificate under the label', () => one.certificate.pem.replaceAll('CERTIFICATE', 'X509 CRL')],
    ['too long a list', `-----BEGIN X509 CRL-----\n${'A'.repeat(longestList)}\n-----END X509 CRL-----\n`],
  ])('%s gives none', (_, text) => {
    expect(listsIn(typeof text === 'string' ? text : text())).toEqual([]);
  });
});
