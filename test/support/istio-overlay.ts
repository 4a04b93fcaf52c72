/** The effect of patches of an IstioOperator according to Istio's own path library, from a small program that is built with it. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { ensureServer } from '../stack/servers.ts';
import type { Json } from './cluster.ts';

export interface Patch {
  path: string;
  value?: unknown;
}

export interface Outcome {
  object: Json;
  /** The error of the library for each patch; empty: none. After an error, Istio continues with the next patch. */
  errors: string[];
  /** The values of the object that istiod's Pod gets; after an error Istio cannot render the object. */
  pod: {
    env: { name: string; value?: string; valueFrom?: unknown }[];
    annotations: Record<string, string>;
    error?: string;
  };
}

/** Results by the encoding of the base object: `yaml` as Istio reads it, `json` as a caller reads it from JSON. */
type Answer = Record<'yaml' | 'json', Outcome>;

export interface IstioOverlay {
  apply(base: Json, patches: readonly Patch[]): Promise<Answer>;
  stop(): void;
}

/** Starts the program, which answers in order until it is stopped. It ends with this process, whatever the cause. */
export async function startIstioOverlay(): Promise<IstioOverlay> {
  const { binary } = await ensureServer('istio-overlay');
  const child = spawn(binary, { stdio: ['pipe', 'pipe', 'pipe'], env: {} });
  const waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void }[] = [];
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  child.stdin.on('error', () => undefined);
  child.on('close', () => {
    for (const { reject } of waiting.splice(0)) reject(new Error(`istio-overlay has ended: ${said.slice(-2000)}`));
  });
  createInterface({ input: child.stdout }).on('line', (line) => waiting.shift()?.resolve(JSON.parse(line) as Answer));
  return {
    apply: (base, patches) =>
      new Promise((resolve, reject) => {
        if (child.exitCode !== null) return reject(new Error(`istio-overlay has ended: ${said.slice(-2000)}`));
        waiting.push({ resolve, reject });
        child.stdin.write(`${JSON.stringify({ base, patches })}\n`);
      }),
    stop: () => void child.stdin.end(),
  };
}
