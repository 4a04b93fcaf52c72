/** What Istio's own path library makes of patches of an IstioOperator: asked of a small program that is built with it. */
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
  /** What the library said about each patch; empty for nothing. Istio goes on with the next one all the same. */
  errors: string[];
  /** What istiod's pod gets of the object; with an error Istio can render nothing of it. */
  pod: {
    env: { name: string; value?: string; valueFrom?: unknown }[];
    annotations: Record<string, string>;
    error?: string;
  };
}

/** By the encoding of the base: `yaml` is Istio's, `json` that of a caller who reads the object from JSON. */
type Answer = Record<'yaml' | 'json', Outcome>;

export interface IstioOverlay {
  apply(base: Json, patches: readonly Patch[]): Promise<Answer>;
  stop(): void;
}

/** Starts the program, which answers in order until it is stopped. It ends with this process, however that ends. */
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
