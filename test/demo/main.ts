/**
 * `npm run demo`: starts real servers and the operator on this machine, applies the smallest sample manifest, and shows
 * what an engineer would check. Exit code: 0 on success, 1 on failure, and after an interruption the one of the signal (130 for
 * Ctrl-C).
 */
import { Cleanup, interruption } from '../support/cleanup.ts';
import { showFailure, type Scene } from './failure.ts';
import { install } from './install.ts';
import { showAccess } from './keep.ts';
import { controlPlaneName } from './names.ts';
import { parseOptions, usage, UsageError, type DemoOptions } from './options.ts';
import { provision } from './provision.ts';
import { startServers } from './servers.ts';
import { showFilesOfAgent } from './show-files.ts';
import { showIstiod } from './show-istiod.ts';
import { showControlPlane, showResource } from './show-resource.ts';
import { showVault } from './show-vault.ts';
import { mute, paint, print, seconds } from './terminal.ts';

/**
 * Runs the whole demo. What it has started is in `scene` and `cleanup`, also if it fails.
 * @returns the summary, one line
 */
async function play(options: DemoOptions, scene: Scene, cleanup: Cleanup): Promise<string> {
  const servers = await startServers(options, cleanup);
  scene.kube = servers.kube;
  const operator = await install(servers, cleanup);
  scene.operator = operator;
  const { tookMs } = await provision(servers);
  await showResource(servers.kube);
  const rendered = await showFilesOfAgent(servers, await showControlPlane(servers.kube));
  await showVault(servers.vault, rendered);
  if (options.istiod) await showIstiod(servers, rendered, cleanup);
  if (options.keep) await showAccess(servers, operator, rendered);
  return `${servers.vault.product} is the CA of control plane ${controlPlaneName}: provisioned in ${seconds(tookMs)} after apply.`;
}

/** @returns the exit code, and on success the last line */
async function perform(options: DemoOptions, cleanup: Cleanup): Promise<{ code: number; summary?: string }> {
  const scene: Scene = {};
  const interrupted = interruption();
  try {
    const end = await Promise.race([play(options, scene, cleanup), interrupted]);
    if (typeof end === 'number') return { code: end };
    if (options.keep) await interrupted;
    return { code: 0, summary: end };
  } catch (error) {
    await showFailure(error, scene);
    return { code: 1 };
  }
}

/** @returns the exit code */
async function run(options: DemoOptions): Promise<number> {
  // The servers do not keep Node running, and at times the demo waits for nothing else.
  setInterval(() => undefined, 60_000);
  const cleanup = new Cleanup();
  const { code, summary } = await perform(options, cleanup);
  print();
  print(code > 128 ? 'Interrupted; stopping everything …' : 'Stopping everything …');
  mute(true);
  await cleanup.run();
  mute(false);
  if (summary !== undefined) print(paint('green', summary));
  return code;
}

try {
  const options = parseOptions(process.argv.slice(2));
  if (options.help) process.stdout.write(usage);
  // An interrupted step can still wait for something.
  else process.exit(await run(options));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`demo: ${error.message}\n\n${usage}`);
  process.exitCode = 1;
}
