/**
 * Steps that show a certificate signing request to those who sign it outside of Vault (`root.source: External`): the ConfigMap with the request, where
 * the operator may write ConfigMaps, and the CertificateRequest of cert-manager. Pure.
 */
import type { DerivedState } from '../facts/derived.ts';
import { awaitedCsr, certificateRequestOf } from '../facts/outside-roots.ts';
import { requestMapName, wantedRequest } from '../facts/signature-request.ts';
import type { Step } from '../steps.ts';

/** The steps that bring both about, and remove the ConfigMap when nothing waits. An old CertificateRequest stays until the resource is deleted. */
export const signatureRequestSteps = (s: DerivedState): Step[] => [...mapSteps(s), ...certManagerSteps(s)];

function mapSteps(s: DerivedState): Step[] {
  const map = s.kubernetes.requestMap;
  if (!map || map.lacks !== undefined || map.content === 'foreign') return [];
  const name = requestMapName(s.identity);
  const csr = awaitedCsr(s);
  const found = map.content === 'none' ? undefined : map.content;
  if (csr !== undefined)
    return csr === found?.csr ? [] : [{ kind: 'PublishCSR', name, csr, again: found !== undefined }];
  return !found || (found.csr === '' && found.others) ? [] : [{ kind: 'RemoveCSR', name, others: found.others }];
}

function certManagerSteps(s: DerivedState): Step[] {
  const wanted = wantedRequest(s);
  if (!wanted || awaitedCsr(s) === undefined || isAnswered(s) || certificateRequestOf(s)?.state !== 'absent') return [];
  return [{ kind: 'RequestSignature', ...wanted }];
}

/** Whether a certificate for the request is in the intermediate mount, and waits to be published: what it came in may be gone. */
const isAnswered = ({ stagingEntry: staged, vault }: DerivedState): boolean =>
  (vault.intermediatePki?.issuers ?? []).some(
    ({ id, keyId, certificate }) =>
      keyId !== '' && certificate.publicKey === staged?.publicKey && !staged.before.includes(id),
  );
