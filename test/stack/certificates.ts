import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface ServingCertificate {
  readonly caPem: string;
  /** Path of the certificate. */
  readonly certFile: string;
  /** Path of its key. */
  readonly keyFile: string;
}

interface IssueOptions {
  /** For the server side of TLS, with these DNS names and IP addresses, or for the client side. */
  readonly for: { readonly servers: readonly string[] } | 'clients';
  /** Lifetime in days; negative: it has ended. Default: 30. */
  readonly days?: number;
}

/** A CA that signs certificates with P-256 keys. */
export interface Authority {
  readonly caPem: string;
  /** Writes a certificate and its key to `<name>.pem` and `<name>.key` in the folder of the CA. */
  readonly issue: (
    name: string,
    options: IssueOptions,
  ) => Promise<{ readonly certFile: string; readonly keyFile: string }>;
}

async function openssl(...args: string[]): Promise<void> {
  try {
    await run('openssl', args);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new Error('the test stack needs openssl in PATH');
    throw error;
  }
}

const makeKey = (path: string): Promise<void> =>
  openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', path);

/**
 * Creates a CA, valid for 30 days, in `dir`.
 * @param name of its subject
 * @throws when the `openssl` program is missing or fails
 */
export async function makeAuthority(dir: string, name = 'test stack CA'): Promise<Authority> {
  const path = (file: string): string => join(dir, file);
  await Promise.all([
    makeKey(path('ca.key')),
    writeFile(
      path('ca.cnf'),
      '[req]\ndistinguished_name=dn\nprompt=no\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\n' +
        'keyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n',
    ),
  ]);
  await openssl(
    ...['req', '-x509', '-new', '-key', path('ca.key'), '-days', '30', '-subj', `/CN=${name}`],
    ...['-extensions', 'ca', '-out', path('ca.pem'), '-config', path('ca.cnf')],
  );
  const issue = async (file: string, options: IssueOptions) => {
    const [certFile, keyFile, csr, config] = ['pem', 'key', 'csr', 'cnf'].map((suffix) =>
      path(`${file}.${suffix}`),
    ) as [string, string, string, string];
    const usage = options.for === 'clients' ? 'clientAuth' : 'serverAuth';
    const names = options.for === 'clients' ? [] : options.for.servers;
    const san = names.map((one) => `${isIP(one) === 0 ? 'DNS' : 'IP'}:${one}`).join(',');
    await Promise.all([
      makeKey(keyFile),
      writeFile(
        config,
        '[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=test stack\n[leaf]\nbasicConstraints=critical,CA:FALSE\n' +
          `keyUsage=critical,digitalSignature\nextendedKeyUsage=${usage}\n${san === '' ? '' : `subjectAltName=${san}\n`}`,
      ),
    ]);
    await openssl('req', '-new', '-key', keyFile, '-out', csr, '-config', config);
    await openssl(
      ...['x509', '-req', '-in', csr, '-CA', path('ca.pem'), '-CAkey', path('ca.key'), '-set_serial', serial()],
      ...['-days', String(options.days ?? 30), '-extfile', config, '-extensions', 'leaf', '-out', certFile],
    );
    return { certFile, keyFile };
  };
  return { caPem: await readFile(path('ca.pem'), 'utf8'), issue };
}

/** A random positive serial number. */
const serial = (): string => `0x${randomBytes(8).toString('hex').replace(/^./, '1')}`;

/**
 * Creates a CA and a serving certificate for the given DNS names and IP addresses, valid for 30 days, in `dir`.
 * @throws when the `openssl` program is missing or fails
 */
export async function makeServingCertificate(dir: string, names: readonly string[]): Promise<ServingCertificate> {
  const { caPem, issue } = await makeAuthority(dir);
  return { caPem, ...(await issue('serving', { for: { servers: names } })) };
}
