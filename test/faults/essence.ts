/** The state that must be equal at the end of every run, whatever failed in it: read from the real servers as administrator. */
import { blocks, defects } from '../support/certificates.ts';
import { conditionOf, type Json, type Resource } from '../support/cluster.ts';
import type { Stage } from './stage.ts';

interface State {
  highestGeneration?: number;
  role?: string;
  made?: string[];
  handled?: Record<string, string>;
  root?: { generation: number; fingerprint?: string };
  intermediate?: { generation: number; fingerprint?: string };
  history?: { kind: string; serial: string }[];
}

type Data = Record<string, string>;

/** Replaces names, ids and digests that differ in each run. */
function timeless(stage: Stage, value: unknown): unknown {
  const text = JSON.stringify(value ?? null)
    .replaceAll(new RegExp(`\\b${stage.name}\\b`, 'g'), '<name>')
    .replaceAll(new RegExp(`\\b${stage.namespace}\\b`, 'g'), '<namespace>')
    .replaceAll(/\buid=[0-9a-f-]{36}/g, 'uid=<uid>')
    .replaceAll(/\b[0-9a-f]{64}\b/g, '<digest>')
    .replaceAll(/127\.0\.0\.1:\d+/g, '<address>');
  return JSON.parse(text) as unknown;
}

const fingerprint = (pem: string | undefined): string | undefined =>
  blocks(pem ?? '')[0]
    ?.fingerprint256.replaceAll(':', '')
    .toLowerCase();

async function data(stage: Stage, path: string): Promise<Json | undefined> {
  const { status, body } = await stage.vault.request('GET', path);
  return status === 200 ? (body as { data: Json }).data : undefined;
}

async function entry(stage: Stage, suffix: '' | '-staging' | '-state'): Promise<Data | undefined> {
  const found = await data(stage, stage.entryPath(suffix));
  return (stage.configuration.version === 1 ? found : found?.['data']) as Data | undefined;
}

async function count(stage: Stage, path: string): Promise<number> {
  const { body } = await stage.vault.request('LIST', path);
  return (body as { data?: { keys?: string[] } } | undefined)?.data?.keys?.length ?? 0;
}

/** Versions of a KV 2 entry that still contain data. */
async function versions(stage: Stage, suffix: '' | '-staging'): Promise<number | undefined> {
  if (stage.configuration.version === 1) return undefined;
  const found = await data(stage, `${stage.mounts.keyStore}/metadata/istioca${suffix}`);
  const all = (found?.['versions'] ?? {}) as Record<string, { destroyed: boolean; deletion_time: string }>;
  return Object.values(all).filter((v) => !v.destroyed && v.deletion_time === '').length;
}

async function mount(stage: Stage, name: string): Promise<unknown> {
  const found = await data(stage, `sys/mounts/${name}`);
  const config = found?.['config'] as Json | undefined;
  return found && [found['type'], found['description'], found['options'], config?.['max_lease_ttl']];
}

/** The state in Vault: counts, check results and texts without names, serials and times. @param base the CA generation before the run */
export async function vaultEssence(stage: Stage, base = 0): Promise<Json> {
  const { mounts } = stage;
  const [live, stateEntry, staging, served, policy, role, ...rest] = await Promise.all([
    entry(stage, ''),
    entry(stage, '-state'),
    entry(stage, '-staging'),
    data(stage, `${mounts.intermediate}/cert/ca`),
    data(stage, `sys/policies/acl/${stage.policy}`),
    data(stage, `auth/kubernetes/role/${stage.name}-istiod`),
    ...Object.values(mounts).map((name) => mount(stage, name)),
  ]);
  const state = JSON.parse(stateEntry?.['state'] ?? '{}') as State;
  const current = fingerprint(live?.['ca-cert.pem']);
  const generation = Number(live?.['generation'] ?? 0);
  return {
    issuers: {
      root: await count(stage, `${mounts.root}/issuers`),
      intermediate: await count(stage, `${mounts.intermediate}/issuers`),
    },
    keys: {
      root: await count(stage, `${mounts.root}/keys`),
      intermediate: await count(stage, `${mounts.intermediate}/keys`),
    },
    liveDefects: liveDefects(live),
    liveIsDefault: fingerprint(served?.['certificate'] as string | undefined) === current,
    liveIsRecorded: state.intermediate?.fingerprint === current,
    rootIsRecorded: state.root?.fingerprint === fingerprint(live?.['root-cert.pem']),
    generations: {
      live: generation - base,
      highest: (state.highestGeneration ?? 0) - base,
      recorded: (state.intermediate?.generation ?? 0) - base,
      root: state.root?.generation,
    },
    staging: staging === undefined ? 'none' : 'left over',
    versions: { live: await versions(stage, ''), staging: await versions(stage, '-staging') },
    state: timeless(stage, { role: state.role, made: state.made, handled: Object.keys(state.handled ?? {}) }),
    repeatedHistory: repeated((state.history ?? []).map((one) => `${one.kind} ${one.serial}`)),
    policy: timeless(stage, policy?.['policy']),
    role: timeless(stage, role),
    mounts: timeless(stage, rest),
  };
}

function liveDefects(live: Data | undefined): string[] {
  if (!live) return ['there is no live entry'];
  return defects({
    cert: live['ca-cert.pem'] ?? '',
    key: live['ca-key.pem'] ?? '',
    chain: live['cert-chain.pem'] ?? '',
    root: live['root-cert.pem'] ?? '',
  });
}

const repeated = (names: string[]): string[] => names.filter((name, i) => names.indexOf(name) !== i);

const judged = [
  ...['VaultReady', 'RootReady', 'IntermediateReady', 'KeyStored', 'AccessReady', 'ControlPlanePatched', 'Provisioned'],
];

/** The state in Kubernetes: the control plane without names and digests, and the conditions. */
export async function kubernetesEssence(stage: Stage): Promise<Json> {
  const [plane, answer] = await Promise.all([stage.controlPlane(), stage.kube.request('GET', stage.path)]);
  const { annotations } = plane['metadata'] as { annotations?: Json };
  const conditions = judged.map((type) => {
    const found = conditionOf(answer.body as Resource, type);
    return `${type}=${found?.status ?? ''} ${found?.reason ?? ''}`;
  });
  return { controlPlane: timeless(stage, { spec: plane['spec'], annotations: annotations ?? {} }), conditions };
}
