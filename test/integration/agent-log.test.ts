/** What the real agents print while they may not read, as the status explains it. */
import { afterAll, expect, it, jest } from '@jest/globals';
import { relevantLines } from '../../src/istiod/log-lines.ts';
import { istiodFields } from '../../src/plan/control-plane/istiod-fields.ts';
import type { IstiodPod } from '../../src/plan/facts/observed-istiod.ts';
import { initFailure } from '../../src/plan/proof/containers.ts';
import { specSchema, type Spec } from '../../src/api/schema.ts';
import { createNamespace, makeTemporaryDir, products, removeTemporaryDir, renderWithAgent, requestToken, sharedStack, waitFor } from '../stack/index.ts'; // prettier-ignore
import { prepareVault } from '../support/scene.ts';
import { desiredOf } from '../unit/model.ts';

jest.setTimeout(60_000);

const { kube, vaults } = sharedStack();
const namespace = 'agent-log';
const dir = makeTemporaryDir('agent-log');
afterAll(() => removeTemporaryDir(dir));

const sources: Spec['delivery']['source'][] = ['Bundle', 'PKI'];
const cases = products.flatMap((product) => sources.map((source) => [product, source] as const));

it.each(cases)('of %s with delivery.source %s: the reads are refused', async (product, source) => {
  const vault = vaults[product];
  await prepareVault(kube, vault);
  await createNamespace(kube, namespace);
  await kube.request('POST', `/api/v1/namespaces/${namespace}/serviceaccounts`, { metadata: { name: 'istiod' } });
  await vault.request('POST', 'auth/kubernetes/role/agent-log', {
    bound_service_account_names: ['istiod'],
    bound_service_account_namespaces: [namespace],
    token_policies: ['default'],
  });
  const over = { delivery: { source }, kubernetesAuth: { role: 'agent-log' } };
  const spec = specSchema.parse({
    ...desiredOf(over).spec,
    vault: {
      address: vault.address,
      tls: { caSecretRef: { name: 'vault' } },
      auth: { method: 'Kubernetes', kubernetes: { role: 'none' } },
    },
  });
  const agent = await renderWithAgent({
    annotations: istiodFields(spec, undefined).podAnnotations,
    vault,
    token: await requestToken(kube, namespace, 'istiod', undefined),
    dir,
    mode: 'sidecar',
    tlsSecret: { 'ca.crt': vault.caPem ?? '' },
  });
  try {
    // with Bundle one path is read, at growing intervals
    const refusals = () => agent.log().match(/permission denied/g)?.length ?? 0;
    await waitFor('the agent to be refused', () => refusals() >= 3, { timeoutMs: 30_000, log: agent.log });
  } finally {
    await agent.stop();
  }
  const log = relevantLines(agent.log(), 'agent');
  const init = {
    name: 'vault-agent-init',
    init: true,
    ready: false,
    restarts: 0,
    state: { kind: 'running' as const, sinceMs: 0 },
    last: undefined,
    log,
  };
  const pod: IstiodPod = {
    name: 'istiod-1',
    deployment: 'istiod',
    createdMs: 0,
    settings: { annotations: {}, env: {} },
    injected: true,
    tlsCertFile: false,
    unschedulable: undefined,
    containers: [init],
    served: undefined,
  };
  expect(log.join('\n')).toContain('permission denied');
  expect(initFailure(desiredOf(over), pod, 'istiod', 20_000)).toMatchObject({ reason: 'ReadRefused' });
});
