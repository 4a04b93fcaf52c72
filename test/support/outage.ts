/** The state that must be equal before and after an outage, and the operator's writes meanwhile. */
import { createHash } from 'node:crypto';
import { kubeWrites, vaultEntries, vaultWrites } from './audit.ts';
import { getResource, type Kube } from './cluster.ts';
import type { RunningOperator } from './operator.ts';
import type { Scene, Vault } from './scene.ts';

/** A digest instead of data that contains a key, so that no failing test prints the key. */
const digest = (value: unknown): string => createHash('sha256').update(JSON.stringify(value)).digest('hex');

/** The last good state: CA entry with its version, issuers, control plane with its `resourceVersion`, status. */
export async function lastGood({ kube, vault, namespace, name }: Scene): Promise<unknown> {
  const data = async (method: string, path: string): Promise<unknown> => {
    const { status, body } = await vault.request(method, path);
    if (status !== 200) throw new Error(`${method} ${path}: ${status}`);
    return (body as { data: unknown }).data;
  };
  const controlPlane = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
  const { status } = await getResource(kube, namespace, name);
  return {
    live: digest(await data('GET', `${namespace}-kv/data/istioca`)),
    issuers: [await data('LIST', `${namespace}-ca/issuers`), await data('LIST', `${namespace}-pki/issuers`)],
    controlPlane: digest((await kube.request('GET', controlPlane)).body),
    shown: [status?.root, status?.intermediate, status?.history],
  };
}

/**
 * The operator's writes for one scene: in Vault all, in Kubernetes all except its status and its Events, which only report.
 * The scene's administrator writes in Vault to paths that contain `operator-`, or that do not contain the name of the scene.
 */
export async function writesFor({
  kube,
  vault,
  namespace,
}: Pick<Scene, 'kube' | 'vault' | 'namespace'>): Promise<string[]> {
  const inVault = (await vaultWrites(vault)).filter(
    (line) => line.includes(`${namespace}-`) && !line.includes('operator-'),
  );
  const inKube = (await kubeWrites(kube)).filter(
    (line) => line.includes(` ${namespace}/`) && !/ (istiovaultcas\/status|events\/) /.test(line),
  );
  return [...inVault, ...inKube];
}

/**
 * The operator's executed writes in Vault, sorted, without the name of the scene and random parts. A standby node
 * of OpenBao tries a write itself, writes its failure to the audit log, and forwards it.
 */
export async function carriedOut({ vault, namespace }: Scene): Promise<string[]> {
  return (await vaultEntries(vault.auditLog))
    .filter(({ type, failed }) => type === 'response' && !failed)
    .map(({ operation, path }) => `${operation} ${path}`)
    .filter((line) => /^(create|update|patch|delete) /.test(line))
    .filter((line) => line.includes(`${namespace}-`) && !line.includes('operator-'))
    .map((line) => line.replaceAll(namespace, '…').replace(/[0-9a-f-]{36}/, '…'))
    .sort();
}

/** The number of the operator's writes to the status of a resource. */
export async function statusWrites(kube: Kube, namespace: string): Promise<number> {
  return (await kubeWrites(kube)).filter((line) => line.includes(`istiovaultcas/status ${namespace}/`)).length;
}

/** The number of the operator's logins to any Vault server, failed ones included. */
export async function logins(operator: RunningOperator): Promise<number> {
  return Number(/^istio_vault_ca_vault_logins_total (\d+)/m.exec(await operator.metrics())?.[1] ?? NaN);
}

/** Accessors of the tokens that a namespace's operator holds in a Vault. */
export async function tokensOf(vault: Vault, namespace: string): Promise<string[]> {
  const listed = (await vault.request('LIST', 'auth/token/accessors')).body as { data?: { keys?: string[] } };
  const found = await Promise.all(
    (listed.data?.keys ?? []).map(async (accessor) => {
      const answer = await vault.request('POST', 'auth/token/lookup-accessor', { accessor });
      const meta = (answer.body as { data?: { meta?: Record<string, string> | null } }).data?.meta;
      return meta?.['service_account_namespace'] === namespace ? [accessor] : [];
    }),
  );
  return found.flat();
}
