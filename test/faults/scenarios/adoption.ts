/** Adoption of a CA that was created with the manual procedure of test/by-hand: root, intermediate and key must stay the same. */
import { makeCaByApi } from '../../support/by-api.ts';
import { overlayByHand } from '../../support/by-hand.ts';
import { blocks } from '../../support/certificates.ts';
import type { Json } from '../../support/cluster.ts';
import { kubernetesEssence, vaultEssence } from '../essence.ts';
import type { Stage } from '../stage.ts';
import type { Scenario } from './scenario.ts';

/** Makes a call and returns its data. @throws if it fails */
async function call({ vault }: Stage, path: string, body: Json, method = 'POST'): Promise<Record<string, string>> {
  const answer = await vault.request(method, path, body);
  if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
  return (answer.body as { data?: Record<string, string> } | undefined)?.data ?? {};
}

/** The CA of the manual procedure, with P-256 keys unless configured otherwise. */
async function makeCaByHand(stage: Stage): Promise<void> {
  const { vault, mounts, configuration } = stage;
  const { certificate, privateKey } = await makeCaByApi({
    vault,
    mounts,
    entry: stage.entryPath(),
    version: configuration.version,
    key: configuration.keyType === 'rsa' ? { key_type: 'rsa', key_bits: 2048 } : { key_type: 'ec', key_bits: 256 },
  });
  stage.notes.set('made', { certificate: digest(certificate), key: privateKey.trim() });
}

const digest = (pem: string | undefined): string => blocks(pem ?? '')[0]?.fingerprint256 ?? '';

async function grantIstiod(stage: Stage): Promise<void> {
  const { mounts, policy, name, namespace } = stage;
  const paths = [stage.entryPath(), `${mounts.intermediate}/cert/*`, `${mounts.root}/cert/ca`];
  const text = paths.map((path) => `path "${path}" {\n  capabilities = ["read", "list"]\n}\n`).join('');
  await call(stage, `sys/policies/acl/${policy}`, { policy: text }, 'PUT');
  await call(stage, `auth/kubernetes/role/${name}-istiod`, {
    bound_service_account_names: 'istiod-service-account',
    bound_service_account_namespaces: namespace,
    policies: policy,
    ttl: '24h',
  });
}

/** Returns whether certificate and key are those of the manual procedure. */
async function unchanged(stage: Stage): Promise<boolean> {
  const made = stage.notes.get('made') as { certificate: string; key: string };
  const { mounts, vault, configuration } = stage;
  const served = (await vault.request('GET', `${mounts.intermediate}/cert/ca`)).body as {
    data?: { certificate: string };
  };
  const stored = (await vault.request('GET', stage.entryPath())).body as { data?: Json };
  const entry = (configuration.version === 1 ? stored.data : stored.data?.['data']) as Json | undefined;
  const key = String(entry?.['ca-key.pem']).trim();
  return digest(served.data?.certificate) === made.certificate && key === made.key;
}

export const adoption: Scenario = {
  name: 'adoption',
  reusable: false,
  leastWrites: 6,
  expected: {
    // the manual procedure writes the bundle to the intermediate mount, and with it the root as an issuer without a key
    issuers: { root: 1, intermediate: 2 },
    keys: { root: 1, intermediate: 1 },
    liveDefects: [],
    liveIsDefault: true,
    unchanged: true,
  },
  spec: () => ({ adopt: true }),
  prepare: async (stage) => {
    await makeCaByHand(stage);
    await grantIstiod(stage);
    await stage.overlays(overlayByHand({ namespace: stage.name, resource: stage.resource }));
  },
  act: (stage) => stage.apply(),
  settled: async (stage) => {
    await stage.provisioned();
  },
  look: (stage) => stage.look(),
  essence: async (stage) => ({
    ...(await vaultEssence(stage)),
    ...(await kubernetesEssence(stage)),
    unchanged: await unchanged(stage),
  }),
};
