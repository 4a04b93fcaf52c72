/** A root that Vault did not issue, as trusted by a mesh with a self-signed CA. */
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { promisify } from 'node:util';
import { applyOk, type Kube } from './cluster.ts';

/** @param name organization of the certificate, and the host that it is for */
export async function makeSelfSigned(name: string): Promise<{ pem: string; key: string; fingerprint: string }> {
  const { stdout } = await promisify(execFile)('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', '-'],
    ...['-subj', `/O=${name}`, '-addext', `subjectAltName=DNS:${name}`, '-days', '30'],
  ]);
  const at = stdout.indexOf('-----BEGIN CERTIFICATE');
  const pem = stdout.slice(at);
  const fingerprint = new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase();
  return { pem, key: stdout.slice(0, at), fingerprint };
}

export const makeForeignRoot = (): Promise<{ pem: string; fingerprint: string }> => makeSelfSigned('cluster.local');

/** Makes the mesh of a namespace trust such a root and no other. */
export async function trustForeignRoot(kube: Kube, namespace: string): ReturnType<typeof makeForeignRoot> {
  const root = await makeForeignRoot();
  await applyOk(kube, {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'istio-ca-root-cert', namespace },
    data: { 'root-cert.pem': root.pem },
  });
  return root;
}
