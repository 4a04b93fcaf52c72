/** What `kubectl describe` says of a resource, as a golden file: an engineer at night has nothing else. */
import type { Kube } from './cluster.ts';
import { expectGolden } from './golden.ts';
import { kubectl } from './kubectl.ts';

/** What differs from run to run. */
const changing: readonly [RegExp, string][] = [
  [/-----BEGIN CERTIFICATE REQUEST-----[^-]+-----END CERTIFICATE REQUEST-----/g, '<certificate signing request>'],
  [/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, '<time>'],
  [/\b\d{4}-\d\d-\d\d\b/g, '<date>'],
  [/\b[0-9a-f]{64}\b/g, '<sha-256>'],
  [/\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/g, '<id>'],
  [/\b([0-9a-f]{2}:){7,}[0-9a-f]{2}\b/g, '<serial>'],
  [/\b[0-9a-f]{2}(:[0-9a-f]{2}){2,6}:[0-9a-f]{0,2}…/g, '<serial>…'],
  [/\bistioca-(\d+)-[0-9a-f]{8}\b/g, 'istioca-$1-<hash>'],
  [/127\.0\.0\.1:\d+/g, '<address>'],
];

/** The conditions that say what is awaited or refused. */
const types: readonly string[] = ['Ready', 'RootReady', 'IntermediateReady', 'Stalled', 'Reconciling'];

/** What `kubectl describe` prints of a resource, without what differs from run to run. */
async function describe(kube: Kube, namespace: string): Promise<string> {
  const text = await kubectl(kube, '--namespace', namespace, 'describe', 'ivca', 'istioca');
  const shown = changing.reduce((part, [pattern, put]) => part.replaceAll(pattern, put), text);
  return shown.replaceAll(namespace, '<namespace>');
}

/** A field of the status, as it is printed. */
const sectionOf = (text: string, field: string): string =>
  new RegExp(`\\n {2}${field}:\\n([\\s\\S]*?)\\n {2}\\S`).exec(text)?.[1] ?? '';

/** Compares what `kubectl describe` prints of a root rotation. @param name of the golden file */
export async function expectRotationDescribed(kube: Kube, namespace: string, name: string): Promise<void> {
  const lines = sectionOf(await describe(kube, namespace), 'Rotation').split('\n');
  const fields = lines.map((line) => /^ {4}([A-Z][A-Za-z ]*): +(.*)$/.exec(line)?.slice(1, 3) ?? ['', line]);
  expectGolden(`describe/${name}`, Object.fromEntries(fields) as Record<string, string>);
}

/**
 * Compares what `kubectl describe` prints of the conditions about the CA: status and reason of each, and the messages of those with other reasons than
 * that it is well or that another condition says why.
 * @param name of the golden file
 * @param namespace also replaced in the text
 */
export async function expectDescribed(kube: Kube, namespace: string, name: string): Promise<void> {
  const text = await describe(kube, namespace);
  const shown = sectionOf(text, 'Conditions');
  const conditions: Record<string, string> = {};
  const messages = new Set<string>();
  for (const block of shown.split(/\n(?= {4}Last Transition Time:)/)) {
    const field = (label: string): string => new RegExp(`^ +${label}: +(.*)$`, 'm').exec(block)?.[1] ?? '';
    if (!types.includes(field('Type'))) continue;
    conditions[field('Type')] = `${field('Status')} ${field('Reason')}`;
    if (!/RootValid|IntermediateValid|IstiodNotFound/.test(field('Reason')) && !field('Message').endsWith('says why'))
      messages.add(field('Message'));
  }
  expectGolden(`describe/${name}`, { conditions, messages: [...messages] });
}
