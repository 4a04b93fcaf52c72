/**
 * Revocation lists in a mesh that works: workloads need a list of every CA, get each list later than the ConfigMap, and notice neither a renewal nor
 * a revocation, done in the order of docs/compromise.md. Who still has the leaked intermediate is refused. The same lists come from outside of Vault.
 */
import { expect, it, jest } from '@jest/globals';
import { waitFor } from '../stack/index.ts';
import { conditionOf } from '../support/cluster.ts';
import { OfflineCa } from '../support/offline-ca.ts';
import { useRotatingMesh } from '../support/rotating-mesh.ts';

jest.setTimeout(600_000);

const { annotate, count, give, lists, mesh, request, resource, until, work } = useRotatingMesh(['--crl-lead-time=20s']);
/** How long a list takes from the ConfigMap to a workload: less than the lead time, and far more than a renewal takes. */
const lagMs = 16_000;

it('the key of an intermediate has leaked', async () => {
  const namespace = 'leaked';
  await mesh(namespace, { delivery: { refreshInterval: '1s', crl: true } });
  await waitFor('lists of root and intermediate', async () => (await lists(namespace)).length === 2);
  const workloads = await work(namespace, lagMs);
  const leaked = await workloads.guest(3600);
  const serial = (await resource(namespace)).status?.intermediate?.serial;

  await annotate(namespace, { 'istiovaultca.io/rotate-intermediate': 'leaked' });
  await until('the successor at every replica', namespace, (found) => {
    return conditionOf(found, 'Ready')?.status === 'True' && found.status?.intermediate?.generation === 2;
  });
  expect(await lists(namespace)).toHaveLength(3);
  await workloads.connect(leaked);
  await workloads.renewed();

  const { status } = await request('POST', `${namespace}-pki/revoke`, { serial_number: serial });
  expect(status).toBe(200);
  await annotate(namespace, { 'istiovaultca.io/reconcile-requested-at': 'revoked' });
  let answer = '';
  await waitFor('the leaked intermediate to be refused', async () => {
    answer = await workloads.connect(leaked).then(
      () => 'taken',
      (error: unknown) => String(error),
    );
    return /revoked/.test(answer);
  }, { log: () => answer }); // prettier-ignore
  await workloads.renewed();
  await workloads.stop();
  expect(workloads.failures).toEqual([]);
  await waitFor('what nobody needs to be collected', async () => (await count(namespace, 'keys')) === 1, { timeoutMs: 120_000 }); // prettier-ignore
  await waitFor('its list to go too', async () => (await lists(namespace)).length === 2);
});

it('the root and a CA between are outside of Vault: istiod takes up the lists that are handed along', async () => {
  const namespace = 'outside';
  const root = new OfflineCa('Corporate Root');
  const issuing = new OfflineCa('Corporate Issuing CA', root);
  const external = { source: 'External', external: { signed: { configMapRef: { name: 'signed' } } } };
  const running = mesh(namespace, { root: external, delivery: { refreshInterval: '1s', crl: true } });
  const asked = waitFor('the request', async () => (await resource(namespace)).status?.csr);
  const csr = await Promise.race([asked, running.then(() => '')]);
  const signed = [issuing.sign(csr, { days: 1 }), issuing.certificate, root.certificate].join('');
  await give(namespace, 'signed', { 'tls.crt': signed, 'ca-crl.pem': issuing.list() + root.list() });
  await annotate(namespace, { 'istiovaultca.io/reconcile-requested-at': 'signed' });
  await running;
  await waitFor('the lists of all three', async () => (await lists(namespace)).length === 3);
  const workloads = await work(namespace, 0);
  await workloads.renewed();
  await workloads.stop();
  expect(workloads.failures).toEqual([]);
});
