import { execFile } from 'node:child_process';
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

/**
 * Creates a CA and a serving certificate for the given DNS names and IP addresses, valid for 30 days, in `dir`.
 * @throws when the `openssl` program is missing or fails
 */
export async function makeServingCertificate(dir: string, names: readonly string[]): Promise<ServingCertificate> {
  const path = (name: string): string => join(dir, name);
  const san = names.map((name) => `${isIP(name) === 0 ? 'DNS' : 'IP'}:${name}`).join(',');
  await writeFile(
    path('openssl.cnf'),
    [
      '[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=test stack',
      '[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash',
      '[serving]\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth',
      `subjectAltName=${san}\n`,
    ].join('\n'),
  );
  const openssl = async (...args: string[]): Promise<void> => {
    try {
      await run('openssl', args);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new Error('the test stack needs openssl in PATH');
      throw error;
    }
  };
  const key = (name: string): Promise<void> =>
    openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', path(name));
  const config = ['-config', path('openssl.cnf')];
  await Promise.all([key('ca.key'), key('serving.key')]);
  await openssl(
    ...['req', '-x509', '-new', '-key', path('ca.key'), '-days', '30', '-subj', '/CN=test stack CA'],
    ...['-extensions', 'ca', '-out', path('ca.pem'), ...config],
  );
  await openssl(
    'req',
    '-new',
    '-key',
    path('serving.key'),
    '-subj',
    '/CN=test stack',
    '-out',
    path('serving.csr'),
    ...config,
  );
  await openssl(
    ...[
      'x509',
      '-req',
      '-in',
      path('serving.csr'),
      '-CA',
      path('ca.pem'),
      '-CAkey',
      path('ca.key'),
      '-set_serial',
      '2',
    ],
    ...['-days', '30', '-extfile', path('openssl.cnf'), '-extensions', 'serving', '-out', path('serving.pem')],
  );
  return { caPem: await readFile(path('ca.pem'), 'utf8'), certFile: path('serving.pem'), keyFile: path('serving.key') };
}
