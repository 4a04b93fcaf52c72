import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { customResourceDefinition } from './crd.ts';
import { formatGoDuration, parseAnyGoDuration, parseGoDuration } from './duration.ts';
import { specSchema } from './schema.ts';

type Json = Record<string, unknown>;
const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const minimal: Json = {
  vault: {
    address: 'https://vault.vault.svc:8200',
    auth: { method: 'Kubernetes', kubernetes: { role: 'istio-vault-ca' } },
  },
  controlPlane: { kind: 'TetrateControlPlane', name: 'controlplane' },
};
const login = { mount: 'kubernetes', role: 'r', serviceAccountName: 'istio-vault-ca', audiences: ['vault'] };

/** The spec of the minimal manifest with a value at a path such as `vault.auth.kubernetes.role`; `x[]` is the item of a list. */
function specWith(path: string, value: unknown): unknown {
  const [key = '', ...rest] = path.split('.');
  const put = (at: unknown, name: string, tail: string[]): Json => {
    const base = isObject(at) ? at : {};
    const [next, ...others] = tail;
    const inner = next === undefined ? value : put(base[name.replace('[]', '')], next, others);
    return name.endsWith('[]') ? { ...base, [name.slice(0, -2)]: [inner] } : { ...base, [name]: inner };
  };
  return put(minimal, key, rest);
}

describe('defaults', () => {
  it('the smallest manifest gets exactly the defaults of the contract', () => {
    expect(specSchema.parse(minimal)).toEqual({
      mode: 'Enforce',
      suspend: false,
      vault: {
        address: 'https://vault.vault.svc:8200',
        auth: { method: 'Kubernetes', kubernetes: { ...login, role: 'istio-vault-ca' } },
      },
      root: {
        source: 'Generate',
        manage: true,
        shared: false,
        mount: 'pki',
        commonName: 'Istio Root CA',
        organization: '',
        ttl: '87600h',
        key: { type: 'rsa' },
      },
      intermediate: {
        source: 'Issue',
        manage: true,
        mount: 'istioca',
        commonName: 'Istio Intermediate CA',
        organization: '',
        ttl: '43800h',
        maxPathLength: 0,
        key: { type: 'rsa' },
      },
      keyStore: { manage: true, mount: 'kv', path: 'istioca', version: 2 },
      delivery: { source: 'Bundle', directory: '/vault/secrets', refreshInterval: '1m', annotations: {}, crl: false },
      policy: { manage: true, name: 'istioca' },
      kubernetesAuth: {
        manage: true,
        mount: 'kubernetes',
        role: 'istiod',
        tokenTTL: '24h',
        config: {
          manage: false,
          kubernetesHost: 'https://kubernetes.default.svc',
          kubernetesCA: { configMapRef: { name: 'kube-root-ca.crt', key: 'ca.crt' } },
          tokenReviewer: { mode: 'VaultLocal' },
        },
      },
      controlPlane: {
        kind: 'TetrateControlPlane',
        name: 'controlplane',
        write: 'Patch',
        holdApplicationUntilProxyStarts: false,
      },
      rollout: 'WhenChanged',
      adopt: false,
      deletionPolicy: 'Retain',
    });
  });

  it.each<[string, unknown, unknown]>([
    ['vault.auth', { kubernetes: { role: 'r' } }, { method: 'Kubernetes', kubernetes: login }],
    ['vault.auth.jwt', { role: 'r' }, { ...login, mount: 'jwt' }],
    [
      'vault.auth.appRole',
      { roleId: 'id', secretIdRef: { name: 's' } },
      { mount: 'approle', roleId: 'id', secretIdRef: { name: 's', key: 'secret-id' } },
    ],
    ['vault.auth.token', { secretRef: { name: 's' } }, { secretRef: { name: 's', key: 'token' } }],
    [
      'vault.tls',
      { caSecretRef: { name: 'ca' }, clientCertSecretRef: { name: 'c' } },
      { caSecretRef: { name: 'ca', key: 'ca.crt' }, clientCertSecretRef: { name: 'c' } },
    ],
    ['audit', { path: 'file' }, { path: 'file', type: 'file', options: {} }],
    [
      'root.existing',
      { rootCertRef: { configMapRef: { name: 'c' } } },
      { rootCertRef: { configMapRef: { name: 'c', key: 'ca.crt' } } },
    ],
    [
      'root.external',
      { signed: { secretRef: { name: 's' } } },
      { signed: { secretRef: { name: 's', key: 'tls.crt' } } },
    ],
    [
      'kubernetesAuth.config.tokenReviewer',
      { mode: 'Secret', secretRef: { name: 's' } },
      { mode: 'Secret', secretRef: { name: 's', key: 'token' } },
    ],
  ])('of a given %s', (path, given, filled) => {
    const at = path.split('.').reduce<unknown>((o, key) => (isObject(o) ? o[key] : undefined), {
      ...specSchema.parse(specWith(path, given)),
    });
    expect(at).toEqual(filled);
  });

  it('a field that does not exist is dropped, as the API server prunes it', () => {
    expect(specSchema.parse({ ...minimal, insecure: true })).toEqual(specSchema.parse(minimal));
  });
});

describe('hostile texts', () => {
  const anywhere = [
    '../x', 'x/../y', '..', '.', 'a"b', "a'b", '{{ }}', '{{x}}', '$(x)', 'a b', ' a', 'a ', 'a\nb', 'a\n', '\na', 'a\tb',
    'a\u0000b', '', '.a', '/a', 'a/', 'a//b', 'ä', 'а', 'a\u202eb', 'a\\b', 'a%2fb', 'a?b', 'a#b', 'a;b', 'a*', 'a+b', 'a,b',
    'a:b', 'a=b', 'a@b', '`a`', '<a>', 'a|b', '~',
  ]; // prettier-ignore
  const names = [...anywhere, 'a.', 'a./b', 'a/.b'];
  const vaultNames = ['vault.auth.kubernetes.role', 'vault.auth.jwt.role', 'root.existing.issuerRef', 'kubernetesAuth.role', 'policy.name']; // prettier-ignore
  const vaultPaths = [
    'vault.namespace', 'vault.auth.kubernetes.mount', 'vault.auth.jwt.mount', 'vault.auth.appRole.mount', 'audit.path', 'root.mount',
    'intermediate.mount', 'keyStore.mount', 'keyStore.path', 'kubernetesAuth.mount',
  ]; // prettier-ignore
  const objects = [
    'vault.auth.kubernetes.serviceAccountName', 'vault.auth.appRole.secretIdRef.name', 'vault.auth.token.secretRef.name',
    'vault.tls.caConfigMapRef.name', 'vault.tls.caSecretRef.name', 'vault.tls.clientCertSecretRef.name', 'vault.tls.serverName',
    'root.existing.rootCertRef.configMapRef.name', 'root.external.signed.secretRef.name', 'root.external.certManagerIssuerRef.name', 'root.external.certManagerIssuerRef.group',
    'intermediate.importRef.secretRef.name', 'kubernetesAuth.serviceAccountNames[]', 'kubernetesAuth.config.kubernetesCA.configMapRef.name',
    'kubernetesAuth.config.tokenReviewer.secretRef.name', 'controlPlane.name', 'controlPlane.revision',
  ]; // prettier-ignore
  const keys = [
    'vault.auth.token.secretRef.key', 'vault.tls.caConfigMapRef.key', 'vault.tls.caSecretRef.key',
    'kubernetesAuth.config.kubernetesCA.configMapRef.key',
  ]; // prettier-ignore

  /** The texts that the field accepts. The path of a field is among the issues only if the field itself is invalid. */
  const accepted = (path: string, texts: string[]) =>
    texts.filter((text) => {
      const issues = specSchema.safeParse(specWith(path, text)).error?.issues ?? [];
      return !issues.some((issue) => issue.path.join('.').startsWith(path.replace('[]', '.0')));
    });

  it.each([...vaultNames, ...vaultPaths, ...objects])('are refused in %s', (path) => {
    expect(accepted(path, names)).toEqual([]);
    expect(accepted(path, ['a', 'a-b', '0'])).toEqual(['a', 'a-b', '0']);
  });

  it.each([...vaultNames, ...objects])('%s is one segment', (path) => {
    expect(accepted(path, ['a/b', 'a/b/c'])).toEqual([]);
  });

  it.each(vaultPaths)('%s may have several segments, none of dots', (path) => {
    expect(accepted(path, ['a/b', 'a.b/c-d/E_f'])).toHaveLength(2);
    expect(accepted(path, ['a/..', 'a/./b', '../../sys', 'a/b/..'])).toEqual([]);
  });

  it.each(keys)('are refused in %s', (path) => {
    expect(accepted(path, [...anywhere, 'a/b'])).toEqual([]);
  });

  it('are refused in delivery.directory', () => {
    const dirs = [
      ...anywhere.filter((t) => !t.startsWith('/')),
      ...names.map((t) => `/${t}`),
      'relative',
      '/',
      '/a/../b',
    ];
    expect(
      accepted(
        'delivery.directory',
        dirs.filter((t) => t !== '//a'),
      ),
    ).toEqual([]);
    expect(accepted('delivery.directory', ['/a', '/etc/cacerts-vault', '/vault/secrets'])).toHaveLength(3);
  });

  it.each(['vault.address', 'vault.injectorAddress', 'kubernetesAuth.config.kubernetesHost'])(
    'are refused in %s',
    (path) => {
      const bad = [
      ...anywhere, 'vault', 'file:///etc/passwd', 'unix:///x', 'https://', 'https://user:pass@vault', 'https://vault/v1/x',
      'https://vault?x', 'https://vault#x', 'https://va ult', 'https://vault\n', 'https://-vault', 'https://vault:port', 'HTTPS://vault',
      'https://vault:8200:8200', 'https://[::1', 'https://vault\\@evil',
    ]; // prettier-ignore
      expect(accepted(path, bad)).toEqual([]);
      const good = ['https://vault.vault.svc:8200', 'http://127.0.0.1:8200/', 'https://[::1]:8200'];
      expect(accepted(path, good)).toEqual(good);
    },
  );

  it('no text that is accepted as a path can leave its place', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('.', '/', 'a', '-', '_', '"', '{', ' ', '\n', 'ä') }), (text) => {
        if (accepted('keyStore.mount', [text]).length === 0) return;
        expect(text).toMatch(/^[a\-_./]+$/);
        expect(text.split('/').every((segment) => /^[^.].*[^.]$|^[^.]$/.test(segment))).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('the CRD', () => {
  const crd = customResourceDefinition();

  /** All schema nodes below `openAPIV3Schema`, except the fields that every object has. */
  function* nodes(schema: unknown, path = ''): Generator<[string, Json]> {
    if (!isObject(schema)) throw new Error(`${path} is no schema`);
    yield [path, schema];
    for (const [name, sub] of Object.entries(isObject(schema['properties']) ? schema['properties'] : {})) {
      if (path === '' && ['apiVersion', 'kind', 'metadata'].includes(name)) continue;
      yield* nodes(sub, `${path}.${name}`);
    }
    if (isObject(schema['additionalProperties'])) yield* nodes(schema['additionalProperties'], `${path}.*`);
    if (schema['items'] !== undefined) yield* nodes(schema['items'], `${path}[]`);
  }
  const versions = (crd['spec'] as { versions: { schema: { openAPIV3Schema: unknown } }[] }).versions;
  const all = [...nodes(versions[0]?.schema.openAPIV3Schema)];
  const failing = (test: (node: Json) => boolean) => all.filter(([, node]) => test(node)).map(([path]) => path);

  it('bounds everything, so that the API server can estimate the cost of its rules', () => {
    expect(all.length).toBeGreaterThan(100);
    expect(failing((n) => typeof n['type'] !== 'string')).toEqual([]);
    expect(failing((n) => n['type'] === 'string' && !('maxLength' in n) && !('enum' in n))).toEqual([]);
    expect(failing((n) => n['type'] === 'array' && !('maxItems' in n))).toEqual([]);
    expect(failing((n) => isObject(n['additionalProperties']) && !('maxProperties' in n))).toEqual([]);
  });

  it('is a structural schema', () => {
    expect(failing((n) => n['additionalProperties'] === false)).toEqual([]);
    expect(failing((n) => ['oneOf', 'anyOf', 'allOf', 'not', '$ref', 'nullable', 'const'].some((k) => k in n))).toEqual(
      [],
    );
    expect(failing((n) => n['type'] === 'array' && !isObject(n['items']))).toEqual([]);
    expect(failing((n) => isObject(n['properties']) && 'additionalProperties' in n)).toEqual([]);
  });

  it('has the same defaults as the schema', () => {
    const fill = (schema: Json, value: unknown): unknown => {
      const properties = schema['properties'];
      if (!isObject(value) || !isObject(properties)) return value;
      const filled: Json = { ...value };
      for (const [name, sub] of Object.entries(properties)) {
        if (!isObject(sub)) continue;
        const found = filled[name] ?? sub['default'];
        if (found !== undefined) filled[name] = fill(sub, found);
      }
      return filled;
    };
    const spec = all.find(([path]) => path === '.spec')?.[1] ?? {};
    expect(fill(spec, minimal)).toEqual(specSchema.parse(minimal));
  });

  it('fits into the annotation of kubectl apply', () => {
    expect(JSON.stringify(crd).length).toBeLessThan(262_144);
  });

  it('has the names and columns of the contract', () => {
    expect(crd).toMatchObject({
      metadata: { name: 'istiovaultcas.istiovaultca.io' },
      spec: {
        scope: 'Namespaced',
        names: { kind: 'IstioVaultCA', shortNames: ['ivca'], categories: ['istio-io', 'security'] },
        versions: [{ name: 'v1alpha1', subresources: { status: {} } }],
      },
    });
    const columns = (versions[0] as unknown as { additionalPrinterColumns: { name: string; priority: number }[] })
      .additionalPrinterColumns;
    const shown = (priority: number) => columns.filter((c) => c.priority === priority).map((c) => c.name.toUpperCase());
    expect(shown(0)).toEqual(['READY', 'REASON', 'ISTIOD', 'EXPIRES', 'AGE']);
    expect(shown(1)).toEqual(['ROOT EXPIRES', 'VAULT', 'CONTROL PLANE']);
  });
});

describe('Go durations', () => {
  it('round-trip', () => {
    fc.assert(
      fc.property(
        fc.nat(Number.MAX_SAFE_INTEGER).filter((ms) => ms < 999_999_999 * 3_600_000),
        (ms) => {
          const text = formatGoDuration(ms);
          expect(parseGoDuration(text)).toBe(ms);
          if (parseAnyGoDuration(text) !== undefined) expect(parseAnyGoDuration(text)).toBe(ms);
          expect(specSchema.shape.root.parse({ ttl: text }).ttl).toBe(text);
        },
      ),
    );
  });

  it.each([
    ['90s', 90_000],
    ['10m', 600_000],
    ['87600h', 315_360_000_000],
    ['1h30m', 5_400_000],
    ['1m500ms', 60_500],
    ['0s', 0],
  ])('%s', (text, ms) => expect(parseGoDuration(text)).toBe(ms));

  it.each(['', '1', 'h', '-1h', '1.5h', '1d', '1H', ' 1h', '1h ', '1h\n', '1000000000h', '1us'])(
    '%j is none',
    (text) => {
      expect(() => parseGoDuration(text)).toThrow(RangeError);
      expect(specSchema.shape.root.safeParse({ ttl: text }).success).toBe(false);
    },
  );

  // the results of time.ParseDuration in Go 1.26
  it.each<[string, number | undefined]>([
    ['24h', 86_400_000],
    ['1.5h', 5_400_000],
    ['.5h', 1_800_000],
    ['1.h', 3_600_000],
    ['1h30m0.5s', 5_400_500],
    ['+1h', 3_600_000],
    ['-1h', -3_600_000],
    ['0', 0],
    ['1us', 1],
    ['1µs', 1],
    ['2562047h', 9_223_369_200_000],
    ...['', '1', 'h', '.', '.h', '1d', '1H', ' 1h', '24 hours', '1h\n', '2562048h'].map((text): [string, undefined] => [
      text,
      undefined,
    ]),
  ])('%j, written by somebody else, is %s ms', (text, ms) => expect(parseAnyGoDuration(text)).toBe(ms));
});
