/** A root that is not Vault's: what a mesh trusts that signs by itself today. */
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { promisify } from 'node:util';

export async function makeForeignRoot(): Promise<{ pem: string; fingerprint: string }> {
  const { stdout } = await promisify(execFile)('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', '/dev/null'],
    ...['-subj', '/O=cluster.local', '-days', '30'],
  ]);
  const pem = stdout.slice(stdout.indexOf('-----BEGIN CERTIFICATE'));
  return { pem, fingerprint: new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase() };
}
