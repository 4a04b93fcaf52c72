/** The manifests of `deploy/samples` and the files of `deploy/vault`, as they are shipped. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createNamespace, type VaultServer } from '../stack/index.ts';
import { applyOk, manifest, type Json, type Kube } from './cluster.ts';
import { controlPlane, limitMesh, merge } from './scene.ts';

/** The path of a file in `deploy/vault`. */
export const shippedFile = (file: string): string => join(import.meta.dirname, '..', '..', 'deploy', 'vault', file);

/** The text of a policy in `deploy/vault`. */
export const shippedPolicy = (file: string): Promise<string> => readFile(shippedFile(file), 'utf8');

/** A Secret with these texts. */
export const secretWith = (namespace: string, name: string, texts: Readonly<Record<string, string>>): Json => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name, namespace },
  data: Object.fromEntries(Object.entries(texts).map(([key, text]) => [key, Buffer.from(text).toString('base64')])),
});

/** A Secret with one key. */
export const secretOf = (namespace: string, name: string, key: string, value: string): Json =>
  secretWith(namespace, name, { [key]: value });

/** Applies a sample with what is different here: the server's address and its private CA. */
export async function applySample(
  kube: Kube,
  file: string,
  namespace: string,
  server: VaultServer,
  spec: Json = {},
): Promise<void> {
  await createNamespace(kube, namespace);
  await limitMesh(kube, namespace);
  await applyOk(kube, secretOf(namespace, 'istio-vault-ca-tls', 'ca.crt', server.caPem ?? ''));
  await applyOk(kube, controlPlane(namespace, []));
  const here = {
    metadata: { namespace },
    spec: merge({ vault: { address: server.address, tls: { caSecretRef: { name: 'istio-vault-ca-tls' } } } }, spec),
  };
  for (const object of await manifest(file)) {
    await applyOk(kube, merge(object, object['kind'] === 'IstioVaultCA' ? here : { metadata: { namespace } }));
  }
}
