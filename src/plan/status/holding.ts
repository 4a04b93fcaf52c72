/** Reasons and messages of conditions that are `True`. Pure. */
import { holdingReason, notVerifiedReason, type StageCondition } from '../../api/conditions.ts';
import { injectorNotes } from '../control-plane/checks.ts';
import { objectName } from '../control-plane/istiod-fields.ts';
import { kindOfControlPlane } from '../control-plane/kinds.ts';
import type { DerivedState } from '../facts/derived.ts';
import { isRevoked } from '../facts/revoked.ts';
import type { Issuer } from '../facts/observed.ts';
import { accessSteps, keptRoleFields, namesAreAssumed } from '../vault/access.ts';
import { describeForeignRoles, unverified } from '../vault/foreign-roles.ts';
import { newGenerationReason } from '../vault/intermediate.ts';
import { describeUsage } from '../vault/issuer-usage.ts';
import { isAwaited, outsideNote } from '../vault/outside-root-checks.ts';
import { intermediateNotes, rootNotes } from '../vault/unmanaged-ca.ts';
import { nameList, notVerified, unmanagedNotes } from '../vault/unmanaged-access.ts';
import { intermediateMessage, rootMessage } from './expiry.ts';

/** Returns the reason of a condition that is `True`. */
export const reasonWhileTrue = (stage: StageCondition, s: DerivedState): string => {
  if (stage === 'AccessReady' && notVerified(s).length > 0) return notVerifiedReason;
  return (stage === 'IntermediateReady' ? outsideNote(s)?.reason : undefined) ?? holdingReason[stage];
};

/**
 * A new intermediate is due, and nothing is amiss as long as its signature outside of Vault is awaited in time. Under a lost root nothing can be signed in
 * place of a revoked one.
 */
const isDue = (s: DerivedState): boolean =>
  (isRevoked(s) && s.lostSigner !== undefined) || (newGenerationReason(s) !== undefined && !isAwaited(s));

/** Joins the clauses of a message, without those that do not apply. */
const joined = (...clauses: (string | undefined)[]): string =>
  clauses.filter((clause) => clause !== undefined).join('; ');

/** Returns the message of a condition that is `True`; `undefined`: it is not, or `src/plan/proof/ready.ts` evaluates it. */
export function holdingMessage(stage: StageCondition, s: DerivedState): string | undefined {
  const { signer: root, currentCa: ca, currentIssuer: issuer, now } = s;
  switch (stage) {
    case 'VaultReady':
      return vaultMessage(s);
    case 'RootReady':
      return root && root.certificate.notAfter > now
        ? joined(
            rootMessage(s),
            ...rootNotes(s),
            !s.issuesRoot || s.hasKeylessRoot ? undefined : describeUsage(s, s.spec.root.mount, root),
          )
        : undefined;
    case 'IntermediateReady':
      return ca && (issuer ?? ca.imported ?? s.checksOnly) && !isDue(s) && ca.certificate.notAfter > now
        ? intermediateHolds(s, ca.imported ? undefined : issuer)
        : undefined;
    case 'KeyStored':
      return ca ? keyMessage(s, ca.generation) : undefined;
    case 'AccessReady':
      return accessSteps(s).length === 0 ? accessMessage(s) : undefined;
    case 'ControlPlanePatched':
      return s.kubernetes.controlPlane?.carriesFields
        ? joined(carriesMessage(s), rivalNote(s), ...injectorNotes(s))
        : undefined;
    case 'IstiodReady':
      return undefined;
  }
}

/** Message of `KeyStored` while it is `True`. */
function keyMessage({ spec: { keyStore }, checksOnly }: DerivedState, generation: number): string {
  const place = `${keyStore.mount}/${keyStore.path}`;
  return checksOnly ? `key of the intermediate in ${place}, which others manage` : `key of generation ${generation} in ${place}`; // prettier-ignore
}

/** Message of `IntermediateReady` while it is `True`. @param issuer undefined: the CA was imported */
function intermediateHolds(s: DerivedState, issuer: Issuer | undefined): string {
  const usage = s.checksOnly ? undefined : issuer && describeUsage(s, s.spec.intermediate.mount, issuer);
  const holds = joined(intermediateMessage(s), ...intermediateNotes(s), describeForeignRoles(s), usage);
  const note = outsideNote(s)?.message;
  return note === undefined ? holds : `${note} The CA in use goes on: ${holds}`;
}

/** Message of `VaultReady` while it is `True`. */
function vaultMessage(s: DerivedState): string {
  const paths = unverified(s);
  const note = paths.length > 0 ? `; not verified, because the token lacks the right: ${paths.join(', ')}` : '';
  return `${s.vault.product} ${s.vault.version} at ${s.spec.vault.address}${note}`;
}

/** Message of `ControlPlanePatched` while it is `True`. With `write: Render` and HelmValues, only the Deployment shows the fields. */
const carriesMessage = (s: DerivedState): string =>
  s.spec.controlPlane.write === 'Render' && kindOfControlPlane(s.spec).showsCommit === 'deployment'
    ? "istiod's Deployment has every field"
    : `${objectName(s.desired)} carries every field`;

/** What is said of a control plane whose own operator issues a CA for istiod too. */
function rivalNote(s: DerivedState): string | undefined {
  const field = s.kubernetes.controlPlane?.rivalCa;
  if (field === undefined) return undefined;
  return `${field} of ${objectName(s.desired)} has another CA issued for istiod: istiod uses the one of this resource as long as it has ROOT_CA_DIR, and the other one when it has not. Remove that field, so that there is one CA`;
}

/** Message of `AccessReady` while it is `True`. */
function accessMessage(s: DerivedState): string {
  const { policy, kubernetesAuth } = s.spec;
  const accounts = nameList(s.vault.role?.serviceAccountNames ?? []);
  const why =
    s.kubernetes.istiodServiceAccounts === 'unreadable'
      ? "not verified, because the operator lacks permission to list istiod's Deployments"
      : 'assumed, until there is an istiod Deployment';
  const assumed = kubernetesAuth.manage && namesAreAssumed(s) ? ` (${why})` : '';
  const kept = kubernetesAuth.manage ? keptRoleFields(s) : [];
  const paths = notVerified(s);
  const notes = [
    ...(kept.length > 0 ? [`somebody else set ${kept.join(', ')} of the role, which stays`] : []),
    ...unmanagedNotes(s),
    ...(paths.length > 0 ? [`not verified, because the token lacks ${paths.join(' and ')}`] : []),
  ];
  const bound = accounts === '' ? '' : ` for ${accounts}${assumed}`;
  return [`policy ${policy.name}, role ${kubernetesAuth.role}${bound}`, ...notes].join('; ');
}
