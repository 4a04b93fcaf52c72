/** Reads certificates that users put into ConfigMaps and Secrets: a signed intermediate with its chain, and roots of others. */
import { grantOnSecret } from '../api/permissions.ts';
import { dig } from '../api/json.ts';
import type { IstioVaultCA, Spec } from '../api/schema.ts';
import type { KubeClient } from '../kube/client.ts';
import { KubeError } from '../kube/errors.ts';
import { bundleFacts } from '../plan/facts/certificate.ts';
import type { GivenCertificates, ObservedKubernetes } from '../plan/facts/observed.ts';
import { ProblemError } from '../plan/facts/problem.ts';
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

/** Parses the certificates of a text. What else stands in it counts, so that nobody takes a part for the whole. @param place for messages */
export function parseGiven(place: string, text: string): GivenCertificates {
  const blocks = splitPem(text, { ...limits, most: limits.most + 1 });
  const certificates = blocks.slice(0, limits.most).flatMap((pem) => bundleFacts(pem));
  const incomplete = text.length > limits.longest || certificates.length < blocks.length;
  return { place, certificates, ...(incomplete ? { incomplete } : {}) };
}

/** Reads one object. @returns undefined: it or its key does not exist. @throws KubeError, also if it may not be read */
async function readGiven(
  kube: Pick<KubeClient, 'getObject'>,
  namespace: string,
  { kind, name, key }: Reference,
): Promise<GivenCertificates | undefined> {
  const object = await kube.getObject(kind === 'Secret' ? secrets : configMaps, namespace, name);
  const value = dig(object, 'data', key);
  if (typeof value !== 'string' || value === '') return undefined;
  const text = kind === 'Secret' ? Buffer.from(value, 'base64').toString('utf8') : value;
  return parseGiven(`${kind} ${namespace}/${name}, key ${key}`, text);
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

/**
 * Reads the certificates that a spec with a root outside refers to.
 * @throws ProblemError if the roots of others may not be read
 * @throws KubeError for other failures
 */
export async function readGivenCertificates(
  kube: Pick<KubeClient, 'getObject'>,
  { metadata: { namespace }, spec }: IstioVaultCA,
): Promise<Pick<ObservedKubernetes, 'signed' | 'givenRoots'>> {
  // nothing is signed for an intermediate that others make
  const ofSigned = spec.intermediate.manage ? signedReference(spec.root) : undefined;
  const ofRoots = rootsReference(spec.root);
  const [signed, givenRoots] = await Promise.all([
    ofSigned &&
      readGiven(kube, namespace, ofSigned).catch((error: unknown) => {
        if (!isForbidden(error)) throw error;
        return { unreadable: deniedMessage(ofSigned, error) };
      }),
    ofRoots &&
      readGiven(kube, namespace, ofRoots).catch((error: unknown) => {
        if (!isForbidden(error)) throw error;
        const message = deniedMessage(ofRoots, error);
        throw new ProblemError({ condition: 'RootReady', reason: 'Forbidden', message, blocks: 'all' });
      }),
  ]);
  // a reference that names nothing yet is no reason to take any root that comes along
  const named =
    ofRoots &&
    (givenRoots ?? { place: `ConfigMap ${namespace}/${ofRoots.name}, key ${ofRoots.key}`, certificates: [] });
  return { ...(signed ? { signed } : {}), ...(named ? { givenRoots: named } : {}) };
}
