/**
 * What shows a certificate signing request to those who sign it (`root.source: External`), in the cluster: the ConfigMap `<name>-csr`, and the
 * CertificateRequest of cert-manager. Read and written here; what is to be there decides `src/plan/vault/signature-requests.ts`.
 */
import { isDeepStrictEqual } from 'node:util';
import { fieldManager } from '../api/annotations.ts';
import { dig, isObject, items, str, type JsonObject } from '../api/json.ts';
import { missingPermission, permissionOn } from '../api/permissions.ts';
import type { IstioVaultCA } from '../api/schema.ts';
import type { KubeClient } from '../kube/client.ts';
import { isKubeError, unless } from '../kube/errors.ts';
import { Secret } from '../observability/secret.ts';
import { DerivedState } from '../plan/facts/derived.ts';
import type { Desired } from '../plan/facts/desired.ts';
import type {
  Observed,
  ObservedCertificateRequest,
  ObservedKubernetes,
  ObservedRequestMap,
} from '../plan/facts/observed.ts';
import { awaitedCsr } from '../plan/facts/outside-roots.ts';
import { issuerRefOf, requestKey, requestMapName, wantedRequest, type WantedRequest } from '../plan/facts/signature-request.ts'; // prettier-ignore
import type { Step, StepOf } from '../plan/steps.ts';
import { cut, printable } from '../text/bounded.ts';
import { parseGiven } from './given-certificates.ts';
import { configMaps } from './observe-kubernetes.ts';
import { messageOf } from './problems.ts';
import { plainJson } from './report.ts';

/** https://cert-manager.io/docs/reference/api-docs/#cert-manager.io/v1.CertificateRequest */
const certificateRequests = { group: 'cert-manager.io', version: 'v1', plural: 'certificaterequests' };

/** What the intermediate of istiod is used for: it signs certificates and revocation lists. */
const usages = ['cert sign', 'crl sign', 'digital signature'];

export type RequestStep = StepOf<'PublishCSR' | 'RemoveCSR' | 'RequestSignature'>;

/** What was read, for the next observation of the same reconcile and for the guards of a write. */
export interface ReadRequests {
  /** The ConfigMap; undefined: it does not exist. */
  map: JsonObject | undefined;
  facts: Pick<ObservedKubernetes, 'requestMap' | 'certificateRequest'>;
  /** The request that waited then. */
  csr: string | undefined;
}

type Reader = Pick<KubeClient, 'getObject' | 'isAllowed' | 'isServed' | 'requestToken' | 'withToken'>;

/**
 * Reads the ConfigMap and the CertificateRequest. Without a root outside of Vault there is neither.
 * @param before what was read before these steps; undefined: nothing in this reconcile
 * @param since the steps since then; undefined: anything can have changed
 * @throws KubeError
 */
export async function readRequests(
  kube: Reader,
  resource: IstioVaultCA,
  { desired, observed, now }: { desired: Desired; observed: Observed; now: number },
  before: ReadRequests | undefined,
  since: readonly Step[] | undefined,
): Promise<ReadRequests> {
  if (resource.spec.root.source !== 'External') return { map: undefined, facts: {}, csr: undefined };
  const derive = (facts: ReadRequests['facts']) =>
    new DerivedState(desired, { ...observed, kubernetes: { ...observed.kubernetes, ...facts } }, now);
  const isKept = before && since && !since.some(({ kind }) => isRequestStep(kind));
  if (isKept && before.csr === awaitedCsr(derive(before.facts))) return before;
  const certificateRequest = await readCertificateRequest(kube, resource, wantedRequest(derive({})));
  const ofCertManager = certificateRequest ? { certificateRequest } : {};
  const csr = awaitedCsr(derive(ofCertManager));
  const { namespace } = resource.metadata;
  const map = await kube.getObject(configMaps, namespace, requestMapName(desired.identity));
  const requestMap = await evaluateMap(kube, resource, map, csr);
  return { map, csr, facts: { ...ofCertManager, requestMap } };
}

const isRequestStep = (kind: Step['kind']): boolean =>
  kind === 'PublishCSR' || kind === 'RemoveCSR' || kind === 'RequestSignature';

/** @param csr the request that waits */
async function evaluateMap(
  kube: Reader,
  { metadata }: IstioVaultCA,
  map: JsonObject | undefined,
  csr: string | undefined,
): Promise<ObservedRequestMap> {
  const { namespace, uid } = metadata;
  const lacks = async (verb: string): Promise<string | undefined> => {
    const permission = permissionOn(verb, configMaps, namespace);
    const allowed = await unless('Forbidden', kube.isAllowed(permission));
    return allowed === true ? undefined : missingPermission(permission);
  };
  if (!map) return { content: 'none', lacks: await lacks('create') };
  const isOwned = items(dig(map, 'metadata', 'ownerReferences')).some((ref) => dig(ref, 'uid') === uid);
  if (!isOwned) return { content: 'foreign', lacks: undefined };
  const keys = ['data', 'binaryData'].flatMap((part) => Object.keys(objectAt(map, part)));
  const others = keys.some((key) => key !== requestKey);
  const content = { csr: str(dig(map, 'data', requestKey)), others };
  const verb = csr !== undefined || others ? 'patch' : 'delete';
  return { content, lacks: content.csr === csr ? undefined : await lacks(verb) };
}

const objectAt = (object: JsonObject, key: string): JsonObject => {
  const value = object[key];
  return isObject(value) ? value : {};
};

/**
 * The account of the namespace in whose name cert-manager is asked. With the rights of the operator, whoever may create an IstioVaultCA could have a CA
 * signed by every issuer of the cluster.
 */
const account = 'istio-vault-ca';

/** Lifetime of its token; the shortest that the API server issues. */
const tokenSeconds = 600;

/** A client with the rights of that account. @throws KubeError, `NotFound` if the account does not exist */
async function asAccount(kube: Pick<KubeClient, 'requestToken' | 'withToken'>, namespace: string): Promise<KubeClient> {
  const { token } = await kube.requestToken(namespace, account, [], tokenSeconds);
  return kube.withToken(new Secret(token));
}

/** @param wanted undefined: nothing waits, and only whether cert-manager is there is read */
async function readCertificateRequest(
  kube: Reader,
  resource: IstioVaultCA,
  wanted: WantedRequest | undefined,
): Promise<ObservedCertificateRequest | undefined> {
  if (!issuerRefOf(resource.spec)) return undefined;
  if (!(await kube.isServed(certificateRequests))) return { state: 'notServed' };
  if (!wanted) return undefined;
  const { namespace } = resource.metadata;
  const forbidden = (why: string): ObservedCertificateRequest => ({
    state: 'forbidden',
    name: wanted.name,
    message: `spec.root.external.certManagerIssuerRef: ${why}`,
  });
  try {
    const own = await asAccount(kube, namespace);
    const object = await own.getObject(certificateRequests, namespace, wanted.name);
    if (object) return evaluateCertificateRequest(resource, wanted, object);
    const permission = permissionOn('create', certificateRequests, namespace);
    // where nobody may ask, the attempt shows it
    if ((await unless('Forbidden', own.isAllowed(permission))) !== false) return { state: 'absent', name: wanted.name };
    return forbidden(missingPermission({ ...permission, user: `system:serviceaccount:${namespace}:${account}` }));
  } catch (error) {
    if (!isKubeError(error, 'Forbidden') && !isKubeError(error, 'NotFound')) throw error;
    if (error.kind === 'Forbidden') return forbidden(messageOf(error));
    return forbidden(
      `There is no ServiceAccount ${namespace}/${account}, in whose name the operator asks cert-manager. Create it, and give it the rights of deploy/components/cert-manager; see docs/rbac.md.`,
    );
  }
}

/** The most UTF-16 code units of a text of cert-manager in a message. */
const longestSaid = 300;

function evaluateCertificateRequest(
  resource: IstioVaultCA,
  wanted: WantedRequest,
  object: JsonObject,
): ObservedCertificateRequest {
  const { name } = wanted;
  if (dig(object, 'metadata', 'deletionTimestamp') !== undefined) return { state: 'deleting', name };
  const field = fieldOfOther(resource, wanted, object);
  if (field !== undefined) return { state: 'other', name, field };
  const conditions = items(dig(object, 'status', 'conditions')).slice(0, 20);
  const condition = (type: string) => conditions.find((one) => dig(one, 'type') === type);
  const isTrue = (type: string) => dig(condition(type), 'status') === 'True';
  const said = (type: string): string => {
    const [reason, message] = ['reason', 'message'].map((key) => str(dig(condition(type), key)).slice(0, 2000));
    return cut(printable([reason, message].filter((text) => text !== '').join(': ')), longestSaid);
  };
  const reason = str(dig(condition('Ready'), 'reason'));
  const failed = (what: string, by: string) => ({ state: 'failed', name, what, said: by }) as const;
  if (isTrue('Denied') || reason === 'Denied') return failed('was denied', said('Denied') || said('Ready'));
  if (isTrue('InvalidRequest')) return failed('is invalid', said('InvalidRequest'));
  if (reason === 'Failed') return failed('has failed', said('Ready'));
  if (!isTrue('Ready')) return { state: 'waiting', name, approved: isTrue('Approved'), said: said('Ready') };
  const decoded = (key: string) => Buffer.from(str(dig(object, 'status', key)), 'base64').toString('utf8');
  const text = ['certificate', 'ca'].map(decoded).join('\n');
  return {
    state: 'signed',
    name,
    given: parseGiven(`CertificateRequest ${resource.metadata.namespace}/${name}`, text),
  };
}

/** The field in which an object is not what this resource would have written; undefined: it is. */
function fieldOfOther(
  { metadata }: IstioVaultCA,
  { csr, issuer }: WantedRequest,
  object: JsonObject,
): string | undefined {
  const has = (key: string) => dig(object, 'spec', key);
  if (has('request') !== requestOf(csr)) return 'spec.request';
  const [name, kind, group] = ['name', 'kind', 'group'].map((key) => str(dig(has('issuerRef'), key)));
  // cert-manager takes a reference without kind and group for an Issuer of its own
  const ref = { name, kind: kind || 'Issuer', group: group || 'cert-manager.io' };
  if (!isDeepStrictEqual(ref, { name: issuer.name, kind: issuer.kind, group: issuer.group })) return 'spec.issuerRef';
  if (has('isCA') !== true) return 'spec.isCA';
  const owners = items(dig(object, 'metadata', 'ownerReferences'));
  return owners.some((owner) => dig(owner, 'uid') === metadata.uid) ? undefined : 'metadata.ownerReferences';
}

const requestOf = (csr: string): string => Buffer.from(csr).toString('base64');

/** The objects go with the resource. */
const ownedBy = ({ apiVersion, kind, metadata: { name, uid, namespace } }: IstioVaultCA, called: string) => ({
  name: called,
  namespace,
  ownerReferences: [{ apiVersion, kind, name, uid }],
});

/**
 * Writes the ConfigMap or the CertificateRequest.
 * @param map the ConfigMap as it was read; undefined: there was none
 * @throws KubeError, of kind `Conflict` if the object was created or changed meanwhile
 */
export async function executeRequestStep(
  kube: Pick<KubeClient, 'createObject' | 'deleteObject' | 'patchObject' | 'requestToken' | 'withToken'>,
  resource: IstioVaultCA,
  map: JsonObject | undefined,
  step: RequestStep,
): Promise<void> {
  const { namespace } = resource.metadata;
  const metadata = ownedBy(resource, step.name);
  const uid = str(dig(map, 'metadata', 'uid'));
  const resourceVersion = str(dig(map, 'metadata', 'resourceVersion'));
  if (step.kind === 'RequestSignature') {
    const { csr, issuer } = step;
    const duration = resource.spec.intermediate.ttl;
    const spec = { request: requestOf(csr), isCA: true, usages, duration, issuerRef: issuer };
    const body = { apiVersion: 'cert-manager.io/v1', kind: 'CertificateRequest', metadata, spec };
    const own = await asAccount(kube, namespace);
    await own.createObject(certificateRequests, namespace, plainJson(body));
  } else if (step.kind === 'RemoveCSR' && !step.others) {
    await kube.deleteObject(configMaps, namespace, step.name, { uid, resourceVersion });
  } else if (map) {
    const csr = step.kind === 'PublishCSR' ? step.csr : null;
    const body = plainJson({ metadata: { uid, resourceVersion }, data: { [requestKey]: csr } });
    await kube.patchObject(configMaps, namespace, step.name, body, { type: 'merge', fieldManager });
  } else if (step.kind === 'PublishCSR') {
    const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { [requestKey]: step.csr } };
    await kube.createObject(configMaps, namespace, plainJson(body));
  }
}
