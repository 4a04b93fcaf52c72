/** `render`: prints the content to commit for a manifest, as ConfigMap `<name>-render` would contain it. Contacts no server. */
import type { Spec } from '../api/schema.ts';
import { parseRenderConfig } from '../config.ts';
import { adapters } from '../control-planes/index.ts';
import { desire } from '../plan/facts/desired.ts';
import { istiodFields } from '../plan/control-plane/istiod-fields.ts';
import { checkSpec } from '../plan/plan.ts';
import { dumpYaml } from '../runtime/yaml.ts';
import { ManifestError, readManifest, type Manifest } from './manifest.ts';

/** Comment lines that say where the content belongs, by kind of control plane. */
const instructions: Readonly<Record<Spec['controlPlane']['kind'], (controlPlane: Spec['controlPlane']) => string[]>> = {
  TetrateControlPlane: ({ name, revision }) => [
    `Merge into ControlPlane ${name} in Git: one entry of overlays for each IstioOperator; other entries and patches stay.`,
    ...(revision === undefined
      ? ['With isolation boundaries the IstioOperator is xcp-iop-default, or that of another revision: set spec.controlPlane.revision.'] // prettier-ignore
      : []),
  ],
  IstioOperator: ({ name }) => [`Merge into IstioOperator ${name} in Git.`],
  Sail: ({ name }) => [`Merge into Istio ${name} in Git.`],
  HelmValues: () => ["Values of Istio's chart istiod: merge into the values file or the HelmRelease in Git."],
};

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
    ...instructions[controlPlane.kind](controlPlane),
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
