/**
 * Files of a CA that a real istiod refuses, and how the status explains it by what istiod prints.
 * @servers istiod
 */
import { afterAll, beforeAll, expect, it, jest } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { relevantLines } from '../../src/istiod/log-lines.ts';
import { istiodFailure } from '../../src/plan/proof/containers.ts';
import {
  createNamespace,
  makeTemporaryDir,
  removeTemporaryDir,
  sharedStack,
  startIstiod,
  waitFor,
} from '../stack/index.ts';
import { podOf, provisioned } from '../unit/istiod-world.ts';
import { desiredOf } from '../unit/model.ts';

jest.setTimeout(60_000);

const { kube } = sharedStack();
const namespace = 'refused-files';
const dir = makeTemporaryDir('refused-files');
beforeAll(() => createNamespace(kube, namespace));
afterAll(() => removeTemporaryDir(dir));

const config = (extensions: string) => `
[ca]
default_ca = own
[own]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = names
x509_extensions = extensions
[names]
commonName = supplied
[extensions]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
${extensions}
`;

/** Makes the four files of a CA whose certificate is its own root. @returns their folder */
function makeFiles(name: string, from: string, to: string, extensions: string): string {
  const cwd = join(dir, name);
  mkdirSync(cwd);
  writeFileSync(join(cwd, 'config'), config(extensions));
  writeFileSync(join(cwd, 'index.txt'), '');
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd, stdio: 'pipe' });
  openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', 'ca-key.pem');
  openssl('req', '-new', '-key', 'ca-key.pem', '-subj', '/CN=refused', '-out', 'csr');
  openssl('ca', '-batch', '-notext', '-selfsign', '-config', 'config', '-keyfile', 'ca-key.pem', '-in', 'csr', '-startdate', from, '-enddate', to, '-out', 'ca-cert.pem'); // prettier-ignore
  for (const file of ['cert-chain.pem', 'root-cert.pem']) copyFileSync(join(cwd, 'ca-cert.pem'), join(cwd, file));
  return cwd;
}

const [past, near, far] = ['20200101000000Z', '20210101000000Z', '20990101000000Z'];

it.each([
  ['run-out', past, near, '', 'CertificateExpired'],
  ['not-valid-yet', '20980101000000Z', far, '', 'CertificateNotYetValid'],
  ['for-clients-only', past, far, 'extendedKeyUsage = clientAuth', 'ExtendedKeyUsage'],
])('a certificate that is %s', async (name, from, to, extensions, reason) => {
  const istiod = await startIstiod({ kube, rootCaDir: makeFiles(name, from, to, extensions), namespace });
  try {
    await waitFor('istiod to end', () => istiod.ended() !== undefined, { timeoutMs: 30_000, log: istiod.log });
  } finally {
    await istiod.stop();
  }
  const log = relevantLines(istiod.log(), 'discovery');
  const state = { kind: 'terminated' as const, reason: 'Error', exitCode: 255, message: '' };
  const pod = podOf(provisioned(), 'istiod-1', { containers: { discovery: { ready: false, state, log } } });
  expect(istiodFailure(desiredOf(), pod, 'istiod', 0)).toMatchObject({ reason });
});
