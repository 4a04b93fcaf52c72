/**
 * What happens to an istiod that ran well: its files, the agent beside it, the injector. Made for real on the stand-in for a node; see
 * `failures-start.test.ts`.
 */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { generateKeyPairSync } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sharedStack, waitFor } from '../stack/index.ts';
import { podsCome } from '../support/admission.ts';
import type { Json } from '../support/cluster.ts';
import { insist } from '../support/failing-mesh.ts';
import { makeForeignRoot } from '../support/foreign-root.ts';
import { useMeshes } from '../support/mesh.ts';

const { kube, vaults } = sharedStack();
const vault = vaults.OpenBao;
const meshes = useMeshes(['--resync=5s']);

beforeAll(() => meshes.start('fail-files'));

describe('the files of a replica that runs', () => {
  const namespace = 'fail-files';
  const names = ['ca-cert.pem', 'ca-key.pem', 'cert-chain.pem', 'root-cert.pem'];
  const otherKey = () =>
    generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' });
  const otherRoot = async () => (await makeForeignRoot()).pem;

  it.each<[string, string[], () => Promise<string | Buffer> | string | Buffer | undefined, string, string, string]>([
    ['no key', ['ca-key.pem'], () => undefined, 'IstiodCrash', 'IncompleteBundle', 'some of the four files are missing in /vault/secrets; the pod asks the agent for 4 of them'],
    ['the key of another certificate', ['ca-key.pem'], otherKey, 'IstiodCrash', 'KeyMismatch', 'ca-key.pem and ca-cert.pem are of two generations'],
    ['another root', ['root-cert.pem'], otherRoot, 'IstiodCrash', 'ChainNotVerified', 'ca-cert.pem does not verify against root-cert.pem'],
    ['no certificate', ['ca-cert.pem'], () => 'nothing\n', 'IstiodCrash', 'CALoadFailed', 'istiod refuses the files of the CA'],
    ['none at all', names, () => undefined, 'SelfSignedFallback', 'FilesMissing', 'none of the files of the CA were in /vault/secrets'],
  ])('%s', async (_, files, makeContent, phase, reason, says) => {
    await meshes.proven(namespace);
    const [{ pod } = { pod: '' }] = await meshes.replicas(namespace);
    const running = meshes.node.pod(namespace, pod);
    const content = await makeContent();
    for (const name of files) {
      const file = join(running.folder('/vault/secrets'), name);
      await (content === undefined ? rm(file) : writeFile(file, content));
    }
    running.kill('discovery', 'SIGTERM');
    const seen = await meshes.replica(namespace, phase, reason);
    expect(seen).toMatchObject({ pod, container: 'discovery' });
    expect(seen.message).toContain(says);
    await meshes.istiodReady(namespace, 'False', phase);
    await meshes.remake(namespace, pod);
    await waitFor('the pod to be gone', async () => (await meshes.replicas(namespace)).every((one) => one.pod !== pod));
  }); // prettier-ignore
});

describe('the agent beside istiod', () => {
  const namespace = 'fail-files';

  it('killed again and again', async () => {
    await meshes.proven(namespace);
    const [{ pod } = { pod: '' }] = await meshes.replicas(namespace);
    const state = async () => {
      const { body } = await kube.request('GET', `/api/v1/namespaces/${namespace}/pods/${pod}`);
      const { containerStatuses } = (body as { status: { containerStatuses: { name: string; state: Json }[] } }).status;
      return containerStatuses.find(({ name }) => name === 'vault-agent')?.state ?? {};
    };
    const looping = await waitFor('the agent to be in CrashLoopBackOff', async () => {
      const { running } = await state();
      if (running !== undefined) meshes.node.pod(namespace, pod).kill('vault-agent');
      return (await meshes.replicas(namespace)).find(({ reason }) => reason === 'CrashLoopBackOff');
    }, { timeoutMs: 120_000 }); // prettier-ignore
    expect(looping).toMatchObject({ pod, phase: 'VaultAgentFailed', container: 'vault-agent' });
    const again = await meshes.replica(namespace, 'VaultAgentFailed', 'RestartsAgain');
    expect(again.message).toContain('vault-agent runs, after it ended with code 137');
    expect(again.message).toContain('istiod goes on with the files it has, and gets no renewed ones');
    await meshes.istiodReady(namespace, 'False', 'VaultAgentFailed');
    await meshes.remake(namespace, pod);
    await meshes.proven(namespace);
  });

  it('may not read any more: a policy that forbids it, which is not of this resource', async () => {
    const [{ pod } = { pod: '' }] = await meshes.replicas(namespace);
    const policy = `path "${namespace}-kv/data/istioca" { capabilities = ["deny"] }`;
    await insist(vault, 'PUT', 'sys/policies/acl/forbids', { policy });
    const path = `/api/v1/namespaces/${namespace}/serviceaccounts/istiod`;
    const { uid } = ((await kube.request('GET', path)).body as { metadata: { uid: string } }).metadata;
    const auth = (await insist(vault, 'GET', 'sys/auth/kubernetes'))['data'] as { accessor: string };
    const alias = { alias_name: uid, alias_mount_accessor: auth.accessor };
    const entity = (await insist(vault, 'POST', 'identity/lookup/entity', alias))['data'] as { id: string };
    await insist(vault, 'POST', `identity/entity/id/${entity.id}`, { policies: ['forbids'] });
    await meshes.remake(namespace, pod);
    const { message } = await meshes.replica(namespace, 'VaultInitFailed', 'ReadRefused');
    expect(message).toContain('permission denied');
    expect(message).toContain(`\`vault policy read ${namespace}-istioca\``);
    await insist(vault, 'POST', `identity/entity/id/${entity.id}`, { policies: [] });
    await meshes.proven(namespace);
  });
});

describe('the injector', () => {
  const namespace = 'fail-files';
  const configuration = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/vault-agent-injector-cfg';
  const remakeOne = async () => {
    const [one] = await meshes.replicas(namespace);
    await meshes.remake(namespace, one!.pod);
  };

  it('its webhook is not registered', async () => {
    await meshes.node.injector.unregister();
    await podsCome(kube, namespace, 'not injected');
    await remakeOne();
    const { message } = await meshes.replica(namespace, 'SelfSignedFallback', 'NotInjected');
    expect(message).toContain('openbao.org is registered. Install the injector, then delete the pod');
    await meshes.node.injector.register();
    await podsCome(kube, namespace, 'injected');
    await remakeOne();
    await meshes.proven(namespace);
  });

  it('its webhook does not answer, and pods may not pass without it', async () => {
    const change = [{ op: 'replace', path: '/webhooks/0/failurePolicy', value: 'Fail' }];
    await kube.request('PATCH', configuration, JSON.stringify(change), 'application/json-patch+json');
    await meshes.node.injector.stop();
    await podsCome(kube, namespace, /failed calling webhook/);
    await remakeOne();
    const { message } = await meshes.istiodReady(namespace, 'False', 'PodCreateFailed');
    expect(message).toContain('failed calling webhook "vault.hashicorp.com"');
    await meshes.node.injector.start();
    await meshes.proven(namespace);
    await meshes.node.injector.register();
  });
});
