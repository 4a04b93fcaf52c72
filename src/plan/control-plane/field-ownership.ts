/**
 * Repeated field conflicts: if another field manager keeps reverting the fields, the operator stops and reports how to resolve the
 * conflict. Pure.
 */
import type { DerivedState } from '../facts/derived.ts';
import { annotations as known } from '../../api/annotations.ts';
import type { Desired } from '../facts/desired.ts';
import { objectName, renderName } from './istiod-fields.ts';
import { kindOfControlPlane } from './kinds.ts';
import type { OtherManager } from '../facts/observed.ts';
import type { Problem } from '../facts/problem.ts';

/**
 * Returns how to stop another field manager from reverting the fields: which YAML, on one line, to add to which manifest.
 * Sources: https://argo-cd.readthedocs.io/en/stable/user-guide/diffing/ and https://fluxcd.io/flux/components/
 */
function remedyFor({ tool }: OtherManager, { spec }: Desired): string {
  const { group, fields, fieldsInList, objectKind: kind } = kindOfControlPlane(spec);
  const { name } = spec.controlPlane;
  const pointers = `[${fields.map((field) => `/${field.replaceAll('.', '/')}`).join(', ')}]`;
  switch (tool) {
    case 'Argo CD': {
      // Argo CD can ignore single fields of a map by their field manager; the overlays are a list with a single owner, so it must ignore
      // their path
      const exclusion = fieldsInList ? `jsonPointers: ${pointers}` : 'managedFieldsManagers: [istio-vault-ca]';
      const groupPart = group === '' ? '' : `group: ${group}, `;
      return `put into the spec of the Application: \`ignoreDifferences: [{${groupPart}kind: ${kind}, name: ${name}, ${exclusion}}]\` and \`syncPolicy: {syncOptions: [RespectIgnoreDifferences=true]}\``;
    }
    case 'Flux':
      return `take ${fields.join(' and ')} out of the manifest in Git; or, if Flux need not update this object, put into that manifest: \`metadata: {annotations: {kustomize.toolkit.fluxcd.io/ssa: IfNotPresent}}\``;
    case 'Flux Helm':
      return `take ${fields.join(' and ')} out of what the HelmRelease renders (each upgrade writes it again), and if drift detection is on there, add to its spec: \`driftDetection: {ignore: [{paths: ${pointers}, target: {kind: ${kind}, name: ${name}}}]}\``;
    default:
      return `have ${tool === 'Helm' ? "the chart's release" : 'it'} leave ${fields.join(' and ')} alone`;
  }
}

/** Returns the name of a field manager for a message. */
export function describeManager({ name, tool }: OtherManager): string {
  // a removed field has no manager any more, so only labels and annotations of the object indicate the tool
  if (name === '') return `probably ${tool ?? 'somebody'}, whose mark the object bears,`;
  return tool === undefined || tool === name ? `field manager ${name}` : `${tool} (field manager ${name})`;
}

/** Reports that another field manager reverted the fields too often; `undefined`: the operator does not pause its writes. */
export function contestedField(s: DerivedState): Problem | undefined {
  const { contest } = s.kubernetes;
  if (!contest) return undefined;
  const manager = contest.by ? describeManager(contest.by) : 'somebody';
  const remedy = remedyFor(contest.by ?? { name: 'it' }, s.desired);
  const cause = contest.retried
    ? `${manager} reverted the fields of the operator again at its last retry. The operator waits longer before the next one`
    : `${manager} reverted the fields of the operator three times within 10m. The operator stopped writing them and retries at increasing intervals`;
  const message = `${objectName(s.desired)}: ${cause}. To resolve the conflict: ${remedy}. Or set spec.controlPlane.write: Render, and commit the content of ConfigMap ${renderName(s.desired)}. To retry now, set annotation ${known.reconcileRequestedAt} to a new value.`;
  return {
    condition: 'ControlPlanePatched',
    reason: 'ContestedField',
    message,
    blocks: 'controlPlane',
    retryAfterMs: Math.max(1_000, contest.untilMs - s.now),
  };
}

/**
 * Returns a warning before the first write if a tool manages the fields; `undefined`: no tool does, or the operator has already written
 * them.
 */
export function expectedConflict(s: DerivedState): string | undefined {
  const target = s.kubernetes.controlPlane;
  if (!target?.managedBy?.tool || target.writtenBefore) return undefined;
  return `${objectName(s.desired)}: ${describeManager(target.managedBy)} manages the field that is written now, and may take it back. If it does: ${remedyFor(target.managedBy, s.desired)}; or set spec.controlPlane.write: Render`;
}
