/** Reads a CA that a user brings along in a Secret (`intermediate.importRef`). Its key is kept only for the step that stores it in Vault. */
import { grantOnSecret } from '../api/permissions.ts';
import type { IstioVaultCA } from '../api/schema.ts';
import type { KubeClient } from '../kube/client.ts';
import { KubeError } from '../kube/errors.ts';
import { Secret } from '../observability/secret.ts';
import { bundleFacts, publicKeyOfPrivate } from '../plan/facts/certificate.ts';
import { crlFile } from '../plan/facts/ca-files.ts';
import type { GivenCa, GivenLists, ObservedKubernetes } from '../plan/facts/observed.ts';
import { splitPem } from '../text/pem.ts';
import { givenLists, textIn, unreadableLists } from './given-certificates.ts';
import { messageOf } from './problems.ts';

const secrets = { group: '', version: 'v1', plural: 'secrets' };

/**
 * The keys of a Secret by what they hold, in the order in which istiod looks for them: those of cert-manager, then those of Secret `cacerts` and of
 * `istio-ca-secret`. https://github.com/istio/istio/blob/master/security/pkg/pki/ca/ca.go
 */
const families = [
  { certificate: 'tls.crt', key: 'tls.key', others: ['ca.crt'] },
  { certificate: 'ca-cert.pem', key: 'ca-key.pem', others: ['cert-chain.pem', 'root-cert.pem'] },
] as const;

/** Of each text, at most so many UTF-16 code units and certificates are read. */
const limits = { longest: 64 * 1024, most: 10 };

/** A CA in a Secret with its key. */
interface GivenWithKey {
  given: GivenCa;
  /** undefined: the Secret has none. */
  key: Secret | undefined;
  lists: GivenLists;
}

/** Reads the Secret. @returns undefined: it does not exist. @throws KubeError */
async function readSecret(
  kube: Pick<KubeClient, 'getObject'>,
  { metadata: { namespace }, spec }: IstioVaultCA,
): Promise<GivenWithKey | undefined> {
  const name = spec.intermediate.importRef?.secretRef.name;
  const object = name === undefined ? undefined : await kube.getObject(secrets, namespace, name);
  if (name === undefined || !object) return undefined;
  const text = (key: string): string => textIn('Secret', object, key);
  const family = families.find(({ certificate }) => text(certificate) !== '') ?? families[1];
  const pem = text(family.key);
  const texts = [family.certificate, ...family.others].map(text);
  const all = texts.flatMap((one) => splitPem(one, limits)).flatMap((block) => bundleFacts(block));
  const certificates = [...new Map(all.map((one) => [one.fingerprint, one])).values()];
  const given = {
    place: `Secret ${namespace}/${name}`,
    secret: name,
    publicKey: publicKeyOfPrivate(pem),
    certificates,
  };
  const lists = givenLists(given.place, spec.delivery.crl ? text(crlFile) : '', certificates);
  return { given, key: pem === '' ? undefined : new Secret(pem), lists };
}

/**
 * Reads the CA that a spec imports, without its key, and with `delivery.crl` the revocation lists beside it. Of a CA that is not imported any more, only
 * the lists: workload certificates of it can be valid until the rotation to another root is over.
 * @throws KubeError, except if the Secret may not be read
 */
export async function readGivenCa(
  kube: Pick<KubeClient, 'getObject'>,
  resource: IstioVaultCA,
): Promise<Pick<ObservedKubernetes, 'given' | 'givenLists'>> {
  const { intermediate, delivery } = resource.spec;
  // that of an intermediate that others make is not read
  const imports = intermediate.source === 'Import' && intermediate.manage;
  const name = intermediate.importRef?.secretRef.name;
  if (name === undefined || !(imports || delivery.crl)) return {};
  const place = `Secret ${resource.metadata.namespace}/${name}`;
  const only = (given: GivenCa | { unreadable: string } | undefined, lists: GivenLists) => ({
    ...(imports && given ? { given } : {}),
    ...(delivery.crl ? { givenLists: [lists] } : {}),
  });
  try {
    const read = await readSecret(kube, resource);
    return only(read?.given, read?.lists ?? givenLists(place, '', []));
  } catch (error) {
    if (!(error instanceof KubeError && error.kind === 'Forbidden')) throw error;
    const unreadable = `spec.intermediate.importRef.secretRef: ${messageOf(error, grantOnSecret(name))}`;
    return only({ unreadable }, unreadableLists(place, unreadable));
  }
}

/** Reads the key of the CA that a spec imports; undefined: the Secret or its key does not exist. @throws KubeError */
export async function readGivenKey(
  kube: Pick<KubeClient, 'getObject'>,
  resource: IstioVaultCA,
): Promise<Secret | undefined> {
  return (await readSecret(kube, resource))?.key;
}
