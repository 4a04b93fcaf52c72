/** Reads certificates that users put into ConfigMaps and Secrets: a signed intermediate with its chain, and roots of others. */
import { grantOnSecret } from '../api/permissions.ts';
import { dig, str, type JsonObject } from '../api/json.ts';
import type { IstioVaultCA, Spec } from '../api/schema.ts';
import type { KubeClient } from '../kube/client.ts';
import { KubeError } from '../kube/errors.ts';
import { crlFile } from '../plan/facts/ca-files.ts';
import { bundleFacts, type CertificateFacts } from '../plan/facts/certificate.ts';
import type { GivenCertificates, GivenLists, ObservedKubernetes } from '../plan/facts/observed.ts';
import { ProblemError } from '../plan/facts/problem.ts';
import { listsIn } from '../plan/facts/revocation-list.ts';
import { splitPem } from '../text/pem.ts';
import { configMaps } from './observe-kubernetes.ts';
import { messageOf } from './problems.ts';

const secrets = { group: '', version: 'v1', plural: 'secrets' };

/** Of a text, at most so many UTF-16 code units and certificates are read: a chain has a few certificates of some 2 KiB. */
const limits = { longest: 64 * 1024, most: 10 };

interface Reference {
  kind: 'ConfigMap' | 'Secret';
  name: string;
  key: string;
  /** Path of the reference in the spec. */
  field: string;
}

/** Of the lists in an object, at most so many UTF-16 code units and lists are read: one for each CA above workload certificates. */
const listLimits = { longest: 512 * 1024, most: 10 };

/**
 * The revocation lists beside certificates in an object.
 * @param text of key `ca-crl.pem`
 */
export const givenLists = (object: string, text: string, certificates: CertificateFacts[]): GivenLists => ({
  place: `${object}, key ${crlFile}`,
  lists: listsIn(text, listLimits),
  certificates,
});

/** Parses the certificates of a text. What else stands in it counts, so that nobody takes a part for the whole. @param place for messages */
export function parseGiven(place: string, text: string): GivenCertificates {
  const blocks = splitPem(text, { ...limits, most: limits.most + 1 });
  const certificates = blocks.slice(0, limits.most).flatMap((pem) => bundleFacts(pem));
  const incomplete = text.length > limits.longest || certificates.length < blocks.length;
  return { place, certificates, ...(incomplete ? { incomplete } : {}) };
}

/** The text of a key of an object; empty: the object or the key does not exist. */
export function textIn(kind: Reference['kind'], object: JsonObject | undefined, key: string): string {
  const value = str(dig(object, 'data', key));
  return kind === 'Secret' ? Buffer.from(value, 'base64').toString('utf8') : value;
}

/** What was read of one object. */
interface ReadObject {
  /** undefined: the object or its key does not exist. */
  given: GivenCertificates | undefined;
  lists: GivenLists;
}

/** Reads one object, and the revocation lists in it with `delivery.crl`. @throws KubeError, also if it may not be read */
async function readGiven(
  kube: Pick<KubeClient, 'getObject'>,
  { metadata: { namespace }, spec }: IstioVaultCA,
  { kind, name, key }: Reference,
): Promise<ReadObject> {
  const object = await kube.getObject(kind === 'Secret' ? secrets : configMaps, namespace, name);
  const textOf = (one: string): string => textIn(kind, object, one);
  const place = `${kind} ${namespace}/${name}`;
  const text = textOf(key);
  const given = text === '' ? undefined : parseGiven(`${place}, key ${key}`, text);
  const lists = spec.delivery.crl ? textOf(crlFile) : '';
  return { given, lists: givenLists(place, lists, given?.certificates ?? []) };
}

/** Where the signed certificate of `root.source: External` is; undefined: the spec names no such object. */
function signedReference({ external }: Spec['root']): Reference | undefined {
  const { configMapRef, secretRef } = external?.signed ?? {};
  const field = 'spec.root.external.signed';
  if (configMapRef) return { kind: 'ConfigMap', ...configMapRef, field: `${field}.configMapRef` };
  return secretRef && { kind: 'Secret', ...secretRef, field: `${field}.secretRef` };
}

/** Where the roots of others are; undefined: the spec names no such object. */
function rootsReference({ existing, external }: Spec['root']): Reference | undefined {
  const ref = existing?.rootCertRef ?? external?.rootCertRef;
  const field = `spec.root.${existing ? 'existing' : 'external'}.rootCertRef.configMapRef`;
  return ref && { kind: 'ConfigMap', ...ref.configMapRef, field };
}

/** Why an object may not be read, for the user. */
function deniedMessage({ kind, name, field }: Reference, error: KubeError): string {
  return `${field}: ${messageOf(error, kind === 'Secret' ? grantOnSecret(name) : undefined)}`;
}

const isForbidden = (error: unknown): error is KubeError => error instanceof KubeError && error.kind === 'Forbidden';

/** Of an object that may not be read the lists are not known either. @param unreadable why it may not be read */
export const unreadableLists = (object: string, unreadable: string): GivenLists => ({
  ...givenLists(object, '', []),
  unreadable,
});

/**
 * Reads the certificates that a spec with a root outside refers to, and with `delivery.crl` the revocation lists beside them.
 * @throws ProblemError if the roots of others may not be read
 * @throws KubeError for other failures
 */
export async function readGivenCertificates(
  kube: Pick<KubeClient, 'getObject'>,
  resource: IstioVaultCA,
): Promise<Pick<ObservedKubernetes, 'signed' | 'givenRoots' | 'givenLists'>> {
  const { namespace } = resource.metadata;
  const { spec } = resource;
  // nothing is signed for an intermediate that others make
  const ofSigned = spec.intermediate.manage ? signedReference(spec.root) : undefined;
  const ofRoots = rootsReference(spec.root);
  const [signed, roots] = await Promise.all([
    ofSigned &&
      readGiven(kube, resource, ofSigned).catch((error: unknown) => {
        if (!isForbidden(error)) throw error;
        const unreadable = deniedMessage(ofSigned, error);
        return {
          given: { unreadable },
          lists: unreadableLists(`${ofSigned.kind} ${namespace}/${ofSigned.name}`, unreadable),
        };
      }),
    ofRoots &&
      readGiven(kube, resource, ofRoots).catch((error: unknown) => {
        if (!isForbidden(error)) throw error;
        const message = deniedMessage(ofRoots, error);
        throw new ProblemError({ condition: 'RootReady', reason: 'Forbidden', message, blocks: 'all' });
      }),
  ]);
  // a reference that names nothing yet is no reason to take any root that comes along
  const named =
    ofRoots &&
    (roots?.given ?? { place: `ConfigMap ${namespace}/${ofRoots.name}, key ${ofRoots.key}`, certificates: [] });
  const lists = spec.delivery.crl ? [signed?.lists, roots?.lists].filter((one) => one !== undefined) : [];
  return {
    ...(signed?.given ? { signed: signed.given } : {}),
    ...(named ? { givenRoots: named } : {}),
    ...(lists.length > 0 ? { givenLists: lists } : {}),
  };
}
