/** A root that Vault did not issue, as trusted by a mesh with a self-signed CA. */
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { promisify } from 'node:util';
import { applyOk, type Kube } from './cluster.ts';

export async function makeForeignRoot(): Promise<{ pem: string; fingerprint: string }> {
  const { stdout } = await promisify(execFile)('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', '/dev/null'],
    ...['-subj', '/O=cluster.local', '-days', '30'],
  ]);
  const pem = stdout.slice(stdout.indexOf('-----BEGIN CERTIFICATE'));
  return { pem, fingerprint: new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase() };
}

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
