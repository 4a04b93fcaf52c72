/** The issuer of the tokens of this cluster's service accounts, which the configuration of an auth mount can ask for. */
import type { KubeClient } from '../kube/client.ts';
import { isKubeError } from '../kube/errors.ts';
import type { DerivedVault } from '../plan/facts/derived-vault.ts';
import { ownsAuthMount } from '../plan/ownership/ownership.ts';

/**
 * Reads the issuer from the discovery document of the API server, if the configuration of an auth mount of somebody else names one. The read
 * is optional: some API servers have no such document (an issuer that is no https address), and a cleanup does not need the issuer.
 * @returns undefined: nobody asks for the issuer, or it could not be read. The configuration is then not evaluated
 */
export async function readTokenIssuer(
  kube: Pick<KubeClient, 'tokenIssuer'>,
  derived: DerivedVault,
  deleting: boolean,
): Promise<string | undefined> {
  if (deleting || derived.vault.authConfig?.issuer === undefined || ownsAuthMount(derived)) return undefined;
  const issuer = await kube.tokenIssuer().catch((error: unknown) => {
    if (isKubeError(error)) return undefined;
    throw error;
  });
  return issuer === '' ? undefined : issuer;
}
