/**
 * Observes the webhook of an agent injector: would it take the Pods of istiod? Without an agent, istiod starts with a self-signed CA.
 * https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
 */
import type { Gvr } from '../api/gvr.ts';
import { isInjector } from '../api/injectors.ts';
import { dig, isObject, items, str, type JsonObject } from '../api/json.ts';
import type { KubeClient } from '../kube/client.ts';
import { unless } from '../kube/errors.ts';
import { selects, usesOnly } from '../kube/selector.ts';
import { noInjector, type ObservedInjector } from '../plan/facts/observed-injector.ts';

const webhooks: Gvr = { group: 'admissionregistration.k8s.io', version: 'v1', plural: 'mutatingwebhookconfigurations' };
const namespaces: Gvr = { group: '', version: 'v1', plural: 'namespaces' };
const endpointSlices: Gvr = { group: 'discovery.k8s.io', version: 'v1', plural: 'endpointslices' };

/** The webhook of an injector, as the API server has it. */
export interface InjectorWebhook {
  webhook: JsonObject;
  selectsNamespace: boolean;
  /** The Service that answers it; undefined: the webhook has an URL. */
  service: ObservedInjector['service'];
}

/** The labels of istiod's Pods, as far as they are known. */
export interface PodLabels {
  labels: Readonly<Record<string, string>>;
  /** Istiod's Deployment has these labels; false: they are assumed, and Pods can have others too. */
  complete: boolean;
}

/**
 * Reads the mutating webhooks of agent injectors, which their names identify (`src/api/injectors.ts`), and whether somebody answers them.
 * @throws KubeError
 */
export async function readInjectors(
  kube: Pick<KubeClient, 'getObject' | 'listObjects'>,
  namespace: string,
): Promise<InjectorWebhook[]> {
  const [configurations, object] = await Promise.all([
    kube.listObjects(webhooks, undefined),
    kube.getObject(namespaces, undefined, namespace),
  ]);
  const own = dig(object, 'metadata', 'labels');
  const labels = isObject(own) ? own : {};
  const found = configurations
    .flatMap((configuration) => items(configuration['webhooks']))
    .filter(isObject)
    .filter((webhook) => isInjector(str(webhook['name'])));
  return await Promise.all(
    found.map(async (webhook) => ({
      webhook,
      selectsNamespace: selects(webhook['namespaceSelector'], labels),
      service: await readService(kube, dig(webhook, 'clientConfig', 'service')),
    })),
  );
}

/** Reads whether a Pod stands behind the Service of a webhook. @throws KubeError */
async function readService(
  kube: Pick<KubeClient, 'listObjects'>,
  service: unknown,
): Promise<ObservedInjector['service']> {
  const [namespace, name] = [str(dig(service, 'namespace')), str(dig(service, 'name'))];
  if (namespace === '' || name === '') return undefined;
  const ofService = `kubernetes.io/service-name=${name}`;
  const slices = await unless('Forbidden', kube.listObjects(endpointSlices, namespace, ofService));
  // an endpoint without the condition counts as ready, as the API prescribes
  const isReady = (endpoint: unknown) => dig(endpoint, 'conditions', 'ready') !== false;
  const answers = slices?.some((slice) => items(slice['endpoints']).some(isReady)) ?? 'unreadable';
  return { name: `${namespace}/${name}`, answers };
}

/** Whether the rules of a webhook include the creation of Pods. */
function coversPods(webhook: JsonObject): boolean {
  const has = (rule: unknown, field: string, ...wanted: string[]) =>
    items(dig(rule, field)).some((value) => wanted.includes(str(value)));
  return items(webhook['rules']).some(
    (rule) =>
      has(rule, 'apiGroups', '', '*') &&
      has(rule, 'resources', 'pods', '*', '*/*') &&
      has(rule, 'operations', 'CREATE', '*'),
  );
}

/**
 * Evaluates the webhooks against the Pods of istiod. One that takes all of them takes precedence.
 * @param pods labels of the Pods of each istiod
 */
export function evaluateInjectors(injectors: readonly InjectorWebhook[], pods: readonly PodLabels[]): ObservedInjector {
  const evaluated = injectors.map(({ webhook, selectsNamespace, service }): ObservedInjector => {
    const selector = webhook['objectSelector'];
    const selectsAll = pods.every(
      ({ labels, complete }) => (!complete && !usesOnly(selector, Object.keys(labels))) || selects(selector, labels),
    );
    return {
      found: true,
      name: str(webhook['name']),
      failurePolicy: str(webhook['failurePolicy']),
      selectsNamespace,
      selectsPods: coversPods(webhook) && selectsAll,
      matchConditions: items(webhook['matchConditions']).map((condition) => str(dig(condition, 'name'))),
      service,
    };
  });
  const rank = (one: ObservedInjector) =>
    (one.selectsNamespace ? 4 : 0) +
    (one.selectsPods ? 2 : 0) +
    (one.service?.answers === false && one.failurePolicy === 'Ignore' ? 0 : 1);
  return evaluated.sort((a, b) => rank(b) - rank(a))[0] ?? noInjector;
}
