/**
 * Every right that `deploy` gives to the operator, on a real API server: without it, a condition or a line of the log names verb and resource,
 * and the component that grants it. A right without a case here fails the test.
 * @servers kubectl
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { existsSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { dumpYaml, loadAllYaml } from '../../src/runtime/yaml.ts';
import { makeTemporaryDir, sharedStack, waitFor } from '../stack/index.ts';
import {
  applyOk,
  conditionOf,
  getResource,
  installComponent,
  manifest,
  registerInjector,
  resourcePath,
  setStatus,
  unregisterInjector,
  waitForCondition,
  type Json,
} from '../support/cluster.ts';
import { certificateRequestCrd, grantRequests, requestsOf } from '../support/cert-manager.ts';
import { istioOperatorCrd, sailCrds, sailStatus, serveCrds } from '../support/control-plane-crds.ts';
import { useOperator } from '../support/harness.ts';
import { podTemplateOf } from '../support/istiod-pod.ts';
import {
  hangingInit,
  issueLeaf,
  playIstiod,
  type PlayedIstiod,
  Replicas,
  wellAt,
  writeMeshRoot,
} from '../support/istiod-replicas.ts';
import { kubectl } from '../support/kubectl.ts';
import { servedBy } from '../support/look.ts';
import { deployedRoles, formatRight, Rights, type Right } from '../support/rights.ts';
import { grantLongTokens, makeScene, merge, type Scene } from '../support/scene.ts';

const { kube, vaults } = sharedStack();
const vault = vaults.OpenBao;
const { operator, restart } = useOperator(['--resync=2s', '--leader-election-retry-period=200ms']);

const components = join(import.meta.dirname, '..', '..', 'deploy', 'components');
const { bound, unbound } = deployedRoles();
const rights = new Rights(kube, bound);

/** The component of a role; undefined: the base has it. */
const componentOf = (role: string): string | undefined => {
  const component = role.replace(/^istio-vault-ca-/, '');
  return existsSync(join(components, component)) ? component : undefined;
};

type Name =
  | 'tetrate'
  | 'operator'
  | 'sail'
  | 'helm'
  | 'render'
  | 'login'
  | 'signed'
  | 'asked'
  | 'token'
  | 'reviewer'
  | 'named'
  | 'bundle'
  | 'ambient';
const specs: Record<Name, Json> = {
  tetrate: {},
  operator: { controlPlane: { kind: 'IstioOperator', name: 'istio' } },
  sail: { controlPlane: { kind: 'Sail', name: 'rights-sail' } },
  helm: { controlPlane: { kind: 'HelmValues', name: 'values' } },
  render: { controlPlane: { write: 'Render' } },
  login: {},
  signed: { root: { source: 'External', external: { signed: { secretRef: { name: 'istio-vault-ca-signed' } } } } },
  asked: { root: { source: 'External', external: { certManagerIssuerRef: { name: 'corporate' } } } },
  token: {
    vault: { auth: { method: 'Token', kubernetes: undefined, token: { secretRef: { name: 'istio-vault-ca-token' } } } },
  },
  named: {},
  bundle: {},
  ambient: {},
  reviewer: {
    kubernetesAuth: {
      mount: 'rights-auth',
      config: { tokenReviewer: { mode: 'Secret', secretRef: { name: 'istio-vault-ca-reviewer' } } },
    },
  },
};
const bindings = '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings';
/** Environment of an istiod that publishes its roots elsewhere, or has an ambient mesh. */
const variables: Partial<Record<Name, Json>> = {
  named: { name: 'PILOT_CA_CERT_CONFIGMAP', value: 'mesh-root-cert' },
  bundle: { name: 'ENABLE_CLUSTER_TRUST_BUNDLE_API', value: 'true' },
  ambient: { name: 'PILOT_ENABLE_AMBIENT', value: 'true' },
};
/** Kubernetes binds to every service account the right to read ClusterTrustBundles. */
const discoveryOfBundles = `${bindings}/system:cluster-trust-bundle-discovery`;
let discoveryBefore: Json;
const scenes = {} as Record<Name, Scene>;
const namespaceOf = (name: Name) => `rights-${name}`;

const istioPath = '/apis/sailoperator.io/v1/istios/rights-sail';
const operatorPath = `/apis/install.istio.io/v1alpha1/namespaces/${namespaceOf('operator')}/istiooperators/istio`;
const controlPlanePath = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespaceOf('tetrate')}/controlplanes/controlplane`;
const valuesPath = `/api/v1/namespaces/${namespaceOf('helm')}/configmaps/values`;
const leasePath = '/apis/coordination.k8s.io/v1/namespaces/istio-vault-ca/leases/istio-vault-ca';

let replicas: Replicas;
let istiod: PlayedIstiod | undefined;
/** The status of a Pod in which everything runs. */
const well = () => wellAt(istiod?.address ?? '');

const change = (path: string, patch: Json) => kube.request('PATCH', path, patch);
const annotate = (name: Name, annotations: Json) =>
  change(resourcePath(namespaceOf(name), 'istioca'), { metadata: { annotations } });
let asked = 0;
const reconcile = (name: Name) => annotate(name, { 'istiovaultca.io/reconcile-requested-at': `${(asked += 1)}` });
const respec = (name: Name, spec: Json) => change(resourcePath(namespaceOf(name), 'istioca'), { spec });
const provisioned = (name: Name) =>
  waitForCondition(kube, namespaceOf(name), 'istioca', { type: 'Provisioned', status: 'True' });

/** Waits for a message of a condition. */
async function said(name: Name, type: string, ...parts: string[]): Promise<void> {
  await waitFor(
    `${type} of ${name} to say ${parts.join(', ')}`,
    async () => {
      const message = conditionOf(await getResource(kube, namespaceOf(name), 'istioca'), type)?.message ?? '';
      return parts.every((part) => message.includes(part));
    },
    { log: operator().log },
  );
}

/** Waits for a line of the log after a position. */
async function logged(from: number, ...parts: string[]): Promise<void> {
  await waitFor(`a line of the log with ${parts.join(', ')}`, () =>
    operator()
      .log()
      .slice(from)
      .split('\n')
      .some((line) => parts.every((part) => line.includes(part))),
  );
}
const logLength = () => operator().log().length;

beforeAll(async () => {
  await serveCrds(kube, [istioOperatorCrd, ...sailCrds]);
  for (const component of ['istio-operator', 'sail', 'configmaps'])
    await kube.request('DELETE', `${bindings}/istio-vault-ca-${component}`);
  for (const name of Object.keys(specs) as Name[]) {
    const kind = (specs[name]['controlPlane'] as { kind?: string } | undefined)?.kind;
    scenes[name] = await makeScene(kube, vault, {
      namespace: namespaceOf(name),
      spec: specs[name],
      ...(kind === undefined ? {} : { overlays: null }),
      ...(name === 'reviewer' ? { make: { authMount: true, authConfig: true } } : {}),
    });
    await grantLongTokens(scenes[name]);
  }
  for (const component of ['ambient', 'injector', 'trust-bundle']) await installComponent(kube, component);
  discoveryBefore = (await kube.request('GET', discoveryOfBundles)).body as Json;
  await kube.request('DELETE', discoveryOfBundles);
  for (const [name, variable] of Object.entries(variables) as [Name, Json][]) {
    const labels = { app: 'istiod' };
    const template = {
      metadata: { labels },
      spec: { containers: [{ name: 'discovery', image: 'pilot', env: [variable] }] },
    };
    const metadata = { name: 'istiod', namespace: namespaceOf(name), labels };
    const spec = { replicas: 0, selector: { matchLabels: labels }, template };
    await applyOk(kube, { apiVersion: 'apps/v1', kind: 'Deployment', metadata, spec });
  }
  const namespace = namespaceOf('operator');
  const metadata = { name: 'istio', namespace };
  await applyOk(kube, { apiVersion: 'install.istio.io/v1alpha1', kind: 'IstioOperator', metadata, spec: {} });
  await setStatus(kube, operatorPath, { status: 'HEALTHY' });
  const spec = { version: 'v1.24.3', namespace: namespaceOf('sail') };
  await applyOk(kube, { apiVersion: 'sailoperator.io/v1', kind: 'Istio', metadata: { name: 'rights-sail' }, spec });
  await setStatus(kube, istioPath, sailStatus('rights-sail'));
});

afterAll(async () => {
  await rights.restore();
  await kube.request('DELETE', `${bindings}/istio-vault-ca-logs`);
  for (const component of ['ambient', 'injector', 'trust-bundle'])
    await kube.request('DELETE', `${bindings}/istio-vault-ca-${component}`);
  const { metadata, ...discovery } = discoveryBefore;
  const { labels, annotations, name } = metadata as Json;
  await kube.request('POST', bindings, { ...discovery, metadata: { labels, annotations, name } });
  await kube.request('DELETE', istioPath);
  istiod?.server.close();
});

describe('a kind of control plane, each with a component', () => {
  it('that no resource names needs no rights: the operator is ready and logs nothing of it', async () => {
    await applyOk(kube, scenes.tetrate.resource);
    await provisioned('tetrate');
    const warnings = operator()
      .log()
      .split('\n')
      .filter((line) => /"level":"?(warn|error|40|50)/.test(line));
    expect(warnings).toEqual([]);
    expect(operator().log()).not.toMatch(/istios|"path":"[^"]*configmaps/);
  });

  const kinds: [Name, string, string][] = [
    ['operator', 'istio-operator', `get istiooperators.install.istio.io in namespace ${namespaceOf('operator')}`],
    ['sail', 'sail', 'get istios.sailoperator.io. '],
    ['helm', 'configmaps', `patch configmaps in namespace ${namespaceOf('helm')}`],
  ];

  it.each(kinds)('that %s names lacks rights: the condition names the component %s', async (name, component, right) => {
    await applyOk(kube, scenes[name].resource);
    const { namespace } = scenes[name];
    await waitForCondition(kube, namespace, 'istioca', {
      type: 'ControlPlanePatched',
      status: 'False',
      reason: 'Forbidden',
    });
    await said(name, 'ControlPlanePatched', `lacks permission to ${right}`, `Add deploy/components/${component}`);
  });

  it('goes on without a restart when the component is added, and the log has one line for each type until then', async () => {
    const denied = () =>
      operator()
        .log()
        .split('\n')
        .filter((line) => line.includes('"level":"warn"') && line.includes('cannot watch'))
        .map((line) => /"path":"([^"]*)"/.exec(line)?.[1])
        .sort();
    // component tetrate lets the operator read IstioOperators
    const types = ['istiorevisions', 'istios'].map((type) => `/apis/sailoperator.io/v1/${type}`);
    await waitFor('all types to be denied', () => denied().length >= 3);
    for (const [, component] of kinds) await installComponent(kube, component);
    await Promise.all(kinds.map(([name]) => provisioned(name)));
    expect(denied()).toEqual(['/api/v1/configmaps', ...types]);
  });
});

/** How a missing right is brought about and seen. */
interface Case {
  /** Makes the operator need the right. */
  use?: () => Promise<unknown>;
  undo?: () => Promise<unknown>;
  /** The resource and its condition that names the right. */
  condition?: [Name, string];
  /** Taken away together with others of the same group, since informers come round every two seconds. */
  together?: 'watch' | 'list';
  /** The condition stays `True`, and its message says what is not known. */
  staysTrue?: true;
  /** The base grants it in the namespaces of resources, and what that is for shows its lack first. */
  byBaseToo?: true;
}

const atControlPlane = (name: Name): Case => ({ use: () => reconcile(name), condition: [name, 'ControlPlanePatched'] });
const atIstiod: Case = { use: () => reconcile('tetrate'), condition: ['tetrate', 'IstiodReady'] };
/** A change of the Pod leads to a new look at replicas and namespaces. */
let restarts = 0;
const withNewHandshake: Case = {
  use: async () => {
    const status = well() as { containerStatuses: Json[] };
    restarts += 1;
    const containerStatuses = status.containerStatuses.map((one) => ({ ...one, restartCount: restarts }));
    await replicas.status('istiod-1', { ...status, containerStatuses });
  },
  condition: ['tetrate', 'IstiodReady'],
};
const drift = async () => {
  await vault.request('DELETE', 'sys/policies/acl/rights-tetrate-istioca');
  await reconcile('tetrate');
};
const restored = () =>
  waitFor('the policy to be restored', async () => {
    return (await vault.request('GET', 'sys/policies/acl/rights-tetrate-istioca')).status === 200;
  });

const cases: Record<string, Case> = {
  'istio-vault-ca-cluster-read: get namespaces': atControlPlane('tetrate'),
  'istio-vault-ca-cluster-read: list namespaces': withNewHandshake,
  'istio-vault-ca-cluster-read: list mutatingwebhookconfigurations.admissionregistration.k8s.io': atControlPlane('tetrate'), // prettier-ignore
  'istio-vault-ca-cluster-read: list configmaps istio-ca-root-cert': withNewHandshake,

  'istio-vault-ca: get istiovaultcas.istiovaultca.io': { use: () => reconcile('tetrate') },
  'istio-vault-ca: list istiovaultcas.istiovaultca.io': atControlPlane('tetrate'),
  'istio-vault-ca: watch istiovaultcas.istiovaultca.io': { together: 'watch' },
  'istio-vault-ca: patch istiovaultcas.istiovaultca.io': {
    use: () => respec('helm', { deletionPolicy: 'Delete' }),
    undo: () => respec('helm', { deletionPolicy: 'Retain' }),
    condition: ['helm', 'ControlPlanePatched'],
  },
  'istio-vault-ca: patch istiovaultcas.istiovaultca.io/status': { use: () => reconcile('tetrate') },
  'istio-vault-ca: list deployments.apps': atIstiod,
  'istio-vault-ca: watch deployments.apps': { together: 'watch' },
  'istio-vault-ca: list replicasets.apps': atIstiod,
  'istio-vault-ca: list pods': atIstiod,
  'istio-vault-ca: watch pods': { together: 'watch' },
  'istio-vault-ca: get configmaps': atControlPlane('tetrate'),
  'istio-vault-ca: create serviceaccounts/token istio-vault-ca': {
    use: () => applyOk(kube, scenes.login.resource),
    condition: ['login', 'VaultReady'],
  },
  'istio-vault-ca: create events.events.k8s.io': { use: drift },
  // the second of two equal Events
  'istio-vault-ca: patch events.events.k8s.io': {
    use: async () => {
      await restored();
      await drift();
      await restored();
      await drift();
    },
  },

  'istio-vault-ca-leader-election: create leases.coordination.k8s.io': { use: () => kube.request('DELETE', leasePath) },
  'istio-vault-ca-leader-election: get leases.coordination.k8s.io istio-vault-ca': {},
  'istio-vault-ca-leader-election: update leases.coordination.k8s.io istio-vault-ca': {},

  'istio-vault-ca-configmaps: list configmaps': { together: 'list' },
  'istio-vault-ca-configmaps: watch configmaps': { together: 'watch' },
  'istio-vault-ca-configmaps: create configmaps': {
    use: () => kube.request('DELETE', valuesPath),
    condition: ['helm', 'ControlPlanePatched'],
  },
  'istio-vault-ca-configmaps: patch configmaps': {
    use: () => kube.request('DELETE', valuesPath),
    condition: ['helm', 'ControlPlanePatched'],
  },
  // the fields are written now, and the ConfigMap that showed them is removed
  'istio-vault-ca-configmaps: delete configmaps': {
    use: () => respec('render', { controlPlane: { write: 'Patch' } }),
    condition: ['render', 'ControlPlanePatched'],
  },

  'istio-vault-ca-injector: list endpointslices.discovery.k8s.io': {
    use: async () => {
      const clientConfig = { service: { name: 'injector', namespace: 'default' }, url: null };
      await registerInjector(kube, {}, { clientConfig });
      await reconcile('tetrate');
    },
    undo: async () => {
      await unregisterInjector(kube);
      await registerInjector(kube);
    },
    condition: ['tetrate', 'ControlPlanePatched'],
    staysTrue: true,
  },

  'istio-vault-ca-trust-bundle: list configmaps mesh-root-cert': {
    use: () => applyOk(kube, scenes.named.resource),
    condition: ['named', 'RootReady'],
  },
  'istio-vault-ca-trust-bundle: get clustertrustbundles.certificates.k8s.io istio.io:istiod-ca:root-cert': {
    use: () => applyOk(kube, scenes.bundle.resource),
    condition: ['bundle', 'RootReady'],
  },

  'istio-vault-ca-ambient: list daemonsets.apps': {
    use: async () => {
      await applyOk(kube, scenes.ambient.resource);
      await provisioned('ambient');
      await annotate('ambient', { 'istiovaultca.io/rotate-root': 'now' });
    },
    condition: ['ambient', 'RootReady'],
  },
  'istio-vault-ca-ambient: list pods': { ...atIstiod, byBaseToo: true },

  'istio-vault-ca-logs: get pods/log': {
    use: () => replicas.status('istiod-1', hangingInit()),
    condition: ['tetrate', 'IstiodReady'],
  },

  'istio-vault-ca-secrets: get secrets istio-vault-ca-tls': {
    use: () => reconcile('tetrate'),
    condition: ['tetrate', 'VaultReady'],
  },
  'istio-vault-ca-secrets: get secrets istio-vault-ca-token': {
    use: () => applyOk(kube, scenes.token.resource),
    condition: ['token', 'VaultReady'],
  },
  'istio-vault-ca-secrets: get secrets istio-vault-ca-reviewer': {
    use: () => applyOk(kube, scenes.reviewer.resource),
    condition: ['reviewer', 'AccessReady'],
  },
  'istio-vault-ca-secrets: get secrets istio-vault-ca-approle': {
    use: () => {
      const appRole = { roleId: 'r', secretIdRef: { name: 'istio-vault-ca-approle' } };
      const auth = { method: 'AppRole', token: undefined, appRole };
      return applyOk(kube, merge(scenes.token.resource, { spec: { vault: { auth } } }));
    },
    undo: () => applyOk(kube, scenes.token.resource),
    condition: ['token', 'VaultReady'],
  },
  'istio-vault-ca-secrets: get secrets istio-vault-ca-signed': {
    use: () => applyOk(kube, scenes.signed.resource),
    condition: ['signed', 'IntermediateReady'],
  },

  'istio-vault-ca-tetrate: get controlplanes.install.tetrate.io': atControlPlane('tetrate'),
  'istio-vault-ca-tetrate: list controlplanes.install.tetrate.io': { together: 'list' },
  'istio-vault-ca-tetrate: watch controlplanes.install.tetrate.io': { together: 'watch' },
  'istio-vault-ca-tetrate: patch controlplanes.install.tetrate.io': {
    use: () => change(controlPlanePath, { spec: { components: { istio: { kubeSpec: { overlays: [] } } } } }),
    condition: ['tetrate', 'ControlPlanePatched'],
  },
  'istio-vault-ca-tetrate: list istiooperators.install.istio.io': atControlPlane('tetrate'),
  'istio-vault-ca-tetrate: watch istiooperators.install.istio.io': { together: 'watch' },

  'istio-vault-ca-istio-operator: get istiooperators.install.istio.io': atControlPlane('operator'),
  'istio-vault-ca-istio-operator: list istiooperators.install.istio.io': { together: 'list' },
  'istio-vault-ca-istio-operator: watch istiooperators.install.istio.io': { together: 'watch' },
  'istio-vault-ca-istio-operator: patch istiooperators.install.istio.io': {
    use: () => change(operatorPath, { spec: { values: { pilot: { env: null } } } }),
    condition: ['operator', 'ControlPlanePatched'],
  },

  'istio-vault-ca-sail: get istios.sailoperator.io': atControlPlane('sail'),
  'istio-vault-ca-sail: list istios.sailoperator.io': { together: 'list' },
  'istio-vault-ca-sail: watch istios.sailoperator.io': { together: 'watch' },
  'istio-vault-ca-sail: patch istios.sailoperator.io': {
    use: () => change(istioPath, { spec: { values: { pilot: { env: null } } } }),
    condition: ['sail', 'ControlPlanePatched'],
  },
  'istio-vault-ca-sail: list istiorevisions.sailoperator.io': atControlPlane('sail'),
  'istio-vault-ca-sail: watch istiorevisions.sailoperator.io': { together: 'watch' },
};

/** Every right, with its role. */
const all = bound.flatMap((role) =>
  role.rights.map((right) => ({ key: `${role.name}: ${formatRight(right)}`, role: role.name, right })),
);
const of = (fits: (one: Case) => boolean) =>
  all.filter(({ key }) => fits(cases[key] ?? {})).map((one) => [one.key, one] as const);

/** What names a right in the log: the operator's own words, or those of the API server. */
const words = (right: Right, byServer: boolean): string =>
  byServer
    ? `cannot ${right.verb} resource \\"${right.resource}\\" in API group \\"${right.group}\\"`
    : `lacks permission to ${formatRight({ ...right, name: undefined })}`;

const grantedBy = (role: string): string[] => {
  const component = componentOf(role);
  return component === undefined ? [] : [`deploy/components/${component}`];
};

it('every right in deploy has a case, and what is not bound to the operator is for people, or for accounts of namespaces', () => {
  expect(Object.keys(cases).sort()).toEqual(all.map(({ key }) => key).sort());
  expect(unbound.sort()).toEqual([
    'istio-vault-ca-administer',
    'istio-vault-ca-cert-manager',
    'istio-vault-ca-edit',
    'istio-vault-ca-view',
  ]);
});

describe('without a right', () => {
  beforeAll(async () => {
    await installComponent(kube, 'logs');
    await applyOk(kube, scenes.render.resource);
    const [leaf, root] = await Promise.all([issueLeaf(scenes.tetrate), servedBy(scenes.tetrate, 'pki')]);
    istiod = await playIstiod(leaf);
    replicas = new Replicas(scenes.tetrate, podTemplateOf((await kube.request('GET', controlPlanePath)).body as Json));
    await writeMeshRoot(kube, namespaceOf('tetrate'), root);
    await replicas.deploy(1);
    await replicas.pod('istiod-1', well());
    await waitForCondition(kube, namespaceOf('tetrate'), 'istioca', { type: 'Ready', status: 'True' });
    await provisioned('render');
  });

  it.each(of((one) => one.condition !== undefined))('a condition names it: %s', async (key, { role, right }) => {
    const { use, undo, condition, staysTrue, byBaseToo } = cases[key] ?? {};
    const [name, type] = condition ?? (['tetrate', 'Ready'] as const);
    try {
      await rights.without([right]);
      await use?.();
      await said(name, type, formatRight({ ...right, name: undefined }), ...(byBaseToo ? [] : grantedBy(role)));
      const { status } = conditionOf(await getResource(kube, namespaceOf(name), 'istioca'), type) ?? {};
      expect(status === 'True').toBe(staysTrue === true);
    } finally {
      await undo?.();
      await rights.restore();
    }
  });

  it.each(of((one) => (one.use !== undefined && one.condition === undefined) || Object.keys(one).length === 0))(
    'a line of the log names it: %s',
    async (key, { right }) => {
      try {
        await rights.without([right]);
        const from = logLength();
        await cases[key]?.use?.();
        const own = right.resource.startsWith('istiovaultcas');
        await logged(from, own ? words(right, false) : words(right, true));
      } finally {
        await rights.restore();
      }
    },
  );

  it('a deletion that cannot remove its finalizer names it too, and ends once it can', async () => {
    const right = all.find(({ key }) => key === 'istio-vault-ca: patch istiovaultcas.istiovaultca.io')?.right;
    await annotate('login', { 'istiovaultca.io/skip-cleanup': 'true' });
    await respec('login', { deletionPolicy: 'Delete' });
    await waitFor('the finalizer', async () => {
      const { metadata } = await getResource(kube, namespaceOf('login'), 'istioca');
      return (metadata as { finalizers?: string[] }).finalizers?.length === 1;
    });
    try {
      await rights.without(right ? [right] : []);
      await kube.request('DELETE', resourcePath(namespaceOf('login'), 'istioca'));
      await said('login', 'Ready', `lacks permission to patch istiovaultcas.istiovaultca.io in namespace rights-login`);
    } finally {
      await rights.restore();
    }
    await waitFor('the resource to be gone', async () => {
      return (await getResource(kube, namespaceOf('login'), 'istioca')).metadata.uid === undefined;
    });
  });

  describe.each(['watch', 'list'] as const)('to %s', (verb) => {
    let from = 0;
    const these = of((one) => one.together === verb);
    beforeAll(async () => {
      await rights.without(these.map(([, { right }]) => right));
      from = logLength();
    });
    afterAll(() => rights.restore());

    it.each(these)('a line of the log names it: %s', async (_, { role, right }) => {
      await logged(from, 'cannot watch', words(right, false), ...grantedBy(role));
    });
  });
});

describe('of the ServiceAccount of a namespace, in whose name cert-manager is asked', () => {
  const verbsOf = async (): Promise<string[]> => {
    const [role] = await manifest('deploy/components/cert-manager/rights/clusterrole.yaml');
    return (role?.['rules'] as [{ verbs: string[] }])[0].verbs;
  };

  it('without a right the condition names the account, the right and the component', async () => {
    await serveCrds(kube, [certificateRequestCrd]);
    await applyOk(kube, scenes.asked.resource);
    const namespace = namespaceOf('asked');
    const verbs = await verbsOf();
    for (const verb of verbs) {
      await grantRequests(kube, namespace, ...verbs.filter((one) => one !== verb));
      await reconcile('asked');
      const what = `ServiceAccount ${namespace}/istio-vault-ca lacks permission to ${verb} certificaterequests.cert-manager.io`;
      for (const type of ['Ready', 'IntermediateReady'])
        await said('asked', type, what, 'deploy/components/cert-manager');
      expect(await requestsOf(kube, namespace)).toEqual([]);
    }
    await grantRequests(kube, namespace, ...verbs);
    await reconcile('asked');
    await waitFor('the CertificateRequest', async () => (await requestsOf(kube, namespace)).length === 1);
  });

  it('without the account the condition says so', async () => {
    await kube.request('DELETE', `/api/v1/namespaces/${namespaceOf('asked')}/serviceaccounts/istio-vault-ca`);
    await reconcile('asked');
    await said('asked', 'Ready', `There is no ServiceAccount ${namespaceOf('asked')}/istio-vault-ca`);
  });
});

describe('with --namespaces', () => {
  const namespace = 'rights-confined';
  let scene: Scene;

  beforeAll(async () => {
    scene = await makeScene(kube, vault, { namespace });
    for (const name of ['', '-tetrate', '-istio-operator', '-configmaps', '-secrets', '-logs'])
      await kube.request('DELETE', `${bindings}/istio-vault-ca${name}`);
    const dir = makeTemporaryDir('confined');
    const resources = ['access', 'access-tetrate', 'access-secrets'].map((name) =>
      relative(dir, join(components, 'namespaced', name)),
    );
    const kustomization = {
      apiVersion: 'kustomize.config.k8s.io/v1beta1',
      kind: 'Kustomization',
      namespace,
      resources,
    };
    writeFileSync(join(dir, 'kustomization.yaml'), dumpYaml(kustomization));
    for (const object of loadAllYaml(await kubectl(kube, 'kustomize', dir)) as Json[]) await applyOk(kube, object);
    await restart([`--namespaces=${namespace}`, '--leader-elect=false']);
  });

  it('Roles of the namespace are enough, and the message names the folder that grants what is missing', async () => {
    await applyOk(kube, scene.resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    const spec = { controlPlane: { kind: 'IstioOperator', name: 'istio' }, policy: { name: 'other' } };
    await applyOk(kube, merge(scene.resource, { metadata: { name: 'other' }, spec }));
    const resource = await waitForCondition(kube, namespace, 'other', {
      type: 'ControlPlanePatched',
      reason: 'Forbidden',
    });
    const message = conditionOf(resource, 'ControlPlanePatched')?.message;
    expect(message).toContain(`get istiooperators.install.istio.io in namespace ${namespace}`);
    expect(message).toContain('deploy/components/namespaced/access-istio-operator');
  });
});
