/** The manifests of `deploy/samples`, with the Vault policies of `deploy/vault`, on servers of their own with default names. */
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  createNamespace,
  makeTemporaryDir,
  requestToken,
  sharedStack,
  startVault,
  type VaultServer,
} from '../stack/index.ts';
import { defects, readCaFiles } from '../support/certificates.ts';
import { vaultWrites } from '../support/audit.ts';
import { applyOk, conditionOf, manifest, requestReconcile, waitForCondition, type Json } from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { overlaysOf } from '../support/istiod-pod.ts';
import { renderFiles } from '../support/render.ts';
import { controlPlane, merge, prepareVault } from '../support/scene.ts';

const { kube } = sharedStack();
useOperator();

let openbao: VaultServer;
let vault: VaultServer;

beforeAll(async () => {
  [openbao, vault] = await Promise.all([startVault('OpenBao'), startVault('Vault')]);
});

afterAll(async () => {
  await Promise.all([openbao.stop(), vault.stop()]);
});

const shipped = async (file: string) =>
  await readFile(join(import.meta.dirname, '..', '..', 'deploy', 'vault', file), 'utf8');

const secret = (namespace: string, name: string, key: string, value: string): Json => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name, namespace },
  data: { [key]: Buffer.from(value).toString('base64') },
});

/** Applies a sample with what is different here: the server's address and its private CA. */
async function applySample(file: string, namespace: string, server: VaultServer, spec: Json = {}): Promise<void> {
  await createNamespace(kube, namespace);
  await applyOk(kube, secret(namespace, 'istio-vault-ca-tls', 'ca.crt', server.caPem ?? ''));
  await applyOk(kube, controlPlane(namespace, []));
  const here = {
    metadata: { namespace },
    spec: merge({ vault: { address: server.address, tls: { caSecretRef: { name: 'istio-vault-ca-tls' } } } }, spec),
  };
  for (const object of await manifest(file)) {
    await applyOk(kube, merge(object, object['kind'] === 'IstioVaultCA' ? here : { metadata: { namespace } }));
  }
}

it('the smallest manifest, with exactly the shipped policy and the role of its README', async () => {
  await prepareVault(kube, openbao);
  await openbao.request('PUT', 'sys/policies/acl/istio-vault-ca', { policy: await shipped('operator-policy.hcl') });
  await openbao.request('POST', 'auth/kubernetes/role/istio-vault-ca', {
    bound_service_account_names: 'istio-vault-ca',
    bound_service_account_namespaces: 'istio-system',
    audience: 'vault',
    token_policies: 'istio-vault-ca',
    token_ttl: '1h',
  });
  await applySample('deploy/samples/minimal.yaml', 'istio-system', openbao);
  const resource = await waitForCondition(kube, 'istio-system', 'istioca', { type: 'Provisioned', status: 'True' });
  expect(conditionOf(resource, 'IstiodReady')).toMatchObject({ status: 'Unknown', reason: 'IstiodNotFound' });
  const { dir } = await renderFiles({ kube, vault: openbao, namespace: 'istio-system', name: 'istioca', resource: {} });
  expect(defects(await readCaFiles(dir))).toEqual([]);
});

it('the procedure, from an empty Vault: audit device, auth mount and its configuration too', async () => {
  const namespace = 'procedure';
  await createNamespace(kube, namespace);
  await vault.request('PUT', 'sys/policies/acl/istio-vault-ca', {
    policy: await shipped('operator-policy-procedure.hcl'),
  });
  const created = (
    await vault.request('POST', 'auth/token/create', { policies: ['istio-vault-ca'], no_parent: true, period: '24h' })
  ).body as { auth: { client_token: string } };
  await applyOk(kube, secret(namespace, 'istio-vault-ca-token', 'token', created.auth.client_token));
  await applyOk(
    kube,
    secret(namespace, 'istio-vault-ca-reviewer', 'token', await requestToken(kube, 'vault', 'vault-reviewer')),
  );
  await applySample('deploy/samples/procedure.yaml', namespace, vault, {
    audit: { options: { file_path: join(makeTemporaryDir('audit'), 'vault-audit.log') } },
    kubernetesAuth: { config: { kubernetesHost: kube.url } },
  });
  await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  expect((await vault.request('GET', 'sys/audit')).body).toMatchObject({ data: { 'file/': { type: 'file' } } });

  const scene = { kube, vault, namespace, name: 'istioca', resource: {} };
  const { dir, template } = await renderFiles(scene, 'istiod-service-account');
  expect(defects(await readCaFiles(dir))).toEqual([]);
  expect(template.annotations['vault.hashicorp.com/agent-inject-secret-ca-key.pem']).toBe('kv/istioca');
  const path = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
  const [overlay] = overlaysOf((await kube.request('GET', path)).body as Json);
  expect(overlay?.patches).toContainEqual({
    path: 'spec.meshConfig.defaultConfig.holdApplicationUntilProxyStarts',
    value: true,
  });
  const before = await vaultWrites(vault);
  await requestReconcile(kube, namespace, 'istioca', '1');
  expect(await vaultWrites(vault)).toEqual(before);
  // a token that was given is not the operator's to revoke
  expect((await vault.request('GET', 'auth/token/lookup-self', undefined, created.auth.client_token)).status).toBe(200);
});
