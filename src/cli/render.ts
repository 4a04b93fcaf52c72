/** `render`: prints the content to commit for a manifest, as ConfigMap `<name>-render` would contain it. Contacts no server. */
import { parseRenderConfig } from '../config.ts';
import { adapters } from '../control-planes/index.ts';
import { desire } from '../plan/facts/desired.ts';
import { istiodFields } from '../plan/control-plane/istiod-fields.ts';
import { checkSpec } from '../plan/plan.ts';
import { dumpYaml } from '../runtime/yaml.ts';
import { ManifestError, readManifest, type Manifest } from './manifest.ts';
import { kindOfControlPlane } from '../plan/control-plane/kinds.ts';

function refuse(message: string): never {
  throw new ManifestError(message);
}

/**
 * Returns the output for a manifest: comments and YAML.
 * @param file name of the manifest for error messages
 * @throws ManifestError if the manifest has no namespace, or if the operator would reject the spec
 */
export function rendered({ name, namespace, annotations, spec }: Manifest, file: string): string {
  const at = namespace ?? refuse(`${file}: metadata.namespace is missing; add it, or give -n`);
  const [problem] = checkSpec(desire({ cluster: '', namespace: at, name, uid: '' }, spec, annotations), true);
  if (problem) refuse(`${file}: ${problem.message}`);
  const { controlPlane } = spec;
  // The digest is not part of the output: with `write: Patch` the operator writes it in the cluster, and it is never committed.
  const target = { object: undefined, namespace: at, spec: controlPlane, relatives: undefined };
  const fields = istiodFields({ ...spec, controlPlane: { ...controlPlane, write: 'Render' } }, undefined);
  const lines = [
    `What istiod needs for IstioVaultCA ${at}/${name}, with spec.controlPlane.write: Render.`,
    ...kindOfControlPlane(spec).renderInstructions(controlPlane),
  ];
  const comments = lines.map((line) => `# ${line}\n`).join('');
  return comments + dumpYaml(adapters[controlPlane.kind].render(target, fields));
}

/** Runs the command. @returns the exit code */
export async function render(argv: readonly string[]): Promise<number> {
  const config = parseRenderConfig(argv, process.env);
  const manifest = await readManifest(config);
  process.stdout.write(rendered(manifest, config.filename));
  return 0;
}
