import { expect, it } from '@jest/globals';
import { desiredOf } from '../../test/unit/model.ts';
import { controlPlaneKinds } from './control-plane/kinds.ts';
import { checkSpec } from './plan.ts';

const kinds = Object.keys(controlPlaneKinds) as (keyof typeof controlPlaneKinds)[];

it.each(kinds)('a revision of %s is refused where its operator names the revisions itself', (kind) => {
  const refused = checkSpec(desiredOf({ controlPlane: { kind, name: 'mesh', revision: 'canary' } }), true);
  const { namesRevisions, objectKind } = controlPlaneKinds[kind];
  if (namesRevisions === undefined) {
    expect(refused).toEqual([]);
    return;
  }
  expect(refused).toMatchObject([{ condition: 'ControlPlanePatched', reason: 'InvalidSpec', blocks: 'all' }]);
  expect(refused[0]?.message).toContain(`canary cannot be set with kind ${kind}: ${namesRevisions}`);
  expect(refused[0]?.message).toContain(`revisions of ${objectKind} mesh`);
});

const client = { clientCertSecretRef: { name: 'client' } };
const annotations = { 'vault.hashicorp.com/tls-secret': 'other', 'vault.hashicorp.com/ca-cert': '/vault/tls/ca.crt' };
const agentTls = (tls: object, given: object = {}) =>
  desiredOf({
    vault: {
      address: 'https://vault.example:8200',
      auth: { method: 'Kubernetes', kubernetes: { role: 'istio-vault-ca' } },
      tls,
    },
    delivery: { annotations: given },
  });

it.each<[string, object, object, string | undefined]>([
  ['a client certificate', client, {}, undefined],
  ['and a CA in its Secret', { ...client, caSecretRef: { name: 'client' } }, {}, undefined],
  ['and a CA in a ConfigMap for the operator', { ...client, caConfigMapRef: { name: 'ca' } }, {}, undefined],
  ['and a CA in another Secret', { ...client, caSecretRef: { name: 'ca' } }, {}, 'AgentCAMissing'],
  ['and another Secret for the agent', { ...client, caConfigMapRef: { name: 'ca' } }, annotations, 'InvalidSpec'],
])("%s: refused where istiod's agent would need two Secrets", (_, tls, given, reason) => {
  const refused = checkSpec(agentTls(tls, given), true);
  expect(refused.map((problem) => problem.reason)).toEqual(reason === undefined ? [] : [reason]);
  if (reason === 'AgentCAMissing') expect(refused[0]?.message).toContain('Secret client as ca.crt');
});

it.each([
  ['istioca-csr', ['InvalidSpec']],
  ['istioca-signed', []],
])('a signed certificate in ConfigMap %s', (name, reasons) => {
  const root = { source: 'External', external: { signed: { configMapRef: { name } } } };
  expect(checkSpec(desiredOf({ root }), true).map(({ reason }) => reason)).toEqual(reasons);
});
