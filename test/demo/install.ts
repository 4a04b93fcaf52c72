/** One-time tasks of an administrator: install the operator, grant its permissions in Vault, provide an injector and a control plane. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createNamespace, enableKubernetesAuth } from '../stack/index.ts';
import { expectStatus } from '../stack/http.ts';
import type { Cleanup } from '../support/cleanup.ts';
import { applyOk, installOperator, registerInjector } from '../support/cluster.ts';
import { startOperator, type RunningOperator } from '../support/operator.ts';
import { controlPlane } from '../support/scene.ts';
import { namespace, policyFile, top } from './names.ts';
import type { Servers } from './servers.ts';
import { note, step, title } from './terminal.ts';

/** An overlay that exists before the operator writes, to show that the operator does not change it. */
export const foreignPatch = { path: 'spec.meshConfig.accessLogFile', value: '/dev/stdout' };

/** Follows deploy/vault/README.md. */
async function grantRights({ kube, vault }: Servers): Promise<void> {
  await enableKubernetesAuth(vault, kube);
  const policy = await readFile(join(top, policyFile), 'utf8');
  const write = async (path: string, body: unknown): Promise<void> => {
    expectStatus(await vault.request('PUT', path, body), [200, 204], `write ${path}`);
  };
  await write('sys/policies/acl/istio-vault-ca', { policy });
  await write('auth/kubernetes/role/istio-vault-ca', {
    bound_service_account_names: ['istio-vault-ca'],
    bound_service_account_namespaces: [namespace],
    audience: 'vault',
    token_policies: ['istio-vault-ca'],
    token_ttl: '1h',
  });
}

/** @returns the running operator, which uses its own service account */
export async function install(servers: Servers, cleanup: Cleanup): Promise<RunningOperator> {
  const { kube, vault } = servers;
  title('Installation');
  const kubeconfig = await installOperator(kube, ['secrets']);
  step('CRD, RBAC and service account from deploy/default and deploy/components/secrets applied');
  await grantRights(servers);
  step(`${vault.product}: Kubernetes auth enabled, policy (${policyFile}) and role istio-vault-ca written`);
  await registerInjector(kube);
  await createNamespace(kube, namespace);
  const overlay = { apiVersion: 'install.istio.io/v1alpha1', kind: 'IstioOperator', name: 'tsb-istiocontrolplane' };
  await applyOk(kube, controlPlane(namespace, [{ ...overlay, patches: [foreignPatch] }]));
  step(`ControlPlane ${namespace}/controlplane made, and the agent injector's webhook registered`);
  step('waiting for the operator to be bundled and ready (dist/main.js run)');
  const operator = cleanup.add(await startOperator(kubeconfig));
  step('the operator is ready, as service account istio-vault-ca/istio-vault-ca-operator');
  note(
    'Stand-ins, since no kubelet runs here and TSB is not public: nobody answers the webhook; the demo itself does what ' +
      "TSB's operator, the injector and the kubelet do with istiod's pod. The Vault agent they would start is the real one.",
  );
  return operator;
}
