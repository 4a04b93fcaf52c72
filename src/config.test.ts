import { describe, expect, test } from '@jest/globals';
import { createHash } from 'node:crypto';
import {
  addressAllowed,
  injectorAddressAllowed,
  leaseName,
  parseBackupConfig,
  parsePlanConfig,
  parseRenderConfig,
  parseRestoreConfig,
  parseRunConfig,
} from './config.ts';
import { ConfigError } from './flags.ts';

const inPod = { env: {}, podNamespace: () => 'operators' };
const outside = { env: {}, podNamespace: () => undefined };
const any = '--allow-any-vault-address';

describe('flags of run', () => {
  test('defaults', () => {
    const config = parseRunConfig([any], inPod);
    expect(config).toEqual({
      namespaces: [],
      leaderElect: true,
      leaderElectionNamespace: 'operators',
      vaultAddresses: [],
      allowAnyVaultAddress: true,
      allowHttp: false,
      metricsAddress: '0.0.0.0:8080',
      healthAddress: '0.0.0.0:8081',
      logLevel: 'info',
      resyncMs: 600_000,
      concurrency: 4,
      reconcileTimeoutMs: 180_000,
      deletionDeadlineMs: 600_000,
      backoffBaseMs: 1000,
      contestProbeMs: 600_000,
      crlLeadMs: 300_000,
      lease: { durationMs: 15_000, renewDeadlineMs: 10_000, retryPeriodMs: 2_000 },
      kubeconfig: undefined,
      proxyFor: expect.any(Function),
    });
    expect(Object.isFrozen(config)).toBe(true);
    expect(Object.isFrozen(config.namespaces)).toBe(true);
  });

  test('all of them', () => {
    const config = parseRunConfig(
      [
        '--namespaces=b,a',
        '--namespaces',
        'c,a',
        '--leader-elect=false',
        '--vault-addresses=https://vault.vault.svc:8200,http://*.dev.svc:*',
        '--allow-http',
        '--metrics-address=0',
        '--health-address=[::1]:9000',
        '--log-level=debug',
        '--resync=1h30m',
        '--concurrency=1',
        '--concurrency=8',
        '--deletion-deadline=90s',
        '--backoff-base=50ms',
        '--contest-probe=5s',
        '--crl-lead-time=1m',
        '--leader-election-lease-duration=1m',
        '--leader-election-renew-deadline=40s',
        '--leader-election-retry-period=5s',
        '--kubeconfig',
        'some/file',
      ],
      outside,
    );
    expect(config).toMatchObject({
      namespaces: ['a', 'b', 'c'],
      leaderElect: false,
      leaderElectionNamespace: '',
      vaultAddresses: ['http://*.dev.svc:*', 'https://vault.vault.svc:8200'],
      allowHttp: true,
      metricsAddress: '0',
      healthAddress: '[::1]:9000',
      logLevel: 'debug',
      resyncMs: 5_400_000,
      concurrency: 8,
      deletionDeadlineMs: 90_000,
      backoffBaseMs: 50,
      contestProbeMs: 5000,
      crlLeadMs: 60_000,
      lease: { durationMs: 60_000, renewDeadlineMs: 40_000, retryPeriodMs: 5_000 },
      kubeconfig: 'some/file',
    });
  });

  test('from the environment, which flags override, and empty values are none', () => {
    const env = {
      ISTIO_VAULT_CA_ALLOW_ANY_VAULT_ADDRESS: 'true',
      ISTIO_VAULT_CA_LEADER_ELECTION_NAMESPACE: 'from-env',
      ISTIO_VAULT_CA_RESYNC: '1m',
      ISTIO_VAULT_CA_LOG_LEVEL: '',
      ISTIO_VAULT_CA_SERVICE_HOST: '10.0.0.1',
    };
    expect(parseRunConfig(['--resync=2m', '--namespaces='], { env, podNamespace: () => undefined })).toMatchObject({
      allowAnyVaultAddress: true,
      leaderElectionNamespace: 'from-env',
      resyncMs: 120_000,
      logLevel: 'info',
      namespaces: [],
    });
  });

  test.each<[string, string[], RegExp]>([
    ['an unknown flag', [any, '--resnyc=1m'], /unknown flag --resnyc; known flags: --namespaces, --leader-elect,/],
    ['a flag with one dash', [any, '-kubeconfig=x'], /unknown flag -k/],
    ['a word too many', [any, '--leader-elect', 'false'], /unexpected argument "false"/],
    ['no value', [any, '--resync'], /--resync needs a value/],
    ['a flag for a value', [any, '--resync', '--concurrency=3'], /--resync needs a value/],
    ['no duration', [any, '--resync=10'], /--resync "10": .*is not a duration; write it like 90s/],
    ['no time', [any, '--resync=0s'], /--resync "0s": must be longer than 0/],
    ['no boolean', [any, '--allow-http=yes'], /--allow-http "yes": must be true or false/],
    ['no level', [any, '--log-level=trace'], /--log-level "trace": must be one of debug, info, warn, error/],
    ['no number', [any, '--concurrency=0'], /--concurrency "0": must be a number from 1 to 999/],
    ['no address', [any, '--metrics-address=8080'], /--metrics-address "8080": .*host:port/],
    ['no port', [any, '--health-address=:70000'], /--health-address/],
    ['no namespace', [any, '--namespaces=a,B'], /--namespaces "a,B": must be names of namespaces/],
    [
      'a Lease that ends before its leader does',
      [any, '--leader-election-renew-deadline=15s'],
      /--leader-election-renew-deadline, and that shorter than --leader-election-lease-duration/,
    ],
    ['neither addresses nor any', [], /exactly one of --vault-addresses/],
    ['both', [any, '--vault-addresses=https://v:1'], /exactly one of --vault-addresses/],
    [
      'http alone',
      ['--vault-addresses=http://v:8200'],
      /"http:\/\/v:8200": not encrypted; write https:\/\/, or add --allow-http/,
    ],
    [
      'a glob with a path',
      ['--vault-addresses=https://v:8200/v1'],
      /--vault-addresses .*must be scheme, host and port/,
    ],
    ['a glob with a user', ['--vault-addresses=https://u@v:8200'], /--vault-addresses/],
    ['a glob without scheme', ['--vault-addresses=v:8200'], /--vault-addresses/],
    ['a glob for the scheme', ['--vault-addresses=*://v:8200'], /--vault-addresses/],
  ])('refuses %s', (_, argv, message) => {
    expect(() => parseRunConfig(argv, inPod)).toThrow(ConfigError);
    expect(() => parseRunConfig(argv, inPod)).toThrow(message);
  });

  test('names the environment variable that is wrong', () => {
    const env = { ISTIO_VAULT_CA_CONCURRENCY: 'many' };
    expect(() => parseRunConfig([any], { ...inPod, env })).toThrow(/^ISTIO_VAULT_CA_CONCURRENCY "many"/);
  });

  test('wants a namespace for the Lease outside of a cluster', () => {
    expect(() => parseRunConfig([any], outside)).toThrow(/--leader-election-namespace is required/);
    expect(parseRunConfig([any], { env: { POD_NAMESPACE: 'mine' } }).leaderElectionNamespace).toBe('mine');
  });
});

describe('flags of backup and restore', () => {
  const recipient = `age1${'q'.repeat(58)}`;

  test('recipients once or several times, and a file as an argument', () => {
    const flags = ['-f', 'a.yaml', `--recipient=${recipient},${recipient}z`, '--recipient', `${recipient}y`];
    expect(parseBackupConfig([...flags, '-o', 'out.age'], {})).toMatchObject({
      recipients: [recipient, `${recipient}y`, `${recipient}z`],
      output: 'out.age',
      logLevel: 'warn',
      allowAnyVaultAddress: true,
    });
    expect(parseRestoreConfig(['-f', 'a.yaml', '-i', 'keys', 'in.age', '--from-cluster=c'], {})).toMatchObject({
      identity: 'keys',
      backup: 'in.age',
      fromCluster: 'c',
    });
  });

  test.each<[string, string[], RegExp]>([
    ['no recipient', [], /^--recipient is missing; write --recipient=age1…/],
    ['a list of none', ['--recipient=,'], /--recipient ",": is missing/],
    ['another key', ['--recipient=ssh-ed25519 AAAA'], /must be public keys that begin with age1/],
    ['an argument', [`--recipient=${recipient}`, 'a.age'], /^unexpected argument "a.age"/],
  ])('backup refuses %s', (_, argv, message) => {
    expect(() => parseBackupConfig(['-f', 'a.yaml', ...argv], {})).toThrow(message);
  });

  test.each<[string, string[], RegExp]>([
    ['no identity', ['a.age'], /^--identity is missing; write --identity=FILE/],
    ['no file', ['-i', 'keys'], /^--backup is missing; name the file/],
    ['two files', ['-i', 'keys', 'a.age', 'b.age'], /^unexpected argument "b.age"/],
  ])('restore refuses %s', (_, argv, message) => {
    expect(() => parseRestoreConfig(['-f', 'a.yaml', ...argv], {})).toThrow(message);
  });
});

describe('flags of plan and render', () => {
  test('the proxy of the environment, for run and plan alike', () => {
    const env = { HTTPS_PROXY: 'proxy:3128', NO_PROXY: '.svc' };
    const plan = parsePlanConfig(['-f', 'a.yaml'], env);
    for (const { proxyFor } of [plan, parseRunConfig([any], { ...inPod, env })]) {
      expect(proxyFor('https://vault.example.com')?.url).toBe('http://proxy:3128');
      expect(proxyFor('https://vault.vault.svc:8200')).toBeUndefined();
    }
    const refused = { HTTPS_PROXY: 'socks5://proxy' };
    expect(() => parsePlanConfig(['-f', 'a.yaml'], refused)).toThrow(
      'HTTPS_PROXY: a proxy of socks5:// is not supported',
    );
    expect(() => parseRunConfig([any], { ...inPod, env: refused })).toThrow('HTTPS_PROXY');
  });

  test('a letter, a word or the environment', () => {
    expect(parseRenderConfig(['-f', '-', '-n=mesh'], {})).toEqual({ filename: '-', namespace: 'mesh' });
    expect(parseRenderConfig(['--filename=a.yaml', '-nmesh'], {})).toEqual({ filename: 'a.yaml', namespace: 'mesh' });
    expect(parseRenderConfig([], { ISTIO_VAULT_CA_FILENAME: 'b.yaml' }).filename).toBe('b.yaml');
  });

  test('the address of the manifest may be connected to, unless there is a list', () => {
    expect(parsePlanConfig(['-f', 'a.yaml'], {})).toEqual({
      filename: 'a.yaml',
      namespace: undefined,
      output: 'text',
      vaultAddresses: [],
      allowAnyVaultAddress: true,
      allowHttp: false,
      logLevel: 'warn',
      kubeconfig: undefined,
      proxyFor: expect.any(Function),
    });
    const listed = ['-f', 'a.yaml', '-o', 'json', '--vault-addresses=https://v:8200', '--kubeconfig=k'];
    expect(parsePlanConfig(listed, {})).toMatchObject({
      output: 'json',
      vaultAddresses: ['https://v:8200'],
      allowAnyVaultAddress: false,
      kubeconfig: 'k',
    });
  });

  test.each<[string, string[], RegExp]>([
    ['no file', [], /^--filename is missing; write -f manifest.yaml, or -f - for standard input$/],
    ['no value', ['-f'], /^-f needs a value; write -f …$/],
    ['a flag for a value', ['-f', '-o', 'json'], /^-f needs a value/],
    ['another form', ['-f', 'a', '-o', 'yaml'], /^--output "yaml": must be text or json$/],
    ['no namespace', ['-f', 'a', '-n', 'A'], /^--namespace "A": must be the name of a namespace$/],
    ['an unknown letter', ['-f', 'a', '-x'], /^unknown flag -x; known flags: -f, --filename, -n, --namespace,/],
    ['a word', ['a.yaml'], /^unexpected argument "a.yaml"/],
    ['list and any', ['-f', 'a', any, '--vault-addresses=https://v:1'], /at most one/],
    ['http alone', ['-f', 'a', '--vault-addresses=http://v:1'], /not encrypted/],
  ])('plan refuses %s', (_, argv, message) => {
    expect(() => parsePlanConfig(argv, {})).toThrow(ConfigError);
    expect(() => parsePlanConfig(argv, {})).toThrow(message);
  });
});

describe('the name of the Lease', () => {
  test('depends on the set of namespaces only', () => {
    expect(leaseName([])).toBe('istio-vault-ca');
    const hash = createHash('sha256').update('a,b').digest('hex').slice(0, 8);
    expect(leaseName(['b', 'a'])).toBe(`istio-vault-ca-${hash}`);
    expect(leaseName(['a', 'b', 'a'])).toBe(leaseName(['b', 'a']));
    expect(leaseName(['a'])).not.toBe(leaseName(['b']));
  });
});

describe('addresses that may be connected to', () => {
  const allowed = (globs: string[], url: string, allowHttp = false): boolean =>
    addressAllowed(
      { vaultAddresses: globs, allowAnyVaultAddress: globs.length === 0, injectorAddresses: undefined, allowHttp },
      url,
    );

  test.each([
    ['https://vault.vault.svc:8200', 'https://vault.vault.svc:8200'],
    ['https://vault.vault.svc:8200', 'https://vault.vault.svc:8200/'],
    ['https://Vault.vault.svc:8200', 'https://VAULT.vault.SVC:8200'],
    ['https://*.vault.svc:8200', 'https://vault-0.vault.svc:8200'],
    ['https://vault-*.vault.svc:8200', 'https://vault-12.vault.svc:8200'],
    ['https://*.*.svc:*', 'https://a.b.svc:1'],
    ['https://vault.example.com', 'https://vault.example.com'],
    ['https://vault.example.com', 'https://vault.example.com:443'],
    ['https://vault.example.com:443', 'https://vault.example.com'],
    ['https://[::1]:8200', 'https://[0:0::1]:8200'],
    ['https://127.0.0.1:8200', 'https://127.0.0.1:8200'],
  ])('%s lets through %s', (glob, url) => expect(allowed([glob], url)).toBe(true));

  const glob = 'https://*.vault.svc:8200';
  test.each([
    ['another port', 'https://a.vault.svc:8201'],
    ['no port', 'https://a.vault.svc'],
    ['another scheme', 'http://a.vault.svc:8200'],
    ['a scheme in capitals', 'HTTPS://a.vault.svc:8200'],
    ['a scheme of another kind', 'file://a.vault.svc:8200'],
    ['more labels', 'https://b.a.vault.svc:8200'],
    ['an empty label', 'https://.vault.svc:8200'],
    ['no label', 'https://vault.svc:8200'],
    ['a suffix', 'https://a.vault.svc.evil.com:8200'],
    ['a prefix', 'https://evil.com/a.vault.svc:8200'],
    ['a host that only ends alike', 'https://a.evilvault.svc:8200'],
    ['a trailing dot', 'https://a.vault.svc.:8200'],
    ['user information', 'https://a.vault.svc:8200@evil.com'],
    ['user information of our host', 'https://me:secret@a.vault.svc:8200'],
    ['a backslash', 'https://evil.com\\@a.vault.svc:8200'],
    ['a backslash behind', 'https://a.vault.svc:8200\\.evil.com'],
    ['a query', 'https://a.vault.svc:8200?x=.evil.com'],
    ['a fragment', 'https://a.vault.svc:8200#@evil.com'],
    ['an encoded dot', 'https://evil%2ecom.vault.svc:8200'],
    ['an encoded slash', 'https://evil.com%2f.vault.svc:8200'],
    ['a full-width dot', 'https://a．vault.svc:8200'],
    ['a soft hyphen', 'https://a\u00ad.vault.svc:8200'],
    ['a line break', 'https://a.vault.svc\n:8200'],
    ['a space before', ' https://a.vault.svc:8200'],
    ['an IPv6 address', 'https://[::1]:8200'],
    ['no URL', 'a.vault.svc:8200'],
    ['nothing', ''],
  ])('a glob does not let through %s', (_, url) => expect(allowed([glob], url)).toBe(false));

  test('a lone star is one label: no domain, no IP address in whatever form', () => {
    expect(allowed(['https://*:8200'], 'https://vault:8200')).toBe(true);
    for (const url of [
      'https://a.b:8200',
      'https://127.0.0.1:8200',
      'https://2130706433:8200',
      'https://0x7f.1:8200',
    ]) {
      expect(allowed(['https://*:8200'], url)).toBe(false);
    }
    expect(allowed(['https://127.0.0.1:8200'], 'https://2130706433:8200')).toBe(true);
  });

  test('a dot of a glob is a dot', () => {
    expect(allowed(['https://vault.svc:8200'], 'https://vaultxsvc:8200')).toBe(false);
  });

  test('http needs --allow-http, also when any address is allowed', () => {
    expect(allowed([], 'http://x:8200')).toBe(false);
    expect(allowed([], 'http://x:8200', true)).toBe(true);
    expect(allowed([], 'https://x:8200')).toBe(true);
    expect(allowed([], 'https://u:p@x:8200')).toBe(false);
    expect(allowed([], 'ftp://x:8200', true)).toBe(false);
    expect(allowed(['http://x:8200'], 'http://x:8200', true)).toBe(true);
    expect(allowed(['https://x:8200'], 'http://x:8200', true)).toBe(false);
  });
});

describe("addresses that istiod's agent may be given", () => {
  const inner = 'https://vault.vault.svc:8200';
  const outer = 'https://vault.example.com';
  const list = `--vault-addresses=${inner}`;
  const config = (...argv: string[]) => parseRunConfig(argv, inPod);

  test('are those that may be connected to', () => {
    expect(injectorAddressAllowed(config(list), inner)).toBe(true);
    expect(injectorAddressAllowed(config(list), outer)).toBe(false);
    expect(injectorAddressAllowed(config(any), outer)).toBe(true);
  });

  test('unless they have a list of their own, which also confines --allow-any-vault-address', () => {
    for (const addresses of [list, any]) {
      const own = config(addresses, `--injector-addresses=${outer}`);
      expect(injectorAddressAllowed(own, outer)).toBe(true);
      expect(injectorAddressAllowed(own, inner)).toBe(false);
      expect(addressAllowed(own, inner)).toBe(true);
    }
    expect(addressAllowed(config(list, `--injector-addresses=${outer}`), outer)).toBe(false);
  });

  test('also for plan', () => {
    const argv = ['-f', 'm.yaml', `--injector-addresses=${inner}`];
    expect(injectorAddressAllowed(parsePlanConfig(argv, {}), outer)).toBe(false);
    expect(injectorAddressAllowed(parsePlanConfig(['-f', 'm.yaml'], {}), outer)).toBe(true);
  });

  test('are encrypted, unless --allow-http', () => {
    const http = '--injector-addresses=http://vault.vault.svc:8200';
    expect(() => config(list, http)).toThrow(/--injector-addresses "http:.*not encrypted/);
    expect(injectorAddressAllowed(config(list, http, '--allow-http'), 'http://vault.vault.svc:8200')).toBe(true);
  });
});
