/** The sample manifest with the address and the CA certificate of the running server. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadAllYaml } from '../../src/runtime/yaml.ts';
import type { Json } from '../support/cluster.ts';
import { top } from './names.ts';
import { note, paint, print } from './terminal.ts';

const sample = 'deploy/samples/minimal.yaml';
const privateCa = 'deploy/samples/private-ca.yaml';
const addressLine = /^ +address: .*$/m;
const tlsBlock = /^( +)tls:\n(?:\1 +.*\n)+/m;

const read = async (file: string): Promise<string> => await readFile(join(top, file), 'utf8');

export interface Manifest {
  readonly objects: Json[];
  /** The IstioVaultCA as text; replaced lines begin with `-` or `+`. */
  readonly diff: readonly string[];
}

/** @throws if the samples do not have the expected form */
export async function readManifest(address: string): Promise<Manifest> {
  const text = await read(sample);
  const before = addressLine.exec(text)?.[0];
  const tls = tlsBlock.exec(await read(privateCa))?.[0];
  if (before === undefined || tls === undefined)
    throw new Error(`${sample} has no line "address:", or ${privateCa} no block "tls:"`);
  const after = `${before.replace(/address: .*/, `address: ${address}`)}\n${tls.trimEnd()}`;
  const mark = (sign: string, lines: string): string => lines.replaceAll(/^/gm, sign);
  const marked = (text.split('---\n').at(-1) ?? '')
    .trimEnd()
    .split('\n')
    .flatMap((line) =>
      line === before ? mark('-', before).split('\n').concat(mark('+', after).split('\n')) : [` ${line}`],
    );
  return { objects: loadAllYaml(text.replace(before, after)) as Json[], diff: marked };
}

/** Prints the manifest and marks the lines that differ from the file. */
export function showManifest(diff: readonly string[]): void {
  note(
    `The IstioVaultCA of ${sample}; only the address is replaced, and the private CA of the server here is added as in ${privateCa}:`,
  );
  print();
  for (const line of diff) {
    const style = line.startsWith('+') ? 'green' : line.startsWith('-') ? 'red' : undefined;
    print(`  ${style === undefined ? line : paint(style, line)}`.trimEnd());
  }
}
