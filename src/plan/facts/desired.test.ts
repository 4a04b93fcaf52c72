import { describe, expect, it } from '@jest/globals';
import { desiredOf, emptyWorld, minimalSpec } from '../../../test/unit/model.ts';
import { maxWorkloadCertTtlMs, renewBeforeMs } from './desired.ts';
import { desiredAuthConfig, desiredRole, policyText } from '../vault/access.ts';
import { istiodFields } from '../control-plane/istiod-fields.ts';
import { caFiles, fileSource, kvDataPath } from './ca-files.ts';

const vault = { address: 'https://vault.vault.svc:8200', auth: { kubernetes: { role: 'istio-vault-ca' } } };
const sources = (source: string, version: number) => ({ delivery: { source }, keyStore: { version } });
const mark = '# istio-vault-ca cluster=c-1 ns=istio-system name=istioca uid=u-1 origin=made';
const reads = (...paths: string[]) =>
  `${[mark, ...paths.map((p) => `path "${p}" {\n  capabilities = ["read"]\n}`)].join('\n')}\n`;

/** Expected policies and templates, written by hand from the specification of the delivery. */
const golden = [
  {
    source: 'Bundle',
    version: 2,
    policy: reads('kv/data/istioca'),
    templates: {
      'ca-cert.pem': '{{- with secret "kv/data/istioca" -}}{{ index .Data.data "ca-cert.pem" }}{{- end -}}',
      'ca-key.pem': '{{- with secret "kv/data/istioca" -}}{{ index .Data.data "ca-key.pem" }}{{- end -}}',
      'cert-chain.pem': '{{- with secret "kv/data/istioca" -}}{{ index .Data.data "cert-chain.pem" }}{{- end -}}',
      'root-cert.pem': '{{- with secret "kv/data/istioca" -}}{{ index .Data.data "root-cert.pem" }}{{- end -}}',
    },
  },
  {
    source: 'Bundle',
    version: 1,
    policy: reads('kv/istioca'),
    templates: {
      'ca-cert.pem': '{{- with secret "kv/istioca" -}}{{ index .Data "ca-cert.pem" }}{{- end -}}',
      'ca-key.pem': '{{- with secret "kv/istioca" -}}{{ index .Data "ca-key.pem" }}{{- end -}}',
      'cert-chain.pem': '{{- with secret "kv/istioca" -}}{{ index .Data "cert-chain.pem" }}{{- end -}}',
      'root-cert.pem': '{{- with secret "kv/istioca" -}}{{ index .Data "root-cert.pem" }}{{- end -}}',
    },
  },
  {
    source: 'PKI',
    version: 2,
    policy: reads('istioca/cert/ca', 'kv/data/istioca', 'istioca/cert/ca_chain', 'pki/cert/ca'),
    templates: {
      'ca-cert.pem': '{{- with secret "istioca/cert/ca" -}}{{ .Data.certificate }}{{ "\\n" }}{{- end -}}',
      'ca-key.pem': '{{- with secret "kv/data/istioca" -}}{{ index .Data.data "ca-key.pem" }}{{- end -}}',
      'cert-chain.pem': '{{- with secret "istioca/cert/ca_chain" -}}{{ .Data.certificate }}{{ "\\n" }}{{- end -}}',
      'root-cert.pem': '{{- with secret "pki/cert/ca" -}}{{ .Data.certificate }}{{ "\\n" }}{{- end -}}',
    },
  },
  {
    source: 'PKI',
    version: 1,
    policy: reads('istioca/cert/ca', 'kv/istioca', 'istioca/cert/ca_chain', 'pki/cert/ca'),
    templates: {
      'ca-cert.pem': '{{- with secret "istioca/cert/ca" -}}{{ .Data.certificate }}{{ "\\n" }}{{- end -}}',
      'ca-key.pem': '{{- with secret "kv/istioca" -}}{{ index .Data "ca-key.pem" }}{{- end -}}',
      'cert-chain.pem': '{{- with secret "istioca/cert/ca_chain" -}}{{ .Data.certificate }}{{ "\\n" }}{{- end -}}',
      'root-cert.pem': '{{- with secret "pki/cert/ca" -}}{{ .Data.certificate }}{{ "\\n" }}{{- end -}}',
    },
  },
];

describe.each(golden)('$source with KV $version', ({ source, version, policy, templates }) => {
  const d = desiredOf(sources(source, version));
  const { podAnnotations } = istiodFields(d.spec, undefined);

  it('lets the agent read exactly what the templates name', () => {
    expect(policyText(d)).toBe(policy);
  });

  it('renders the four files', () => {
    expect(Object.fromEntries(caFiles.map((file) => [file, fileSource(d.spec, file).template]))).toEqual(templates);
    for (const [file, template] of Object.entries(templates)) {
      expect(podAnnotations[`vault.hashicorp.com/agent-inject-template-${file}`]).toBe(template);
      const path = podAnnotations[`vault.hashicorp.com/agent-inject-secret-${file}`] ?? 'none';
      expect(template).toContain(`with secret "${path}"`);
      expect(policy).toContain(`path "${path}" {`);
    }
  });
});

describe("the fields of istiod's pod", () => {
  const names = (fields: { podAnnotations: Record<string, string> }) =>
    Object.fromEntries(
      Object.entries(fields.podAnnotations)
        .filter(([name]) => !name.includes('agent-inject-'))
        .map(([name, value]) => [name.replace('vault.hashicorp.com/', ''), value]),
    );
  const always = {
    'agent-inject': 'true',
    role: 'istiod',
    'auth-path': 'auth/kubernetes',
    service: 'https://vault.vault.svc:8200',
    'secret-volume-path': '/vault/secrets',
    'template-static-secret-render-interval': '1m',
  };
  const ca = {
    configMap: { caConfigMapRef: { name: 'vault-ca' } },
    secret: { caSecretRef: { name: 'vault-ca', key: 'tls.ca' } },
  };

  it.each<{ name: string; spec: Record<string, unknown>; expected: Record<string, string> }>([
    { name: 'the smallest spec', spec: {}, expected: always },
    {
      name: 'a Vault namespace',
      spec: { vault: { ...vault, namespace: 'team/a' } },
      expected: { ...always, namespace: 'team/a' },
    },
    {
      name: 'another address for the agent',
      spec: { vault: { ...vault, injectorAddress: 'https://vault.example/' } },
      expected: { ...always, service: 'https://vault.example' },
    },
    {
      name: 'a CA in a Secret and a server name',
      spec: { vault: { ...vault, tls: { ...ca.secret, serverName: 'vault.example' } } },
      expected: {
        ...always,
        'tls-secret': 'vault-ca',
        'ca-cert': '/vault/tls/tls.ca',
        'tls-server-name': 'vault.example',
      },
    },
    {
      name: 'a client certificate, with the CA in its Secret',
      spec: { vault: { ...vault, tls: { clientCertSecretRef: { name: 'vault-client' } } } },
      expected: {
        ...always,
        'tls-secret': 'vault-client',
        'ca-cert': '/vault/tls/ca.crt',
        'client-cert': '/vault/tls/tls.crt',
        'client-key': '/vault/tls/tls.key',
      },
    },
    {
      name: 'a client certificate, with the CA under another key',
      spec: { vault: { ...vault, tls: { ...ca.secret, clientCertSecretRef: { name: 'vault-ca' } } } },
      expected: {
        ...always,
        'tls-secret': 'vault-ca',
        'ca-cert': '/vault/tls/tls.ca',
        'client-cert': '/vault/tls/tls.crt',
        'client-key': '/vault/tls/tls.key',
      },
    },
    {
      name: 'a CA in a ConfigMap, which the agent cannot mount',
      spec: { vault: { ...vault, tls: ca.configMap } },
      expected: always,
    },
    {
      name: 'an audience',
      spec: { kubernetesAuth: { audience: 'istio-ca' } },
      expected: { ...always, 'agent-service-account-token-volume-name': 'istio-token' },
    },
    {
      name: 'other names',
      spec: {
        kubernetesAuth: { mount: 'k8s/one', role: 'other' },
        delivery: { directory: '/etc/cacerts-vault', refreshInterval: '5m' },
      },
      expected: {
        ...always,
        role: 'other',
        'auth-path': 'auth/k8s/one',
        'secret-volume-path': '/etc/cacerts-vault',
        'template-static-secret-render-interval': '5m',
      },
    },
    {
      name: 'further annotations',
      spec: { delivery: { annotations: { 'vault.hashicorp.com/agent-limits-cpu': '1' } } },
      expected: { ...always, 'agent-limits-cpu': '1' },
    },
  ])('$name', ({ spec, expected }) => {
    const fields = istiodFields(minimalSpec(spec), undefined);
    expect(names(fields)).toEqual(expected);
    expect(fields.env).toEqual({ ROOT_CA_DIR: expected['secret-volume-path'] });
  });

  it('a digest of the CA rolls istiod, unless rollout is Never', () => {
    const digestOf = (spec: Record<string, unknown>, digest: string | undefined) =>
      istiodFields(minimalSpec(spec), digest).podAnnotations['istiovaultca.io/ca-digest'];
    expect(digestOf({}, 'abc')).toBe('abc');
    expect(digestOf({}, undefined)).toBeUndefined();
    expect(digestOf({ rollout: 'Never' }, 'abc')).toBeUndefined();
  });
});

describe("the agent's role", () => {
  const role = (spec: Record<string, unknown>, found: string[] | 'unreadable', current?: string[]) => {
    const d = desiredOf(spec);
    const { kubernetes } = emptyWorld();
    const before = current && {
      ...desiredRole(d, kubernetes, undefined),
      serviceAccountNames: current,
      otherFields: [],
    };
    return desiredRole(d, { ...kubernetes, istiodServiceAccounts: found }, before);
  };
  const revision = { controlPlane: { kind: 'TetrateControlPlane', name: 'controlplane', revision: 'stable' } };

  it('reads one policy, in this namespace only', () => {
    expect(role({}, ['istiod'])).toEqual({
      serviceAccountNames: ['istiod'],
      serviceAccountNamespaces: ['istio-system'],
      policies: ['istioca'],
      tokenTtl: 86_400,
      audience: '',
    });
    expect(role({ kubernetesAuth: { audience: 'istio-ca', tokenTTL: '1h30m' } }, ['istiod'])).toMatchObject({
      tokenTtl: 5400,
      audience: 'istio-ca',
    });
  });

  it.each<{
    reason: string;
    spec: Record<string, unknown>;
    found: string[] | 'unreadable';
    current?: string[];
    names: string[];
  }>([
    { reason: 'those of every Deployment, each once', spec: {}, found: ['b', 'a', 'b'], names: ['a', 'b'] },
    { reason: 'no istiod yet', spec: {}, found: [], names: ['istiod', 'istiod-service-account'] },
    {
      reason: 'no istiod yet, a revision',
      spec: revision,
      found: [],
      names: ['istiod-service-account', 'istiod-stable'],
    },
    {
      reason: 'no istiod yet, an Istio of the Sail operator',
      spec: { controlPlane: { kind: 'Sail', name: 'mesh' } },
      found: [],
      names: ['istiod', 'istiod-mesh', 'istiod-service-account'],
    },
    {
      reason: 'no istiod yet, an Istio of the Sail operator with the name of the default revision',
      spec: { controlPlane: { kind: 'Sail', name: 'default' } },
      found: [],
      names: ['istiod', 'istiod-service-account'],
    },
    { reason: 'unreadable: as it is', spec: {}, found: 'unreadable', current: ['own'], names: ['own'] },
    {
      reason: 'unreadable and no role yet',
      spec: {},
      found: 'unreadable',
      names: ['istiod', 'istiod-service-account'],
    },
    { reason: 'the spec wins', spec: { kubernetesAuth: { serviceAccountNames: ['x'] } }, found: ['a'], names: ['x'] },
    { reason: 'istiod went: the role is narrowed again', spec: {}, found: ['a'], current: ['a', 'b'], names: ['a'] },
  ])('$reason', ({ spec, found, current, names }) => {
    expect(role(spec, found, current).serviceAccountNames).toEqual(names);
  });
});

describe('effective values', () => {
  it('of what is issued', () => {
    expect(desiredOf().root).toEqual({
      commonName: 'Istio Root CA',
      organization: '',
      ttl: 315_360_000,
      keyType: 'rsa',
      keyBits: 4096,
    });
    expect(desiredOf().intermediate).toEqual({
      source: 'Issue',
      importRef: '',
      commonName: 'Istio Intermediate CA',
      organization: '',
      ttl: 157_680_000,
      maxPathLength: 0,
      keyType: 'rsa',
      keyBits: 2048,
    });
  });

  it.each([
    { key: { type: 'ec' }, root: 256, intermediate: 256 },
    { key: { type: 'ec', bits: 384 }, root: 384, intermediate: 384 },
    { key: { type: 'rsa', bits: 3072 }, root: 3072, intermediate: 3072 },
  ])('of the key $key', ({ key, root, intermediate }) => {
    const d = desiredOf({ root: { key }, intermediate: { key } });
    expect([d.root.keyBits, d.intermediate.keyBits]).toEqual([root, intermediate]);
  });

  it('equal durations written in another unit are the same spec', () => {
    expect(desiredOf({ root: { ttl: '315360000s' } }).root).toEqual(desiredOf().root);
  });

  it('KV 2 puts data/ between mount and path', () => {
    const at = (version: number) => minimalSpec({ keyStore: { mount: 'a/b', path: 'c/d', version } });
    expect(kvDataPath(at(2), '-state')).toBe('a/b/data/c/d-state');
    expect(kvDataPath(at(1), '-staging')).toBe('a/b/c/d-staging');
  });

  const hour = 3_600_000;
  it.each([
    { reason: 'a third of its life', spec: {}, life: 43_800 * hour, istiod: 2160 * hour, before: 14_600 * hour },
    {
      reason: 'never less than what istiod allows',
      spec: {},
      life: 5000 * hour,
      istiod: 2160 * hour,
      before: 2160 * hour,
    },
    {
      reason: 'a third, while istiod is not there to tell',
      spec: {},
      life: 5000 * hour,
      istiod: 'unknown',
      before: (5000 * hour) / 3,
    },
    {
      reason: 'half of its life, where that is too short',
      spec: { ttl: '300h' },
      life: 300 * hour,
      istiod: 2160 * hour,
      before: 150 * hour,
    },
    {
      reason: 'at once, where the next one has the room',
      spec: {},
      life: 300 * hour,
      istiod: 2160 * hour,
      before: 2160 * hour,
    },
    { reason: "istiod's own setting", spec: {}, life: 90 * hour, istiod: 24 * hour, before: 30 * hour },
    {
      reason: 'as asked',
      spec: { renewBefore: '3000h' },
      life: 43_800 * hour,
      istiod: 2160 * hour,
      before: 3000 * hour,
    },
    {
      reason: 'asked for less than the longest workload certificate',
      spec: { renewBefore: '1h', maxWorkloadCertTTL: '48h' },
      life: 43_800 * hour,
      istiod: 24 * hour,
      before: 48 * hour,
    },
  ] as const)('renewed before its end: $reason', ({ spec, life, istiod, before }) => {
    expect(renewBeforeMs(minimalSpec({ intermediate: spec }), life, istiod)).toBe(before);
  });

  it('the longest workload certificate is what the spec says, before istiod', () => {
    const spec = minimalSpec({ intermediate: { maxWorkloadCertTTL: '1h' } });
    expect([maxWorkloadCertTtlMs(spec, 2 * hour), maxWorkloadCertTtlMs(spec, 'unknown')]).toEqual([hour, hour]);
    expect(maxWorkloadCertTtlMs(minimalSpec(), 'unknown')).toBe('unknown');
  });

  it.each([
    { tokenReviewer: { mode: 'VaultLocal' }, local: false, jwt: false },
    { tokenReviewer: { mode: 'ClientToken' }, local: true, jwt: false },
    { tokenReviewer: { mode: 'Secret', secretRef: { name: 's' } }, local: true, jwt: true },
  ])('the auth mount with $tokenReviewer.mode', ({ tokenReviewer, local, jwt }) => {
    const d = desiredOf({ kubernetesAuth: { config: { tokenReviewer } } });
    expect(desiredAuthConfig(d, 'PEM\n')).toEqual({
      host: 'https://kubernetes.default.svc',
      caCert: 'PEM',
      disableLocalCaJwt: local,
      reviewerJwtSet: jwt,
      otherFields: [],
    });
  });
});
