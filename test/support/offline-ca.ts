/** Certificate authorities outside of Vault, by OpenSSL: their keys are in a temporary folder of the test. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeTemporaryDir } from '../stack/index.ts';

/** What a signature differs in from the one of a sound issuing CA. */
export interface Signing {
  days?: number;
  /** Value of basicConstraints. */
  constraints?: string;
  keyUsage?: string;
  extendedKeyUsage?: string;
  hash?: 'sha256' | 'sha1';
  /** The certificate begins that many days ago; negative: so many days from now. */
  begunDaysAgo?: number;
}

const openssl = (args: string[], input?: string): string =>
  execFileSync('openssl', args, { stdio: 'pipe', ...(input === undefined ? {} : { input }) }).toString();

/** What a revocation list differs in from one that proxies take. */
export interface Listing {
  /** Serial numbers in upper-case hex. */
  revoked?: string[];
  /** When it was signed, in days from now. */
  signedInDays?: number;
  /** For how many days it is valid. */
  days?: number;
  /** Without extensions, as OpenSSL makes it unless it is told otherwise: version 1. */
  plain?: boolean;
  /** Its revoked serial numbers are that many more, so that it is long. */
  more?: number;
}

const config = (dir: string): string => `[ca]
default_ca=d
[d]
new_certs_dir=${dir}
database=${dir}/index
serial=${dir}/serial
unique_subject=no
policy=p
[list]
authorityKeyIdentifier=keyid
[p]
commonName=optional
organizationName=optional
`;

/** A time in days from now, as OpenSSL takes it. */
const at = (day: number): string =>
  `${new Date(Date.now() + day * 86_400_000).toISOString().replace(/\..*/, '').replace(/[-:T]/g, '')}Z`;

/**
 * Signs a request.
 * @param dir of the CA
 * @param signer arguments that name the certificate of the CA
 * @returns PEM
 */
function sign(dir: string, signer: string[], csr: string, signing: Signing): string {
  const {
    days = 1825,
    constraints = 'critical,CA:TRUE,pathlen:0',
    keyUsage = 'critical,keyCertSign,cRLSign',
  } = signing;
  const { begunDaysAgo = 0.001, extendedKeyUsage, hash = 'sha256' } = signing;
  const extensions = [
    `basicConstraints=${constraints}`,
    `keyUsage=${keyUsage}`,
    ...(extendedKeyUsage === undefined ? [] : [`extendedKeyUsage=${extendedKeyUsage}`]),
    'subjectKeyIdentifier=hash',
    'authorityKeyIdentifier=keyid',
  ];
  const file = (name: string, text: string): string => {
    writeFileSync(join(dir, name), text);
    return join(dir, name);
  };
  file('index', '');
  file('serial', `4${openssl(['rand', '-hex', '16']).trim().slice(1)}\n`);
  openssl([
    ...['ca', '-batch', '-notext', '-config', file('conf', config(dir)), '-md', hash],
    ...['-startdate', at(-begunDaysAgo), '-enddate', at(days - begunDaysAgo)],
    ...['-keyfile', join(dir, 'ca.key'), ...signer, '-in', file('csr', csr)],
    ...['-extfile', file('ext', `${extensions.join('\n')}\n`), '-out', join(dir, 'crt')],
  ]);
  return readFileSync(join(dir, 'crt'), 'utf8');
}

/** An OpenSSL CA: a root, or one that another CA signed. */
export class OfflineCa {
  readonly #dir = makeTemporaryDir('offline-ca');
  /** PEM. */
  readonly certificate: string;
  readonly keyFile: string;

  /**
   * @param signer undefined: a root
   * @param key arguments of `openssl genpkey`
   */
  constructor(
    commonName: string,
    signer?: OfflineCa,
    signing: Signing = {},
    key = ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  ) {
    const keyFile = join(this.#dir, 'ca.key');
    this.keyFile = keyFile;
    openssl(['genpkey', ...key, '-out', keyFile]);
    const csr = openssl(['req', '-new', '-key', keyFile, '-subj', `/O=Example/CN=${commonName}`]);
    const life = { days: 3600, constraints: 'critical,CA:TRUE', ...signing };
    this.certificate = signer
      ? signer.sign(csr, life)
      : sign(this.#dir, ['-selfsign'], csr, { days: 3650, constraints: 'critical,CA:TRUE', ...signing });
    writeFileSync(join(this.#dir, 'ca.crt'), this.certificate);
  }

  /** SHA-256 of the certificate, lower-case hex. */
  get fingerprint(): string {
    const text = openssl(['x509', '-noout', '-fingerprint', '-sha256'], this.certificate);
    return text.replace(/.*=/, '').replaceAll(':', '').trim().toLowerCase();
  }

  /** Signs a request, by default as an intermediate CA for 1825 days. @returns PEM */
  sign(csr: string, signing: Signing = {}): string {
    return sign(this.#dir, ['-cert', join(this.#dir, 'ca.crt')], csr, signing);
  }
  /** Signs a revocation list. @returns PEM */
  list({ revoked = [], signedInDays = -0.01, days = 30, plain = false, more = 0 }: Listing = {}): string {
    const long = Array.from({ length: more }, (_, i) => `4F${i.toString(16).toUpperCase().padStart(38, '0')}`);
    const lines = [...revoked, ...long].map((serial) => `R\t400101000000Z\t250101000000Z\t${serial}\tunknown\t/CN=x\n`);
    writeFileSync(join(this.#dir, 'index'), lines.join(''));
    writeFileSync(join(this.#dir, 'conf'), config(this.#dir));
    return openssl([
      ...['ca', '-gencrl', '-batch', '-config', join(this.#dir, 'conf'), '-md', 'sha256'],
      ...['-crl_lastupdate', at(signedInDays), '-crl_nextupdate', at(signedInDays + days)],
      ...['-keyfile', this.keyFile, '-cert', join(this.#dir, 'ca.crt'), ...(plain ? [] : ['-crlexts', 'list'])],
    ]);
  }
}
