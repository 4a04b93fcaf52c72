/** What must be the same at the end of a run, whatever happened in it: read from the real servers as an administrator. */
import { blocks, defects } from '../support/certificates.ts';
import { conditionOf, getResource, type Json } from '../support/cluster.ts';
import { podTemplateOf } from '../support/istiod-pod.ts';
import type { Scene } from '../support/scene.ts';

interface Listing {
  data?: { keys?: string[] };
}

interface Stored {
  live: Record<string, string>;
  state: {
    highestGeneration: number;
    root?: { fingerprint?: string };
    intermediate?: { generation: number; fingerprint?: string };
  };
  staging: Json | undefined;
}

async function stored({ vault, namespace, resource }: Scene): Promise<Stored> {
  const { version = 2 } = (resource['spec'] as { keyStore: { version?: 1 | 2 } }).keyStore;
  const read = async (suffix: string) => {
    const path = version === 1 ? `${namespace}-kv/istioca${suffix}` : `${namespace}-kv/data/istioca${suffix}`;
    const data = ((await vault.request('GET', path)).body as { data?: Json }).data;
    return version === 1 ? data : (data?.['data'] as Json | null | undefined);
  };
  const [live, state, staging] = await Promise.all([read(''), read('-state'), read('-staging')]);
  return {
    live: (live ?? {}) as Record<string, string>,
    state: JSON.parse((state?.['state'] as string | undefined) ?? '{}') as Stored['state'],
    staging: staging ?? undefined,
  };
}

/** Counts and verdicts without names, serials and times. */
export async function essence(scene: Scene): Promise<Json> {
  const { vault, kube, namespace } = scene;
  const count = async (path: string) => ((await vault.request('LIST', path)).body as Listing).data?.keys?.length ?? 0;
  const { live, state, staging } = await stored(scene);
  const fingerprint = (pem: string | undefined) =>
    blocks(pem ?? '')[0]
      ?.fingerprint256.replaceAll(':', '')
      .toLowerCase();
  const resource = await getResource(kube, namespace, scene.name);
  const controlPlane = await kube.request(
    'GET',
    `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`,
  );
  const template = podTemplateOf(controlPlane.body as Json);
  const served = (await vault.request('GET', `${namespace}-ca/cert/ca`)).body as { data?: { certificate: string } };
  return {
    issuers: { root: await count(`${namespace}-pki/issuers`), intermediate: await count(`${namespace}-ca/issuers`) },
    keys: { root: await count(`${namespace}-pki/keys`), intermediate: await count(`${namespace}-ca/keys`) },
    liveDefects: defects({
      cert: live['ca-cert.pem'] ?? '',
      key: live['ca-key.pem'] ?? '',
      chain: live['cert-chain.pem'] ?? '',
      root: live['root-cert.pem'] ?? '',
    }),
    liveIsDefault: fingerprint(served.data?.certificate) === fingerprint(live['ca-cert.pem']),
    liveIsRecorded: state.intermediate?.fingerprint === fingerprint(live['ca-cert.pem']),
    rootIsRecorded: state.root?.fingerprint === fingerprint(live['root-cert.pem']),
    generation: {
      highest: state.highestGeneration,
      live: live['generation'],
      recorded: state.intermediate?.generation,
    },
    staging,
    policy: (await vault.request('GET', `sys/policies/acl/${namespace}-istioca`)).status,
    role: (await vault.request('GET', `auth/kubernetes/role/${namespace}-istiod`)).status,
    fields: [...Object.keys(template.env), ...Object.keys(template.annotations)].sort(),
    conditions: [
      'VaultReady',
      'RootReady',
      'IntermediateReady',
      'KeyStored',
      'AccessReady',
      'ControlPlanePatched',
      'Provisioned',
    ].map((type) => `${type}=${conditionOf(resource, type)?.status ?? ''}`),
  };
}
