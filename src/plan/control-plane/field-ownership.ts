/** Two that set the same field against each other: the operator stops, and says what makes peace. */
import type { DerivedState } from '../facts/derived.ts';
import type { Spec } from '../../api/schema.ts';
import { annotations as known } from '../../api/annotations.ts';
import type { Desired } from '../facts/desired.ts';
import { objectKinds, objectName, renderName } from './istiod-fields.ts';
import type { OtherManager } from '../facts/observed.ts';
import type { Problem } from '../facts/problem.ts';

/** The API group of each kind of control plane, and below which of its fields this resource writes. */
const contested: Record<Spec['controlPlane']['kind'], { group: string; fields: string[] }> = {
  TetrateControlPlane: { group: 'install.tetrate.io', fields: ['spec.components.istio.kubeSpec.overlays'] },
  IstioOperator: {
    group: 'install.istio.io',
    fields: ['spec.values.pilot.env', 'spec.components.pilot.k8s.podAnnotations'],
  },
  Sail: { group: 'sailoperator.io', fields: ['spec.values.pilot.env', 'spec.values.pilot.podAnnotations'] },
  HelmValues: { group: '', fields: ['data'] },
};

/** What is put into which manifest, in YAML on one line. https://argo-cd.readthedocs.io/en/stable/user-guide/diffing/ and https://fluxcd.io/flux/components/ */
function remedyFor({ tool }: OtherManager, { spec }: Desired): string {
  const { group, fields } = contested[spec.controlPlane.kind];
  const kind = objectKinds[spec.controlPlane.kind];
  const { name } = spec.controlPlane;
  const pointers = `[${fields.map((field) => `/${field.replaceAll('.', '/')}`).join(', ')}]`;
  switch (tool) {
    case 'Argo CD': {
      // of fields that are maps Argo can tell ours by their manager; a list has one owner only
      const what =
        spec.controlPlane.kind === 'TetrateControlPlane'
          ? `jsonPointers: ${pointers}`
          : 'managedFieldsManagers: [istio-vault-ca]';
      const groupPart = group === '' ? '' : `group: ${group}, `;
      return `put into the spec of the Application: \`ignoreDifferences: [{${groupPart}kind: ${kind}, name: ${name}, ${what}}]\` and \`syncPolicy: {syncOptions: [RespectIgnoreDifferences=true]}\``;
    }
    case 'Flux':
      return `take ${fields.join(' and ')} out of the manifest in Git; or, if Flux need not update this object, put into that manifest: \`metadata: {annotations: {kustomize.toolkit.fluxcd.io/ssa: IfNotPresent}}\``;
    case 'Flux Helm':
      return `take ${fields.join(' and ')} out of what the HelmRelease renders (each upgrade writes it again), and if drift detection is on there, add to its spec: \`driftDetection: {ignore: [{paths: ${pointers}, target: {kind: ${kind}, name: ${name}}}]}\``;
    default:
      return `have ${tool === 'Helm' ? "the chart's release" : 'it'} leave ${fields.join(' and ')} alone`;
  }
}

/** A manager for people. */
export function describeManager({ name, tool }: OtherManager): string {
  // what was removed has no owner any more: only the marks on the object tell
  if (name === '') return `probably ${tool ?? 'somebody'}, whose mark the object bears,`;
  return tool === undefined || tool === name ? `field manager ${name}` : `${tool} (field manager ${name})`;
}

/** The fields were written and taken back too often. */
export function contestedField(s: DerivedState): Problem | undefined {
  const { contest } = s.kubernetes;
  if (!contest) return undefined;
  const who = contest.by ? describeManager(contest.by) : 'somebody';
  const remedy = remedyFor(contest.by ?? { name: 'it' }, s.desired);
  const message = `${objectName(s.desired)}: ${who} has taken back what this resource wrote, three times in ten minutes; it is left alone, and tried once more now and then. Make peace: ${remedy}. Or set spec.controlPlane.write: Render, and commit what ConfigMap ${renderName(s.desired)} shows. Annotation ${known.reconcileRequestedAt}=<new text> has it tried at once`;
  return {
    condition: 'ControlPlanePatched',
    reason: 'ContestedField',
    message,
    blocks: 'controlPlane',
    retryAfterMs: Math.max(1_000, contest.untilMs - s.now),
  };
}

/** Before the first write: a warning where a tool manages the very field. undefined: nobody does, or it has been written before. */
export function expectedConflict(s: DerivedState): string | undefined {
  const target = s.kubernetes.controlPlane;
  if (!target?.managedBy?.tool || target.writtenBefore) return undefined;
  return `${objectName(s.desired)}: ${describeManager(target.managedBy)} manages the field that is written now, and may take it back. If it does: ${remedyFor(target.managedBy, s.desired)}; or set spec.controlPlane.write: Render`;
}
