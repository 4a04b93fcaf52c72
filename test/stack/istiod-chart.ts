/** Istio's own chart of istiod, rendered by the real Helm. */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { loadAllYaml } from '../../src/runtime/yaml.ts';
import { makeTemporaryDir, removeTemporaryDir } from './processes.ts';
import { ensureServer, istioModuleDir } from './servers.ts';

const run = promisify(execFile);
let module: Promise<string> | undefined;

/**
 * Kinds of the chart that are omitted. No kube-proxy runs, so the API server could not call the Service of istiod's
 * webhooks, and with failurePolicy Fail it would refuse the objects that they select. No controller handles the others.
 */
const leftOut = new Set([
  'MutatingWebhookConfiguration',
  'ValidatingWebhookConfiguration',
  'HorizontalPodAutoscaler',
  'PodDisruptionBudget',
  'NetworkPolicy',
]);

export interface RenderOptions {
  readonly namespace: string;
  /** The chart's values. */
  readonly values: Readonly<Record<string, unknown>>;
}

/** The objects of the chart, in its order. @throws with Helm's error output */
export async function renderIstiod({ namespace, values }: RenderOptions): Promise<Record<string, unknown>[]> {
  const { binary } = await ensureServer('helm');
  module ??= istioModuleDir();
  const chart = join(await module, 'manifests', 'charts', 'istio-control', 'istio-discovery');
  const dir = makeTemporaryDir('helm');
  try {
    await writeFile(join(dir, 'values.json'), JSON.stringify(values));
    const { stdout } = await run(
      binary,
      ['template', 'istiod', chart, `--namespace=${namespace}`, `--values=${join(dir, 'values.json')}`],
      { env: { HOME: dir, PATH: process.env['PATH'] ?? '' }, timeout: 60_000, maxBuffer: 16 * 1024 * 1024 },
    );
    return (loadAllYaml(stdout) as Record<string, unknown>[]).filter((object) => !leftOut.has(String(object['kind'])));
  } finally {
    removeTemporaryDir(dir);
  }
}
