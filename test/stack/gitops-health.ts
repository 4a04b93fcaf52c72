/**
 * The health of an IstioVaultCA according to GitOps tools, from their libraries (`modules/gitops-health`) with the checks
 * in `deploy/`, and the health that docs/gitops.md documents. Every state that tests produce is recorded, and the two are compared.
 */
import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadYaml } from '../../src/runtime/yaml.ts';
import { ensureServer } from './servers.ts';
import { watchObjects, type Watch } from './watch.ts';

const collection = '/apis/istiovaultca.io/v1alpha1/istiovaultcas';
const deploy = join(import.meta.dirname, '../../deploy');

/** The part of an IstioVaultCA that its health depends on. */
export interface Shown {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly namespace?: string;
    readonly name: string;
    readonly generation: number;
    readonly deletionTimestamp?: string | undefined;
  };
  readonly spec?: { readonly suspend?: boolean | undefined };
  readonly status?:
    | {
        readonly observedGeneration?: number | undefined;
        readonly conditions?: readonly { type: string; status: string; reason: string; message: string }[] | undefined;
      }
    | undefined;
}

/** The result of each tool. */
export interface Health {
  readonly kstatus: string;
  readonly argo: string;
  readonly flux: string;
}

/** The results of the tools, and the message that Argo CD shows. */
export interface Answer extends Health {
  readonly message: string;
}

/** Evaluates every object with the tools. @throws if the program fails */
export async function askTools(objects: readonly Shown[]): Promise<Answer[]> {
  const { binary } = await ensureServer('gitops-health');
  const { spec } = loadYaml(readFileSync(join(deploy, 'flux/health-checks.yaml'), 'utf8')) as {
    spec: { healthCheckExprs: [Record<'inProgress' | 'failed' | 'current', string>] };
  };
  const result = spawnSync(binary, [join(deploy, 'argocd/health.lua'), JSON.stringify(spec.healthCheckExprs[0])], {
    input: objects.map((object) => `${JSON.stringify(object)}\n`).join(''),
    encoding: 'utf8',
    maxBuffer: 1 << 30,
  });
  if (result.status !== 0) throw new Error(`gitops-health failed: ${result.stderr}`);
  const lines = result.stdout.split('\n').slice(0, -1);
  if (lines.length !== objects.length) throw new Error(`gitops-health: ${lines.length} answers for ${objects.length}`);
  return lines.map((line) => {
    const { kstatus, argo, flux } = JSON.parse(line) as {
      kstatus: string;
      argo: { status: string; message?: string };
      flux: { status: string };
    };
    return { kstatus, argo: argo.status, flux: flux.status, message: argo.message ?? '' };
  });
}

/** The documented results: the table of docs/gitops.md. */
export function promisedHealth({ metadata, spec, status }: Shown): Health {
  if (metadata.deletionTimestamp !== undefined)
    return { kstatus: 'Terminating', argo: 'Progressing', flux: 'InProgress' };
  const settled = status?.observedGeneration === metadata.generation;
  const find = (type: string) => (settled ? status.conditions?.find((c) => c.type === type) : undefined);
  const holds = (type: string) => find(type)?.status === 'True';
  const goesOn = ['IstiodNotFound', 'ControlPlaneNotFound', 'AwaitingCommit'].includes(find('Ready')?.reason ?? '');
  const plain = holds('Stalled') ? 'Failed' : holds('Ready') ? 'Current' : 'InProgress';
  const flux = plain === 'InProgress' && holds('Provisioned') && goesOn ? 'Current' : plain;
  const argo = { Failed: 'Degraded', Current: 'Healthy', InProgress: 'Progressing' }[flux];
  return { kstatus: plain, argo: spec?.suspend === true ? 'Suspended' : argo, flux };
}

/** Differences between the tools and the documentation: a text for each object, with the object. */
export async function disagreements(objects: readonly Shown[]): Promise<string[]> {
  const answers = await askTools(objects);
  return objects.flatMap((object, i) => {
    const { message, ...said } = answers[i]!;
    const promised = promisedHealth(object);
    const same = said.kstatus === promised.kstatus && said.argo === promised.argo && said.flux === promised.flux;
    if (same) return [];
    const show = (value: unknown) => JSON.stringify(value);
    return [`said ${show(said)} (${message}), not ${show(promised)}, of\n${show(object)}`];
  });
}

/** The file with the recorded states of a test run, in the folder of the stack. */
export const statesFile = 'istiovaultcas.jsonl';

/**
 * Writes every state of every IstioVaultCA of an API server to a file, one JSON line each. The CRD need not exist yet, and the API server can be
 * restarted meanwhile.
 */
export function recordStates(kube: Parameters<typeof watchObjects>[0], file: string): Watch {
  const written = new Set<string>();
  const record = ({ apiVersion, kind, metadata, spec, status }: Shown): void => {
    const { namespace, name, generation, deletionTimestamp } = metadata;
    const shown = { apiVersion, kind, metadata: { namespace, name, generation, deletionTimestamp }, spec: { suspend: spec?.suspend }, status }; // prettier-ignore
    const line = `${JSON.stringify(shown)}\n`;
    if (written.has(line)) return;
    written.add(line);
    appendFileSync(file, line);
  };
  return watchObjects<Shown & { metadata: { uid: string; resourceVersion: string } }>(kube, collection, {
    seen: record,
    gone: record,
    // retried: the CRD does not exist yet, or the API server does not run
    failed: () => undefined,
  });
}

/** Compares the recorded states with the documentation. Returns the number of states. @throws with up to ten states that differ */
export async function checkRecorded(file: string): Promise<number> {
  if (!existsSync(file)) return 0;
  const objects = readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Shown);
  const wrong = await disagreements(objects);
  if (wrong.length > 0)
    throw new Error(
      `GitOps tools disagree with docs/gitops.md on ${wrong.length} states:\n${wrong.slice(0, 10).join('\n\n')}`,
    );
  return objects.length;
}
