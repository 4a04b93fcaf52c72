/** The manifests of `deploy/samples`, with the Vault policies of `deploy/vault`, on servers of their own with default names. */
import { afterAll, beforeAll, expect, it } from '@jest/globals';
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
import { applyOk, conditionOf, requestReconcile, waitForCondition, type Json } from '../support/cluster.ts';
import { useOperator } from '../support/harness.ts';
import { overlaysOf } from '../support/istiod-pod.ts';
import { renderFiles } from '../support/render.ts';
import { applySample, secretOf, shippedPolicy } from '../support/samples.ts';
import { prepareVault } from '../support/scene.ts';

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

it('the smallest manifest, with exactly the shipped policy and the role of its README', async () => {
  await prepareVault(kube, openbao);
  await openbao.request('PUT', 'sys/policies/acl/istio-vault-ca', {
    policy: await shippedPolicy('operator-policy.hcl'),
  });
  await openbao.request('POST', 'auth/kubernetes/role/istio-vault-ca', {
    bound_service_account_names: 'istio-vault-ca',
    bound_service_account_namespaces: 'istio-system',
    audience: 'vault',
    token_policies: 'istio-vault-ca',
    token_ttl: '1h',
  });
  await applySample(kube, 'deploy/samples/minimal.yaml', 'istio-system', openbao);
  const resource = await waitForCondition(kube, 'istio-system', 'istioca', { type: 'Provisioned', status: 'True' });
  expect(conditionOf(resource, 'IstiodReady')).toMatchObject({ status: 'Unknown', reason: 'IstiodNotFound' });
  const { dir } = await renderFiles({ kube, vault: openbao, namespace: 'istio-system', name: 'istioca', resource: {} });
  expect(defects(await readCaFiles(dir))).toEqual([]);
});

it('the procedure, from an empty Vault: audit device, auth mount and its configuration too', async () => {
  const namespace = 'procedure';
  await createNamespace(kube, namespace);
  await vault.request('PUT', 'sys/policies/acl/istio-vault-ca', {
    policy: await shippedPolicy('operator-policy-procedure.hcl'),
  });
  const created = (
    await vault.request('POST', 'auth/token/create', { policies: ['istio-vault-ca'], no_parent: true, period: '24h' })
  ).body as { auth: { client_token: string } };
  await applyOk(kube, secretOf(namespace, 'istio-vault-ca-token', 'token', created.auth.client_token));
  await applyOk(
    kube,
    secretOf(namespace, 'istio-vault-ca-reviewer', 'token', await requestToken(kube, 'vault', 'vault-reviewer')),
  );
  await applySample(kube, 'deploy/samples/procedure.yaml', namespace, vault, {
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
