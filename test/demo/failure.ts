/** What is said when a step fails: which one, the conditions, and the operator's last words. */
import { getResource, type Kube } from '../support/cluster.ts';
import { namespace, resourceName } from './names.ts';
import { showConditions } from './show-resource.ts';
import { currentTitle, heading, paint, print, table } from './terminal.ts';

const lastLines = 12;

/** What was running when it failed, as far as it had come. */
export interface Scene {
  kube?: Kube;
  operator?: { log(): string };
}

const show = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));

/** In every line, or shown by themselves. */
const known = ['time', 'level', 'msg', 'namespace', 'name'];

/** One line of the operator's log for people; what is not JSON stays as it is. */
function readable(line: string): string[] {
  try {
    const entry = JSON.parse(line) as Record<string, unknown>;
    const details = Object.entries(entry).filter(([name]) => !known.includes(name));
    const message = [entry['msg'], ...details.map(([name, value]) => `${name}=${show(value)}`)].map(show).join(' ');
    return [show(entry['time'] ?? ''), show(entry['level'] ?? ''), message];
  } catch {
    return ['', '', line];
  }
}

async function showConditionsIfAny(kube: Kube): Promise<void> {
  const conditions = (await getResource(kube, namespace, resourceName)).status?.conditions ?? [];
  if (conditions.length === 0) return;
  heading(`Conditions of ivca ${namespace}/${resourceName}`);
  showConditions(conditions);
}

/** Never throws: what it cannot find out, it leaves away. */
export async function showFailure(error: unknown, { kube, operator }: Scene): Promise<void> {
  print();
  print(paint('red', `Failed at "${currentTitle()}":`));
  for (const line of (error instanceof Error ? error.message : String(error)).split('\n')) print(`  ${line}`);
  if (kube !== undefined) await showConditionsIfAny(kube).catch(() => undefined);
  const log = operator?.log().trimEnd();
  if (log === undefined || log === '') return;
  heading("The operator's last log lines");
  table(log.split('\n').slice(-lastLines).map(readable));
}
