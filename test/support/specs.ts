/** Specs that satisfy the schema, to test the CEL rules as evaluated by the API server and by the commands. */
import fc from 'fast-check';
import { merge, type Json } from './json.ts';

export const smallestSpec: Json = {
  vault: {
    address: 'https://vault.vault.svc:8200',
    auth: { method: 'Kubernetes', kubernetes: { role: 'istio-vault-ca' } },
  },
  controlPlane: { kind: 'TetrateControlPlane', name: 'controlplane' },
};

const othersStore = { keyStore: { manage: false }, intermediate: { manage: false } };
const secretRef = { name: 'a' };
const external = { signed: { configMapRef: { name: 'a' } } };
const annotation = (name: string, value: string): Json => ({ delivery: { annotations: { [name]: value } } });

const auditOption = (name: string, value: string): Json => ({ audit: { path: 'file', options: { [name]: value } } });

/** Specs that violate one rule each: the path that the rule reports, and the fields merged over the smallest spec. */
export const breaking: [string, Json][] = [
  ['spec.vault.tls', { vault: { tls: { caSecretRef: { name: 'a' }, caConfigMapRef: { name: 'b' } } } }],
  ['spec.vault.auth', { vault: { auth: { method: 'AppRole' } } }],
  ['spec.vault.auth', { vault: { auth: { token: { secretRef: { name: 'a' } } } } }],
  ['spec.vault.auth', { vault: { auth: { kubernetes: undefined } } }],
  ['spec.root.key.bits', { root: { key: { type: 'ec', bits: 2048 } } }],
  ['spec.intermediate.key.bits', { intermediate: { key: { bits: 256 } } }],
  ['spec.root.existing', { root: { existing: {} } }],
  ['spec.root.external', { root: { external: {} } }],
  ['spec.root.external', { root: { source: 'External' } }],
  [
    'spec.root.external',
    { root: { source: 'External', external: { signed: { configMapRef: { name: 'a' }, secretRef } } } },
  ],
  [
    'spec.root.external',
    { root: { source: 'External', external: { signed: {}, certManagerIssuerRef: { name: 'corp' } } } },
  ],
  ['spec.delivery.source', { root: { source: 'External', external }, delivery: { source: 'PKI' } }],
  [
    'spec.delivery.source',
    { intermediate: { source: 'Import', importRef: { secretRef } }, delivery: { source: 'PKI' } },
  ],
  ['spec.intermediate.importRef', { intermediate: { source: 'Import' } }],
  ['spec.keyStore.path', { keyStore: { path: 'istioca-state' } }],
  ['spec.delivery.directory', { delivery: { directory: '/etc/cacerts' } }],
  ['spec.delivery.annotations', { delivery: { annotations: { 'sidecar.istio.io/inject': 'false' } } }],
  ['spec.delivery.annotations', annotation('vault.hashicorp.com/role', 'a')],
  ['spec.delivery.annotations', annotation('vault.hashicorp.com/log-level', 'all')],
  ['spec.audit.options', auditOption('log_raw', 'true')],
  ['spec.audit.options', auditOption('file_path', 'discard')],
  ['spec.audit.type', { audit: { path: 'file', type: 'socket' } }],
  ['spec.delivery.refreshInterval', { delivery: { refreshInterval: '500ms' } }],
  ['spec.delivery.crl', { delivery: { crl: true, source: 'PKI' } }],
  ['spec.policy.name', { policy: { name: 'root' } }],
  ['spec.kubernetesAuth.config.tokenReviewer.secretRef', { kubernetesAuth: { config: { tokenReviewer: { mode: 'Secret' } } } }], // prettier-ignore
  ['spec.kubernetesAuth.config.tokenReviewer.mode', { kubernetesAuth: { audience: 'istio-ca', config: { tokenReviewer: { mode: 'ClientToken' } } } }], // prettier-ignore
  ['spec.intermediate.ttl', { root: { ttl: '8760h' } }],
  ['spec.intermediate.ttl', { intermediate: { ttl: '24h', maxWorkloadCertTTL: '12h' } }],
  ['spec.intermediate.renewBefore', { intermediate: { renewBefore: '43800h' } }],
  ['spec', { root: { mount: 'pki' }, intermediate: { mount: 'pki/below' } }],
  ['spec.audit', { vault: { namespace: 'team' }, audit: { path: 'file' } }],
  ['spec.keyStore.manage', { keyStore: { manage: false } }],
  ['spec.kubernetesAuth.config.manage', { kubernetesAuth: { manage: false, config: { manage: true } } }],
  ['spec.adopt', { ...othersStore, adopt: true }],
  ['spec.kubernetesAuth.config.manage', { ...othersStore, kubernetesAuth: { config: { manage: true } } }],
  ['spec.kubernetesAuth.manage', { ...othersStore, policy: { manage: false } }],
  // at the boundary of a rule
  ['spec.root.key.bits', { root: { key: { type: 'rsa', bits: 384 } } }],
  ['spec.keyStore.path', { keyStore: { path: 'a/b-staging' } }],
  ['spec.delivery.annotations', annotation('vault.hashicorp.com/log-level\n', 'info')],
  ['spec.delivery.annotations', annotation('vault.hashicorp.com/', 'a')],
  ['spec.delivery.annotations', annotation('constructor', 'a')],
  ['spec.delivery.annotations', annotation('vault.hashicorp.com/client-timeout', '301s')],
  ['spec.delivery.annotations', annotation('vault.hashicorp.com/client-timeout', '4s')],
  ['spec.delivery.annotations', annotation('vault.hashicorp.com/client-max-retries', '11')],
  ['spec.delivery.annotations', annotation('vault.hashicorp.com/agent-limits-mem', '64Mi\n')],
  ['spec.delivery.annotations', annotation('vault.hashicorp.com/agent-set-security-context', 'true')],
  ['spec.delivery.annotations', annotation('vault.hashicorp.com/ca-cert', '/vault/tls/../ca.crt')],
  ['spec.delivery.annotations', annotation('vault.hashicorp.com/agent-init-first', 'yes')],
  ['spec.delivery.annotations', annotation('vault.hashicorp.com/log-format', 'text')],
  ['spec.delivery.annotations', annotation('vault.hashicorp.com/tls-secret', 'A/b')],
  ['spec.audit.options', auditOption('format', 'text')],
  ['spec.audit.options', auditOption('hmac_accessor', 'false')],
  ['spec.audit.options', auditOption('mode', '0666')],
  ['spec.audit.options', auditOption('file_path', '/vault/../etc/x')],
  ['spec.delivery.refreshInterval', { delivery: { refreshInterval: '999ms' } }],
  ['spec.policy.name', { policy: { name: 'default' } }],
  ['spec.kubernetesAuth.config.tokenReviewer.secretRef', { kubernetesAuth: { config: { tokenReviewer: { secretRef } } } }], // prettier-ignore
  ['spec.intermediate.ttl', { root: { ttl: '100h' }, intermediate: { ttl: '100h1ms' } }],
  ['spec.intermediate.ttl', { intermediate: { ttl: '24h', maxWorkloadCertTTL: '720m' } }],
  ['spec.intermediate.renewBefore', { intermediate: { ttl: '60m', renewBefore: '1h' } }],
  ['spec', { keyStore: { mount: 'istioca' } }],
  // longer than Go's duration, 63 bits of nanoseconds: the rule cannot be evaluated, so the path of the rule is reported
  ['spec', { root: { ttl: '2562048h' } }],
  ['spec.delivery', { delivery: { refreshInterval: '999999999h' } }],
];

/** Specs that violate no rule. */
export const obeying: Json[] = [
  {},
  { vault: { tls: {} } },
  { vault: { tls: { caSecretRef: secretRef } } },
  { vault: { auth: { method: 'AppRole', kubernetes: undefined, appRole: { roleId: 'r', secretIdRef: secretRef } } } },
  { vault: { auth: { method: 'JWT', kubernetes: undefined, jwt: { role: 'r' } } } },
  { root: { key: { type: 'ec', bits: 384 } }, intermediate: { key: { type: 'rsa', bits: 4096 } } },
  { root: { source: 'Existing', existing: {} } },
  { root: { source: 'External', external } },
  { root: { source: 'External', external: { certManagerIssuerRef: { name: 'corp' } } } },
  { root: { source: 'External', external: { ...external, certManagerIssuerRef: { name: 'corp' } } } },
  { intermediate: { source: 'Import', importRef: { secretRef } } },
  { intermediate: { importRef: { secretRef } } },
  { keyStore: { path: 'istioca-state/x' } },
  { keyStore: { version: 1, path: 'state' } },
  { keyStore: { manage: false }, intermediate: { manage: false } },
  { policy: { manage: false }, kubernetesAuth: { manage: false } },
  { intermediate: { manage: false } },
  { root: { manage: false } },
  { root: { manage: false }, intermediate: { manage: false }, adopt: true },
  { ...othersStore, policy: { manage: false }, kubernetesAuth: { manage: false } },
  { delivery: { directory: '/etc/cacerts/below' } },
  { delivery: { crl: true } },
  { delivery: { crl: false, source: 'PKI' } },
  annotation('vault.hashicorp.com/agent-requests-ephemeral', '1.5Gi'),
  annotation('vault.hashicorp.com/agent-limits-cpu', '250m'),
  annotation('vault.hashicorp.com/client-timeout', '300s'),
  annotation('vault.hashicorp.com/client-max-retries', '10'),
  annotation('vault.hashicorp.com/tls-secret', 'vault.ca'),
  annotation('vault.hashicorp.com/ca-cert', '/vault/tls/ca.crt'),
  auditOption('file_path', '/vault/logs/audit-1.log'),
  { audit: { path: 'file', options: { format: 'jsonx', mode: '0640', hmac_accessor: 'true' } } },
  { delivery: { refreshInterval: '1000ms' } },
  { delivery: { refreshInterval: '2562047h' } },
  { policy: { name: 'roots' } },
  { kubernetesAuth: { config: { tokenReviewer: { mode: 'Secret', secretRef } } } },
  { kubernetesAuth: { config: { tokenReviewer: { mode: 'ClientToken' } } } },
  { kubernetesAuth: { audience: 'istio-ca' } },
  { root: { ttl: '100h' }, intermediate: { ttl: '6000m' } },
  { intermediate: { ttl: '24h1ms', maxWorkloadCertTTL: '12h' } },
  { intermediate: { ttl: '60m', renewBefore: '59m59s999ms' } },
  { root: { mount: 'pki' }, intermediate: { mount: 'pki2' }, keyStore: { mount: 'below/pki' } },
  // a duration that no rule compares can be longer than Go's maximum
  { kubernetesAuth: { tokenTTL: '999999999h' } },
  { root: { source: 'External', external, ttl: '999999999h' }, intermediate: { ttl: '2562048h' } },
];

/** Specs that change one immutable field of the smallest spec each. */
export const changing: [string, Json][] = [
  ['spec.vault.namespace', { vault: { namespace: 'team' } }],
  ['spec.root.source', { root: { source: 'Existing' } }],
  ['spec.root.mount', { root: { mount: 'other' } }],
  ['spec.intermediate.mount', { intermediate: { mount: 'other' } }],
  ['spec.keyStore.manage', { keyStore: { manage: false }, intermediate: { manage: false } }],
  ['spec.keyStore.mount', { keyStore: { mount: 'other' } }],
  ['spec.keyStore.path', { keyStore: { path: 'other' } }],
  ['spec.keyStore.version', { keyStore: { version: 1 } }],
  ['spec.policy.name', { policy: { name: 'other' } }],
  ['spec.kubernetesAuth.mount', { kubernetesAuth: { mount: 'other' } }],
  ['spec.kubernetesAuth.role', { kubernetesAuth: { role: 'other' } }],
  ['spec.controlPlane.kind', { controlPlane: { kind: 'Sail' } }],
  ['spec.controlPlane.name', { controlPlane: { name: 'other' } }],
  ['spec.controlPlane.revision', { controlPlane: { revision: 'one' } }],
];

/** A value that is usually the default. */
const seldom = (...values: unknown[]): fc.Arbitrary<unknown> =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: fc.constantFrom(...values) });

const durations = ['0s', '999ms', '1s', '1000ms', '12h', '720m', '24h', '24h1ms', '43800h', '87600h', '2562047h', '2562048h', '999999999h']; // prettier-ignore
const mounts = ['pki', 'pki/a', 'pki2', 'kv', 'kv/a', 'istioca', 'istioca/a/b'];
const key = fc.record({ type: seldom('rsa', 'ec'), bits: seldom(256, 384, 2048, 3072, 4096) });
const login = { role: 'r' };

/** Specs that satisfy the schema, over all fields that a rule reads. */
export const specs: fc.Arbitrary<Json> = fc
  .record({
    vault: fc.record({
      namespace: seldom('team'),
      tls: seldom({}, { caSecretRef: secretRef }, { caConfigMapRef: secretRef, caSecretRef: secretRef }),
      auth: fc.record({
        method: seldom('Kubernetes', 'AppRole', 'Token', 'JWT'),
        appRole: seldom({ roleId: 'r', secretIdRef: secretRef }),
        token: seldom({ secretRef }),
        jwt: seldom(login),
      }),
    }),
    root: fc.record({
      source: seldom('Existing', 'External'),
      mount: seldom(...mounts),
      ttl: seldom(...durations),
      key,
      existing: seldom({}, { issuerRef: 'a' }),
      external: seldom(
        {},
        { signed: {} },
        external,
        { certManagerIssuerRef: { name: 'a' } },
        { ...external, certManagerIssuerRef: { name: 'a' } },
      ),
    }),
    intermediate: fc.record({
      source: seldom('Import'),
      manage: seldom(false),
      mount: seldom(...mounts),
      ttl: seldom(...durations),
      key,
      renewBefore: seldom(...durations),
      maxWorkloadCertTTL: seldom(...durations),
      importRef: seldom({ secretRef }),
    }),
    keyStore: fc.record({
      manage: seldom(false),
      mount: seldom(...mounts),
      path: seldom('a-state', 'a-staging', 'state', 'a-state/b'),
      version: seldom(1),
    }),
    delivery: fc.record({
      directory: seldom('/etc/cacerts', '/etc'),
      refreshInterval: seldom(...durations),
      crl: seldom(true),
      annotations: fc.oneof(
        { weight: 3, arbitrary: fc.constant(undefined) },
        {
          weight: 1,
          arbitrary: fc.dictionary(
            fc.oneof(
              fc.constantFrom('sidecar.istio.io/inject', 'vault.hashicorp.com/role'),
              fc
                .constantFrom('log-level', 'client-timeout', 'client-max-retries', 'agent-limits-cpu', 'ca-cert')
                .map((name) => `vault.hashicorp.com/${name}`),
            ),
            fc.oneof(fc.constantFrom('info', '5s', '10', '1', '/vault/tls/a', '\r'), fc.string()),
            { maxKeys: 3 },
          ),
        },
      ),
    }),
    policy: fc.record({ name: seldom('root', 'default', 'other') }),
    kubernetesAuth: fc.record({
      role: seldom('other'),
      audience: seldom('istio-ca'),
      config: fc.record({
        tokenReviewer: fc.record({ mode: seldom('Secret', 'ClientToken'), secretRef: seldom(secretRef) }),
      }),
    }),
    controlPlane: fc.record({ kind: seldom('Sail'), name: seldom('other'), revision: seldom('one') }),
  })
  // without what is undefined: a spec is JSON
  .map((over) => merge(smallestSpec, JSON.parse(JSON.stringify(over)) as Json));
