/** Output for a failed step: the step, the conditions, and the last lines of the operator's log. */
import { getResource, type Kube } from '../support/cluster.ts';
import { namespace, resourceName } from './names.ts';
import { showConditions } from './show-resource.ts';
import { currentTitle, heading, paint, print, table } from './terminal.ts';

const lastLines = 12;

/** What was running when the step failed; undefined fields: not started yet. */
export interface Scene {
  kube?: Kube;
  operator?: { log(): string };
}

const show = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));

/** Fields of a log line that are omitted: they are in every line, or shown separately. */
const known = ['time', 'level', 'msg', 'namespace', 'name'];

/** Formats one line of the operator's log; a line that is not JSON is returned unchanged. */
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

/** Prints the failure. Never throws: information that cannot be read is omitted. */
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
