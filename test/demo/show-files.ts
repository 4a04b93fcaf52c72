/** The four files as Vault Agent renders them with istiod's own token. */
import { createPrivateKey, type X509Certificate } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { makeTemporaryDir, renderWithAgent, requestToken } from '../stack/index.ts';
import { blocks, defects, opensslVerify, readCaFiles, type CaFiles } from '../support/certificates.ts';
import type { Json } from '../support/cluster.ts';
import { podTemplateOf } from '../support/istiod-pod.ts';
import { namespace } from './names.ts';
import type { Servers } from './servers.ts';
import { heading, step, table, title } from './terminal.ts';

export interface Rendered {
  readonly dir: string;
  readonly files: CaFiles;
}

const names = { cert: 'ca-cert.pem', key: 'ca-key.pem', chain: 'cert-chain.pem', root: 'root-cert.pem' } as const;

/** Node returns undefined for an empty name, although its type does not include it. */
const oneLine = (name: string | undefined): string => (name ?? '(empty)').split('\n').join(', ');
const serialOf = (hex: string): string => (hex.toLowerCase().match(/../g) ?? []).join(':');
const time = (date: Date): string => date.toISOString().replace(/:\d+\.\d+Z$/, 'Z');

/** Lines about one certificate. */
export function describeCertificate(certificate: X509Certificate): [string, string][] {
  return [
    ['subject', oneLine(certificate.subject)],
    ['issuer', certificate.subject === certificate.issuer ? 'itself' : oneLine(certificate.issuer)],
    ['serial', serialOf(certificate.serialNumber)],
    ['valid', `${time(certificate.validFromDate)} to ${time(certificate.validToDate)}`],
  ];
}

/** Type and size of a private key, without the key itself. */
function describeKey(pem: string, certificate: X509Certificate): string {
  const key = createPrivateKey(pem);
  const details = key.asymmetricKeyDetails;
  const size = details?.namedCurve ?? (details?.modulusLength === undefined ? '' : `${details.modulusLength} bits`);
  const fits = certificate.checkPrivateKey(key) ? 'matches the certificate' : 'does not match the certificate';
  return `${(key.asymmetricKeyType ?? '').toUpperCase()} ${size}, ${fits} (its content is not shown)`;
}

async function showFiles(dir: string, files: CaFiles): Promise<void> {
  const [signing] = blocks(files.cert);
  for (const part of ['cert', 'key', 'chain', 'root'] as const) {
    const { size } = await stat(join(dir, names[part]));
    const certificates = blocks(files[part]);
    const count = certificates.length === 1 ? '' : `, ${certificates.length} certificates`;
    heading(`${names[part]}  ${size} bytes${part === 'key' ? '' : count}`);
    if (part === 'key') table([['  private key', signing === undefined ? '' : describeKey(files.key, signing)]]);
    certificates.forEach((certificate, i) => {
      const label = certificates.length === 1 ? '' : `${i + 1}. `;
      const known = part !== 'cert' && certificate.fingerprint256 === signing?.fingerprint256;
      const lines = known ? [['holds', 'the certificate of ca-cert.pem']] : describeCertificate(certificate);
      table(
        lines.map(([name = '', value = ''], at) => [`  ${at === 0 ? label : ' '.repeat(label.length)}${name}`, value]),
      );
    });
  }
}

async function verifyFiles(files: CaFiles): Promise<void> {
  heading('Verified');
  const wrong = defects(files);
  if (wrong.length > 0) throw new Error(`the files do not belong together: ${wrong.join('; ')}`);
  step('node:crypto: key, certificate, chain and root belong together, and are valid now');
  await opensslVerify(files.cert, '', files.root);
  step('openssl verify -CAfile root-cert.pem ca-cert.pem: OK');
}

/** Renders the files like the injector and the kubelet, prints them, and checks them. */
export async function showFilesOfAgent({ kube, vault }: Servers, controlPlane: Json): Promise<Rendered> {
  title('The files in the pod of istiod');
  const template = podTemplateOf(controlPlane);
  const dir = makeTemporaryDir('vault-secrets');
  step(`waiting for the agent of ${vault.product} to log in with the token of service account istiod and to render`);
  const agent = await renderWithAgent({
    annotations: template.annotations,
    vault,
    token: await requestToken(kube, namespace, 'istiod'),
    dir,
    mode: 'init',
    tlsSecret: { 'ca.crt': vault.caPem ?? '' },
  });
  step(`${agent.files.length} files rendered; istiod is told ROOT_CA_DIR=${template.env['ROOT_CA_DIR'] ?? ''}`);
  const files = await readCaFiles(dir);
  await showFiles(dir, files);
  await verifyFiles(files);
  return { dir, files };
}
