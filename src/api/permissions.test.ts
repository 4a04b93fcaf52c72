import { expect, it } from '@jest/globals';
import { describePermission, missingPermission, type Permission } from './permissions.ts';

const inMesh = { namespace: 'mesh' };

it.each<[Permission, string]>([
  [{ verb: 'get', group: '', resource: 'pods/log', ...inMesh }, 'get pods/log in namespace mesh'],
  [{ verb: 'list', group: 'sailoperator.io', resource: 'istios' }, 'list istios.sailoperator.io'],
  [
    { verb: 'patch', group: 'istiovaultca.io', resource: 'istiovaultcas/status', ...inMesh },
    'patch istiovaultcas.istiovaultca.io/status in namespace mesh',
  ],
])('%j is %s', (permission, text) => expect(describePermission(permission)).toBe(text));

it.each<[string, string, string, string]>([
  ['get', 'install.tetrate.io', 'controlplanes', 'deploy/components/tetrate (with --namespaces: deploy/components/namespaced/access-tetrate)'], // prettier-ignore
  ['patch', 'install.istio.io', 'istiooperators', 'deploy/components/istio-operator (with'],
  ['watch', 'sailoperator.io', 'istiorevisions', 'deploy/components/sail to'],
  ['create', '', 'configmaps', 'deploy/components/configmaps (with'],
  ['get', '', 'pods/log', 'deploy/components/logs (with'],
  ['get', '', 'configmaps', 'Apply deploy/base again'],
  ['list', '', 'pods', 'Apply deploy/base again'],
  ['list', 'apps', 'deployments', 'Apply deploy/base again'],
])('%s on %s %s is granted by %s', (verb, group, resource, expected) => {
  const message = missingPermission({ verb, group, resource });
  expect(message).toContain(expected);
  expect(message).toMatch(/^The operator lacks permission to [^.]+(\.[a-z.]+)?\. .*; see docs\/rbac\.md\.$/);
});

it('of a user who runs a command, the deployment has no permissions', () => {
  const permission = { verb: 'get', group: 'sailoperator.io', resource: 'istios', user: 'jane' };
  expect(missingPermission(permission)).toBe(
    'User jane lacks permission to get istios.sailoperator.io; see docs/rbac.md.',
  );
  const account = { ...permission, user: 'system:serviceaccount:istio-vault-ca:istio-vault-ca-operator' };
  expect(missingPermission(account)).toMatch(/^The operator lacks permission .* Add deploy\/components\/sail/);
});

it('of an account of a namespace, the message names it and what binds the rights to it', () => {
  const permission = { verb: 'create', group: 'cert-manager.io', resource: 'certificaterequests', ...inMesh };
  expect(missingPermission({ ...permission, user: 'system:serviceaccount:mesh:istio-vault-ca' })).toBe(
    'ServiceAccount mesh/istio-vault-ca lacks permission to create certificaterequests.cert-manager.io in namespace mesh. Apply deploy/components/cert-manager, and `kubectl create rolebinding istio-vault-ca-cert-manager -n mesh --clusterrole=istio-vault-ca-cert-manager --serviceaccount=mesh:istio-vault-ca` (or deploy/components/namespaced/access-cert-manager); see docs/rbac.md.',
  );
});

it('another remedy takes the place of the usual one', () => {
  const permission = { verb: 'list', group: 'install.istio.io', resource: 'istiooperators' };
  expect(missingPermission(permission, 'Ask')).toBe(
    'The operator lacks permission to list istiooperators.install.istio.io. Ask; see docs/rbac.md.',
  );
});
