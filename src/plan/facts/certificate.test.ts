import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { bundleFacts, certificateFacts, isSignedBy, plannedCertificate, publicKeyOfPrivate } from './certificate.ts';
import { splitPem } from '../../text/pem.ts';

/** Without key identifiers, only the signature distinguishes two issuers of the same name. */
const noIds = 'subjectKeyIdentifier=none\nauthorityKeyIdentifier=none';
const profiles: Record<string, string> = {
  ca: `basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n${noIds}`,
  short: `basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\n${noIds}`,
  long: 'basicConstraints=critical,CA:TRUE,pathlen:3\nkeyUsage=critical,keyCertSign',
  noUsage: 'basicConstraints=critical,CA:TRUE',
  noSign: 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature,cRLSign',
  leaf: 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature',
  bare: 'subjectKeyIdentifier=none',
};
const config = ['[req]\ndistinguished_name=dn\n[dn]', ...Object.entries(profiles).map(([n, p]) => `[${n}]\n${p}`)].join(
  '\n',
);

let dir: string;
const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'pipe', encoding: 'utf8' });
const read = (name: string) => readFileSync(join(dir, name), 'utf8');
const ec = (curve: string) => ['ec', '-pkeyopt', `ec_paramgen_curve:${curve}`];

/** Creates a self-signed certificate `<name>.pem` and its key `<name>.key`. */
function make(name: string, key: string[], profile: string, subject = `/CN=${name}`, ...more: string[]): string {
  const files = ['-keyout', `${name}.key`, '-out', `${name}.pem`, '-config', 'c.cnf', '-extensions', profile];
  openssl('req', '-x509', '-newkey', ...key, '-nodes', ...files, '-subj', subject, '-utf8', ...more);
  return read(`${name}.pem`);
}
/** Creates a certificate `<name>.pem` that `issuer` signs. */
function sign(name: string, issuer: string, profile: string): string {
  openssl('req', '-new', '-newkey', ...ec('prime256v1'), '-nodes', '-keyout', `${name}.key`, '-out', `${name}.csr`, '-config', 'c.cnf', '-subj', `/CN=${name}`); // prettier-ignore
  openssl('x509', '-req', '-in', `${name}.csr`, '-out', `${name}.pem`, '-CA', `${issuer}.pem`, '-CAkey', `${issuer}.key`, '-extfile', 'c.cnf', '-extensions', profile); // prettier-ignore
  return read(`${name}.pem`);
}

let root: string;
let intermediate: string;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'certificate-'));
  writeFileSync(join(dir, 'c.cnf'), config);
  root = make('root', ec('prime256v1'), 'ca', '/O=Istio/CN=Istio Root CA', '-set_serial', '0x00fe01');
  intermediate = sign('intermediate', 'root', 'short');
});
afterAll(() => rmSync(dir, { recursive: true }));

describe('facts of a certificate', () => {
  it('may have an empty subject', () => {
    const facts = certificateFacts(make('nobody', ec('prime256v1'), 'leaf', '/'))!;
    expect(facts.subject).toEqual({ commonName: '', organization: '' });
  });

  it('are those that openssl prints', () => {
    const facts = certificateFacts(root)!;
    const printed = (...args: string[]) => openssl('x509', '-in', 'root.pem', '-noout', ...args).trim();
    expect(facts.fingerprint).toBe(printed('-fingerprint', '-sha256').split('=')[1]!.replaceAll(':', '').toLowerCase());
    expect(facts.serial).toBe('fe:01');
    expect(facts.notBefore).toBe(Date.parse(printed('-startdate').slice('notBefore='.length)));
    expect(facts.notAfter).toBe(Date.parse(printed('-enddate').slice('notAfter='.length)));
    expect(facts).toMatchObject({
      subject: { commonName: 'Istio Root CA', organization: 'Istio' },
      selfIssued: true,
      isCa: true,
    });
    expect(facts.pem).toMatch(/^-----BEGIN CERTIFICATE-----\n[^]*\n-----END CERTIFICATE-----\n$/);
  });

  it.each([
    { profile: 'ca', maxPathLength: undefined, isCa: true, canSignCertificates: true },
    { profile: 'short', maxPathLength: 0, isCa: true, canSignCertificates: true },
    { profile: 'long', maxPathLength: 3, isCa: true, canSignCertificates: true },
    { profile: 'noUsage', maxPathLength: undefined, isCa: true, canSignCertificates: true },
    // OpenSSL, which node:crypto uses, does not report a certificate without keyCertSign as a CA
    { profile: 'noSign', maxPathLength: undefined, isCa: false, canSignCertificates: false },
    { profile: 'leaf', maxPathLength: undefined, isCa: false, canSignCertificates: false },
    { profile: 'bare', maxPathLength: undefined, isCa: false, canSignCertificates: true },
  ])('extensions: $profile', ({ profile, ...expected }) => {
    expect(certificateFacts(make(`x-${profile}`, ec('prime256v1'), profile))).toMatchObject(expected);
  });

  it.each([
    { key: ec('prime256v1'), keyType: 'ec', keyBits: 256 },
    { key: ec('secp384r1'), keyType: 'ec', keyBits: 384 },
    { key: ['rsa:2048'], keyType: 'rsa', keyBits: 2048 },
    { key: ['ed25519'], keyType: 'other', keyBits: 0 },
  ])('keys: $keyType $keyBits', ({ key, ...expected }) => {
    const pem = make('keyed', key, 'ca');
    expect(certificateFacts(pem)).toMatchObject(expected);
    expect(publicKeyOfPrivate(read('keyed.key'))).toBe(certificateFacts(pem)!.publicKey);
  });

  it.each([
    ['00', '00'],
    ['0x7f', '7f'],
    ['0x80', '80'],
    ['0x0abc', '0a:bc'],
    ['0x0123456789abcdef0123456789abcdef01234567', '01:23:45:67:89:ab:cd:ef:01:23:45:67:89:ab:cd:ef:01:23:45:67'],
  ])('serial %s is written as Vault writes it: %s', (serial, written) => {
    expect(certificateFacts(make('serial', ec('prime256v1'), 'ca', '/CN=s', '-set_serial', serial))?.serial).toBe(
      written,
    );
  });
});

describe('private keys', () => {
  it('are known by their public half, in any encoding', () => {
    const { publicKey } = certificateFacts(root)!;
    const sec1 = openssl('ec', '-in', 'root.key');
    expect(sec1).toContain('BEGIN EC PRIVATE KEY');
    expect([read('root.key'), sec1].map(publicKeyOfPrivate)).toEqual([publicKey, publicKey]);
    expect(publicKeyOfPrivate(read('intermediate.key'))).not.toBe(publicKey);
  });

  it('that are encrypted, public or garbage are none', () => {
    const encrypted = openssl('pkcs8', '-topk8', '-in', 'root.key', '-passout', 'pass:x');
    const publicOnly = openssl('pkey', '-in', 'root.key', '-pubout');
    expect(['', 'garbage', root, encrypted, publicOnly].map(publicKeyOfPrivate)).toEqual(Array(5).fill(undefined));
  });
});

describe('bundles and chains', () => {
  it('keep their order, whatever stands between the blocks', () => {
    const bundle = `# comment\n${intermediate.trim()}${root.trim()}\r\ntail`;
    expect(splitPem(bundle)).toEqual([intermediate, root]);
    expect(bundleFacts(bundle).map((c) => c.subject.commonName)).toEqual(['intermediate', 'Istio Root CA']);
    expect(bundleFacts(`${root}${intermediate}`).map((c) => c.selfIssued)).toEqual([true, false]);
  });

  it('the first certificate of a bundle is the one a file is about', () => {
    expect(certificateFacts(intermediate + root)?.subject.commonName).toBe('intermediate');
    expect(certificateFacts(read('root.key') + intermediate)?.subject.commonName).toBe('intermediate');
  });

  it('a block that is no certificate is left out', () => {
    const broken = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
    expect(bundleFacts(broken + root)).toHaveLength(1);
    expect(certificateFacts(broken)).toBeUndefined();
  });

  it('a signature is checked, not only the names', () => {
    const facts = (pem: string) => certificateFacts(pem)!;
    const impostor = make('impostor', ec('prime256v1'), 'ca', '/O=Istio/CN=Istio Root CA');
    expect(isSignedBy(facts(intermediate), facts(root))).toBe(true);
    expect(isSignedBy(facts(root), facts(root))).toBe(true);
    expect(isSignedBy(facts(root), facts(intermediate))).toBe(false);
    expect(isSignedBy(facts(intermediate), facts(impostor))).toBe(false);
    expect(isSignedBy(facts(intermediate), facts(make('other', ['rsa:2048'], 'ca', '/O=Istio/CN=Istio Root CA')))).toBe(
      false,
    );
  });
});

describe('garbage', () => {
  const text = fc.oneof(
    fc.string(),
    fc.base64String(),
    fc
      .array(fc.constantFrom('-----BEGIN CERTIFICATE-----\n', '-----END CERTIFICATE-----\n', 'MIIB', '\n', 'x'))
      .map((p) => p.join('')),
    fc.base64String().map((body) => `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----`),
  );

  it('in any byte of a certificate never throws', () => {
    const der = Buffer.from(root.replace(/-----[^-]+-----|\s/g, ''), 'base64');
    for (let i = 0; i < der.length; i += 1) {
      for (const value of [0, 255, (der[i] ?? 0) ^ 1]) {
        const damaged = Buffer.from(der);
        damaged[i] = value;
        const pem = `-----BEGIN CERTIFICATE-----\n${damaged.toString('base64')}\n-----END CERTIFICATE-----\n`;
        const facts = certificateFacts(pem);
        if (facts) expect(typeof isSignedBy(facts, facts)).toBe('boolean');
      }
    }
  });

  it('never throws and is no certificate', () => {
    fc.assert(
      fc.property(text, (garbage) => {
        expect([certificateFacts(garbage), ...bundleFacts(garbage), publicKeyOfPrivate(garbage)]).toEqual([
          undefined,
          undefined,
        ]);
      }),
    );
  });

  it('does not hide a certificate beside it', () => {
    fc.assert(
      fc.property(text, (garbage) => {
        expect(bundleFacts(`${root}${garbage}`)[0]?.fingerprint).toBe(certificateFacts(root)?.fingerprint);
      }),
    );
  });

  it('a certificate cut off anywhere is none', () => {
    const body = root.split('\n').slice(1, -2).join('');
    for (let length = 0; length < body.length; length += 7) {
      const cut = `-----BEGIN CERTIFICATE-----\n${body.slice(0, length)}\n-----END CERTIFICATE-----\n`;
      expect(certificateFacts(cut)).toBeUndefined();
    }
  });
});

describe('a planned certificate', () => {
  const planned = (issuer?: string) => plannedCertificate(certificateFacts(root)!, issuer);

  it('is read from its text again, however many were made since', () => {
    const first = planned();
    const child = planned(first.fingerprint);
    for (let i = 0; i < 5000; i++) planned();
    expect(bundleFacts(first.pem + child.pem)).toEqual([first, child]);
    expect([isSignedBy(child, first), isSignedBy(first, first), isSignedBy(first, child)]).toEqual([true, true, false]);
    expect(isSignedBy(certificateFacts(intermediate)!, first)).toBe(false);
  });

  it('cannot be brought in from outside', () => {
    const { pem } = planned();
    const text = pem.split(' ')[2]!;
    const other = Buffer.from(text, 'base64').toString().replace('"notAfter":', '"notAfter":9');
    expect(certificateFacts(pem.replace(text, Buffer.from(other).toString('base64')))).toBeUndefined();
    expect(certificateFacts(pem.replace(/ (\w+)\n/, ' \n'))).toBeUndefined();
  });
});
