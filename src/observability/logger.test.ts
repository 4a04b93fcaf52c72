import { describe, expect, test } from '@jest/globals';
import { generateKeyPairSync } from 'node:crypto';
import { inspect } from 'node:util';
import { createLogger, safeError, type LogLevel } from './logger.ts';
import { redact } from '../text/redact.ts';
import { Secret } from './secret.ts';

function setup(level: LogLevel = 'debug') {
  const lines: string[] = [];
  const logger = createLogger({ level, destination: { write: (line: string) => void lines.push(line) } });
  const last = (): Record<string, unknown> => JSON.parse(lines.at(-1) ?? '{}') as Record<string, unknown>;
  return { lines, logger, last, all: () => lines.join('') };
}

const vaultToken = `hvs.${'Ab1_'.repeat(8)}`;
const oldToken = `s.${'Zz9y'.repeat(6)}`;
const ageKey = `AGE-SECRET-KEY-1${'QPZRY9X8GF2TVDW0'.repeat(3)}QPZRY9X8GF`;
const jwt = 'eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrOHMifQ.c2lnbmF0dXJlX2JpdHM';
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const pems = (['sec1', 'pkcs8'] as const).map((type) => privateKey.export({ type, format: 'pem' }) as string);
const keyBody = (pem: string): string => pem.split('\n')[1] ?? 'none';

describe('Secret', () => {
  test('prints nowhere', () => {
    const secret = new Secret('very-secret');
    const prints = [
      String(secret),
      ['', secret].join(''),
      JSON.stringify({ secret }),
      inspect({ secret }, { depth: 5, showHidden: true }),
      ('' as string) + (secret as unknown as string),
      Object.values(secret).join(),
    ];
    for (const print of prints) expect(print).not.toContain('very');
    expect(JSON.stringify({ secret })).toBe('{"secret":"[redacted]"}');
    expect(secret.reveal()).toBe('very-secret');
  });
});

describe('the logger', () => {
  test('writes one JSON object a line, with level name and ISO time', () => {
    const { logger, last, lines } = setup('info');
    logger.debug('not shown');
    logger.info('made the mount', { namespace: 'istio-system', name: 'istioca', mount: 'pki' });
    expect(lines).toHaveLength(1);
    expect(last()).toMatchObject({
      level: 'info',
      namespace: 'istio-system',
      name: 'istioca',
      mount: 'pki',
      msg: 'made the mount',
    });
    expect(last()['time']).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    expect(last()).not.toHaveProperty('pid');
  });

  test('redacts fields with telling names, at the top and one level down', () => {
    const { logger, last } = setup();
    const fields = {
      token: 'x1',
      jwt: 'x2',
      private_key: 'x3',
      'ca-key.pem': 'x4',
      secret_id: 'x5',
      Authorization: 'x6',
      'X-Vault-Token': 'x7',
    };
    logger.info('m', { ...fields, data: fields, other: 'seen' });
    expect(JSON.stringify(last())).not.toMatch(/x[1-7]/);
    expect(last()['other']).toBe('seen');
  });

  test('shows of an error no more than is known to be harmless', () => {
    const { logger, all, last } = setup();
    class AxiosError extends Error {
      override name = 'AxiosError';
      code = 'ECONNREFUSED';
      config = { headers: { 'X-Custom': 'leak-1' }, data: '{"jwt":"leak-2"}' };
    }
    logger.error('failed', { err: new AxiosError('connect failed') });
    logger.error('failed', { why: new AxiosError('connect failed') });
    logger.error('failed', { err: new Error('outer', { cause: new AxiosError('inner') }) });
    logger.error('failed', { err: 'thrown text' });
    logger.error('failed', { err: { secretThing: 'leak-3' } });
    expect(all()).not.toContain('leak');
    logger.error('failed', { err: new AxiosError('y'.repeat(300)) });
    expect(last()['err']).toEqual({ name: 'AxiosError', message: `${'y'.repeat(199)}…`, code: 'ECONNREFUSED' });
    const known = safeError(Object.assign(new Error('mine'), { name: 'KubeError', kind: 'Conflict' }));
    expect(known).toMatchObject({ name: 'KubeError', message: 'mine', kind: 'Conflict' });
    expect(known.stack).toContain('logger.test');
  });

  test('finds secrets by their looks wherever they are', () => {
    const { logger, all, lines } = setup();
    const secrets = [vaultToken, oldToken, jwt, ageKey, ageKey.toLowerCase(), ...pems];
    for (const secret of secrets) {
      logger.info(`before ${secret} after`);
      logger.info(`line\n${secret}\nline`);
      logger.info(secret);
      logger.info('deep', { a: { b: { c: [secret] } } });
      logger.info('error', { err: new Error(`it said "${secret}"`) });
      logger.info('cut', { text: secret.slice(0, -20) });
    }
    for (const secret of [vaultToken, oldToken, jwt, ageKey, ageKey.toLowerCase(), ...pems.map(keyBody)])
      expect(all()).not.toContain(secret.slice(0, 24));
    for (const line of lines) expect(() => JSON.parse(line) as unknown).not.toThrow();
    expect(lines[0]).toContain('before [redacted token] after');
    expect(all()).toContain('line\\n[redacted private key]\\n\\nline');
  });

  test('leaves alone what is none', () => {
    for (const text of [
      'istiovaultcas.istiovaultca.io/v1alpha1 of istio-system',
      'https://vault.vault.svc:8200/v1/sys/mounts',
      '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----',
      'secrets.kubernetes-external-secrets-operator',
      'a.b.c',
    ]) {
      expect(redact(text)).toBe(text);
    }
  });
});
