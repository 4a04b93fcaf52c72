import { describe, expect, it } from '@jest/globals';
import { auditOptions, deliveryAnnotations, refusedTexts } from './allowed-texts.ts';

const agent = (name: string) => `vault.hashicorp.com/${name}`;
const refused = (name: string, value: string) => refusedTexts('f', { [agent(name)]: value }, deliveryAnnotations);

describe('annotations for the agent', () => {
  it.each([
    'role', 'service', 'auth-path', 'namespace', 'agent-inject', 'agent-inject-status', 'secret-volume-path', 'agent-inject-secret-ca-key.pem',
    'agent-inject-template-root-cert.pem', 'agent-inject-command-ca-key.pem', 'agent-inject-file-extra', 'agent-image', 'agent-configmap',
    'agent-json-patch', 'agent-init-json-patch', 'agent-pre-populate', 'agent-pre-populate-only', 'agent-run-as-user',
    'agent-run-as-same-user', 'agent-share-process-namespace', 'agent-copy-volume-mounts', 'agent-service-account-token-volume-name',
    'agent-telemetry-x', 'agent-enable-quit', 'agent-cache-enable', 'agent-extra-secret', 'preserve-secret-case', 'proxy-address',
    'template-config-exit-on-retry-failure', 'template-static-secret-render-interval', 'tls-skip-verify', 'tls-server-name',
    'ca-key', 'client-cert', 'client-key', 'auth-type', 'auth-config-type', 'auth-config-path', 'go-max-procs', 'x',
  ])('%s is refused, with the list of what may be given', (name) => {
    const message = refused(name, 'a secret value');
    expect(message).toContain(agent(name));
    expect(message).toContain(agent('agent-limits-cpu'));
    expect(message).not.toContain('a secret value');
  }); // prettier-ignore

  it.each([
    ['agent-limits-cpu', ['1', '0.5', '250m'], ['', '-1', '1e3', '1 ', '1Zi', '250m\n']],
    ['agent-requests-mem', ['64Mi', '1G'], ['64mi', '64 Mi']],
    ['agent-requests-ephemeral', ['1Gi'], ['all']],
    ['log-level', ['debug', 'error'], ['DEBUG', 'off']],
    ['log-format', ['json', 'standard'], ['text']],
    ['agent-init-first', ['true', 'false'], ['yes']],
    ['agent-set-security-context', ['false'], ['true']],
    ['client-timeout', ['5s', '60s', '299s', '300s', '1m', '5m'], ['4s', '0s', '301s', '6m', '1h', '5', '-5s']],
    ['client-max-retries', ['0', '9', '10'], ['11', '-1', '100', '']],
    ['tls-secret', ['vault-ca', 'a.b'], ['', 'A', '-a', 'a/b']],
    ['ca-cert', ['/vault/tls/ca.crt'], ['/etc/ca.crt', '/vault/tls/', '/vault/tls/..', '/vault/tls/a/b', 'ca.crt']],
  ])('%s takes only what it may be', (name, good, bad) => {
    for (const value of good) expect([value, refused(name, value)]).toEqual([value, undefined]);
    for (const value of bad)
      expect([value, refused(name, value)]).toEqual([value, expect.stringContaining(`${agent(name)} must be`)]);
  });
});

describe('options of an audit device', () => {
  const refusal = (options: Record<string, string>) => refusedTexts('f', options, auditOptions);

  it('are where it writes, and nothing that shows more', () => {
    expect(
      refusal({ file_path: '/vault/vault-audit.log', format: 'json', mode: '0600', hmac_accessor: 'true' }),
    ).toBeUndefined();
    for (const name of ['log_raw', 'elide_list_responses', 'prefix', 'exclude', 'filter', 'fallback', 'path'])
      expect(refusal({ [name]: 'true' })).toContain('only these keys');
    expect(refusal({ file_path: 'stdout' })).toBeUndefined();
    for (const path of ['stderr', 'discard', 'vault.log', '/', '/vault/../etc/x', '/vault/.ssh/x', '/a b'])
      expect(refusal({ file_path: path })).toContain('file_path must be an absolute path');
    expect(refusal({ mode: '0666' })).toContain('mode must be');
    expect(refusal({ hmac_accessor: 'false' })).toContain('hmac_accessor must be');
  });
});
