/** Which webhooks take the Pods of istiod, case by case. Tests with a real API server verify the reads. */
import { describe, expect, it } from '@jest/globals';
import type { JsonObject } from '../api/json.ts';
import { KubeError } from '../kube/errors.ts';
import { evaluateInjectors, readInjectors, type PodLabels } from './observe-injector.ts';

const rules = [{ operations: ['CREATE', 'UPDATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['pods'] }];
const service = { name: 'vault-agent-injector-svc', namespace: 'vault' };
/** As the charts of both injectors render it: the injector's own Pods are left out. */
const webhook = (over: JsonObject = {}): JsonObject => ({
  name: 'vault.hashicorp.com',
  failurePolicy: 'Ignore',
  rules,
  clientConfig: { service },
  objectSelector: { matchExpressions: [{ key: 'app.kubernetes.io/name', operator: 'NotIn', values: ['vault-agent-injector'] }] },
  ...over,
}); // prettier-ignore
const istiod: PodLabels = { labels: { app: 'istiod', 'istio.io/rev': 'default' }, complete: true };
const assumed: PodLabels = { ...istiod, complete: false };
const labelled = { matchLabels: { 'vault-injection': 'enabled' } };
const evaluate = (over: JsonObject, ...pods: PodLabels[]) =>
  evaluateInjectors([{ webhook: webhook(over), selectsNamespace: true, service: undefined }], pods).selectsPods;

describe('a webhook takes the pods of istiod', () => {
  it.each<[string, JsonObject, PodLabels[], boolean]>([
    ['as the chart renders it', {}, [istiod], true],
    ['without an objectSelector', { objectSelector: undefined }, [istiod], true],
    ['with an empty one', { objectSelector: {} }, [istiod], true],
    ['unless it asks for a label that they lack', { objectSelector: labelled }, [istiod], false],
    ['if they have it', { objectSelector: labelled }, [{ ...istiod, labels: { 'vault-injection': 'enabled' } }], true],
    ['unless one of two revisions lacks it', { objectSelector: labelled }, [{ ...istiod, labels: { 'vault-injection': 'enabled' } }, istiod], false],
    ['perhaps: istiod has no Deployment, and may get the label', { objectSelector: labelled }, [assumed], true],
    ['unless a label excludes them that every istiod has', { objectSelector: { matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['istiod'] }] } }, [assumed], false],
    ['unless its rules are for something else', { rules: [{ ...rules[0], resources: ['deployments'] }] }, [istiod], false],
    ['unless it is called for updates only', { rules: [{ ...rules[0], operations: ['UPDATE'] }] }, [istiod], false],
    ['if its rules are for everything', { rules: [{ operations: ['*'], apiGroups: ['*'], apiVersions: ['*'], resources: ['*/*'] }] }, [istiod], true],
  ])('%s', (_, over, pods, expected) => {
    expect(evaluate(over, ...pods)).toBe(expected);
  }); // prettier-ignore

  it('that selects both takes precedence, and its matchConditions are named', () => {
    const other = { webhook: webhook({ name: 'a.vault.hashicorp.com' }), selectsNamespace: false, service: undefined };
    const matchConditions = [{ name: 'labelled', expression: 'true' }];
    const fits = { webhook: webhook({ matchConditions }), selectsNamespace: true, service: undefined };
    expect(evaluateInjectors([other, fits], [istiod])).toMatchObject({
      name: 'vault.hashicorp.com',
      selectsNamespace: true,
      matchConditions: ['labelled'],
    });
    const down = { name: 'vault/injector', answers: false };
    const refusing = { webhook: webhook({ failurePolicy: 'Fail' }), selectsNamespace: true, service: down };
    expect(evaluateInjectors([other, refusing], [istiod])).toMatchObject({ selectsNamespace: true });
    expect(evaluateInjectors([], [istiod])).toMatchObject({ found: false });
  });
});

describe('behind the Service of a webhook', () => {
  const answers = async (slices: JsonObject[] | KubeError, clientConfig: JsonObject = { service }) => {
    const [read] = await readInjectors(
      {
        getObject: () => Promise.resolve({ metadata: { labels: {} } }),
        listObjects: ({ plural }) =>
          plural === 'mutatingwebhookconfigurations'
            ? Promise.resolve([{ webhooks: [webhook({ clientConfig })] }])
            : slices instanceof KubeError
              ? Promise.reject(slices)
              : Promise.resolve(slices),
      },
      'istio-system',
    );
    return read?.service?.answers;
  };
  const slice = (...ready: (boolean | undefined)[]) => ({
    endpoints: ready.map((one) => ({ conditions: one === undefined ? {} : { ready: one } })),
  });

  it.each<[string, JsonObject[], boolean]>([
    ['stands nobody without slices', [], false],
    ['stands nobody with an empty slice', [slice(), { endpoints: null }], false],
    ['stands nobody who is ready', [slice(false, false)], false],
    ['stands one of several', [slice(false), slice(false, true)], true],
    ['stands one of whom nothing is said', [slice(undefined)], true],
  ])('%s', async (_, slices, expected) => {
    expect(await answers(slices)).toBe(expected);
  });

  it('nothing is known without the right, and nothing is asked about a URL', async () => {
    expect(await answers(new KubeError('no', { kind: 'Forbidden' }))).toBe('unreadable');
    expect(await answers([], { url: 'https://127.0.0.1/mutate' })).toBeUndefined();
    await expect(answers(new KubeError('no', { kind: 'Unavailable' }))).rejects.toThrow(KubeError);
  });
});
