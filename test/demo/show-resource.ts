/** Prints the line of `kubectl get`, the conditions, and the new fields of the control plane. */
import { readFile } from 'node:fs/promises';
import { call, expectStatus } from '../stack/http.ts';
import { getResource, type Condition, type Json, type Kube } from '../support/cluster.ts';
import { overlaysOf } from '../support/istiod-pod.ts';
import { foreignPatch } from './install.ts';
import { controlPlanePath, namespace, resourceName } from './names.ts';
import { entry, heading, note, paint, print, table, title, wideTable, type Cell } from './terminal.ts';

const valueText = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));

interface Table {
  columnDefinitions: { name: string }[];
  rows: { cells: unknown[] }[];
}

/** The table that the API server returns for the resource, as `kubectl get ivca -o wide` prints it. */
async function tableOf(kube: Kube): Promise<Table> {
  const config = JSON.parse(await readFile(kube.adminKubeconfig, 'utf8')) as { users: { user: { token: string } }[] };
  const answer = await call(`${kube.url}/apis/istiovaultca.io/v1alpha1/namespaces/${namespace}/istiovaultcas`, {
    ca: kube.caPem,
    headers: {
      authorization: `Bearer ${config.users[0]!.user.token}`,
      accept: 'application/json;as=Table;v=v1;g=meta.k8s.io',
    },
  });
  return expectStatus(answer, [200], 'get ivca as a table') as Table;
}

const styles: Readonly<Record<string, 'green' | 'red' | 'yellow'>> = { True: 'green', False: 'red', Unknown: 'yellow' };

const styled = (status: string): Cell => ({ text: status, style: styles[status] ?? 'yellow' });

/** Conditions as a table, each long message once. `Stalled` and `Reconciling` are colored as failures while they are `True`. */
export function showConditions(conditions: readonly Condition[]): void {
  const long = 60;
  table(
    conditions.map(({ type, status, reason, message }, i) => {
      const same = conditions.slice(0, i).find((earlier) => message.length > long && earlier.message === message);
      return [
        type,
        /^(Stalled|Reconciling)$/.test(type) ? { text: status, style: 'yellow' } : styled(status),
        reason,
        same === undefined ? message : `as in ${same.type}`,
      ];
    }),
    ['CONDITION', 'STATUS', 'REASON', 'MESSAGE'],
  );
}

export async function showResource(kube: Kube): Promise<void> {
  title('The resource');
  note(`kubectl get ivca -n ${namespace} -o wide`);
  const { columnDefinitions, rows } = await tableOf(kube);
  const shown = rows.map(({ cells }) => cells.map((cell) => valueText(cell ?? '')));
  wideTable(
    shown,
    columnDefinitions.map(({ name }) => name.toUpperCase()),
  );
  heading('Conditions');
  showConditions((await getResource(kube, namespace, resourceName)).status?.conditions ?? []);
  print();
  note(
    'Provisioned is what a pipeline waits for. Ready also wants istiod, of which no Deployment runs here: without a ' +
      'kubelet there are no pods.',
  );
}

/** Groups patches by the path of the map that they write to, so that each path is printed once. Removes the escapes of the path grammar. */
function grouped(patches: readonly { path: string; value: unknown }[]): Map<string, [string, unknown][]> {
  const groups = new Map<string, [string, unknown][]>();
  for (const { path, value } of patches) {
    const [, parent = '', key = path] = /^(.*?)\.((?:[^.\\]|\\.)+)$/.exec(path) ?? [];
    groups.set(parent, [...(groups.get(parent) ?? []), [key.replaceAll('\\.', '.'), value]]);
  }
  return groups;
}

/** The recorded previous values are long and only for the operator, so they are shortened. */
const shortened = (text: string): string =>
  text.length > 100 ? `${text.slice(0, 60)}… (${text.length} characters)` : text;

export async function showControlPlane(kube: Kube): Promise<Json> {
  title("The control plane's new fields");
  const object = (await kube.request('GET', controlPlanePath)).body as Json;
  const { annotations = {} } = object['metadata'] as { annotations?: Record<string, string> };
  note(`ControlPlane ${namespace}/controlplane, annotations:`);
  for (const [name, value] of Object.entries(annotations)) entry(name, shortened(value));
  const patches = overlaysOf(object).flatMap((overlay) => overlay.patches ?? []);
  const ours = patches.filter((patch) => patch.path !== foreignPatch.path);
  print();
  note('Patches added to spec.components.istio.kubeSpec.overlays, IstioOperator tsb-istiocontrolplane:');
  for (const [parent, entries] of grouped(ours)) {
    print(`  ${paint('bold', parent)}`);
    for (const [key, value] of entries) entry(key, valueText(value));
  }
  print();
  const kept = patches.length - ours.length;
  note(
    kept === 1
      ? `The patch of ${foreignPatch.path} that was there before is still there.`
      : `${foreignPatch.path} is gone.`,
  );
  return object;
}
