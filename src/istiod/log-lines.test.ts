import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { cleaned, relevantLines } from './log-lines.ts';

/** Output of `bao agent` 2.7.2, which prints each line of a multi-line value after a bar. */
const agentLog = (attempt: number, time: string) =>
  [
    `${time} [INFO]  agent.auth.handler: authenticating`,
    `${time} [ERROR] agent.auth.handler: error authenticating:`,
    '  error=',
    '  | Error making API request.',
    '  | ',
    '  | URL: PUT http://vault:8200/v1/auth/kubernetes/login',
    '  | Code: 403. Errors:',
    '  | ',
    '  | * service account name not authorized',
    `   backoff=${attempt}.5s`,
    `${time} [WARN] (view) vault.read(kv/data/istioca): Code: 403 (retry attempt ${attempt} after "${attempt}s")`,
    `${time} [INFO]  agent.auth.handler: authenticating`,
  ].join('\n');

const istiodLog = [
  '2026-01-01T00:00:00.000001Z\tinfo\tUsing istiod file format for signing ca files',
  '2026-01-01T00:00:00.000002Z\tinfo\tUse self-signed certificate as the CA certificate',
  '2026-01-01T00:00:01.000002Z\tinfo\tinitializing CA server with IstioD CA',
].join('\n');

describe('telling lines', () => {
  it('of the agent join what belongs together, and leave out what is well', () => {
    expect(relevantLines(agentLog(1, '2026-01-01T00:00:00.000Z'), 'agent')).toEqual([
      '[ERROR] agent.auth.handler: error authenticating: error= Error making API request. URL: PUT http://vault:8200/v1/auth/kubernetes/login Code: 403. Errors: * service account name not authorized',
      '[WARN] (view) vault.read(kv/data/istioca): Code: 403',
    ]);
  });

  it('of istiod say which CA it uses', () => {
    expect(relevantLines(istiodLog, 'discovery')).toEqual(['info Use self-signed certificate as the CA certificate']);
  });

  it('are the same at each attempt', () => {
    const first = relevantLines(agentLog(1, '2026-01-01T00:00:00.000Z'), 'agent');
    const both = `${agentLog(8, '2026-02-03T04:05:06.789Z')}\n${agentLog(9, '2026-02-03T04:06:06.789+01:00')}`;
    expect(relevantLines(both, 'agent')).toEqual(first);
  });

  it('of the agent forget what was wrong before it has logged in, once it says something else', () => {
    const sealed = '[ERROR] agent.auth.handler: error authenticating: Code: 503. Errors: * Vault is sealed';
    const loggedIn = '[INFO] agent.auth.handler: authentication successful, sending token to sinks';
    const missing = '[WARN] agent: (view) vault.read(kv/data/istioca): no secret exists (retry attempt 1 after "1s")';
    const said = '[WARN] agent: (view) vault.read(kv/data/istioca): no secret exists';
    expect(relevantLines([sealed, loggedIn, missing].join('\n'), 'agent')).toEqual([said]);
    expect(relevantLines([sealed, loggedIn].join('\n'), 'agent')).toEqual([sealed]);
  });

  it('say a thing once: not under another head, nor its end again', () => {
    const text = 'failed to create CA: incomplete signing CA bundle detected';
    expect(relevantLines(`2026-01-01T00:00:00.000001Z\terror\t${text}\nError: ${text}`, 'discovery')).toEqual([
      `Error: ${text}`,
    ]);
    const whole = agentLog(1, '2026-01-01T00:00:00.000Z');
    const end = whole.split('\n').slice(2).join('\n');
    expect(relevantLines(`${end}\n${whole}`, 'agent')).toEqual(relevantLines(whole, 'agent'));
  });

  it.each([
    ['read udp 10.0.0.3:54321->10.96.0.10:53: i/o timeout', 'read udp 10.0.0.3->10.96.0.10:53: i/o timeout'],
    ['error after 1.25s, 3m12s and 250ms', 'error after …, … and …'],
    ['\u001b[31merror\u001b[0m', 'error'],
    ['at 2026-01-01 10:00:00,123 error', 'at … error'],
  ])('%j becomes %j', (line, expected) => {
    expect(cleaned(line)).toBe(expected);
  });

  it('do not depend on the order in which they came', () => {
    const lines = ['[ERROR] b', '[ERROR] a', '[WARN] error d', '[WARN] error c', 'panic: e'];
    fc.assert(
      fc.property(fc.shuffledSubarray(lines, { minLength: lines.length }), (shuffled) => {
        expect(relevantLines(shuffled.join('\n'), 'agent')).toEqual(['[ERROR] a', '[ERROR] b', '[WARN] error c']);
      }),
    );
  });
});

describe('secrets', () => {
  const secrets = fc.oneof(
    fc.stringMatching(/^hvs\.[A-Za-z0-9]{24,90}$/),
    fc.stringMatching(/^s\.[A-Za-z0-9]{24}$/),
    fc.stringMatching(/^eyJ[A-Za-z0-9]{10,40}\.eyJ[A-Za-z0-9]{10,40}\.[A-Za-z0-9]{20,40}$/),
    fc.stringMatching(/^[A-Za-z0-9+/]{64}$/).map((body) => `-----BEGIN RSA PRIVATE KEY-----\n${body}\n-----END RSA PRIVATE KEY-----`),
  ); // prettier-ignore
  const around = fc.string({ maxLength: 500 });

  it('never come through, wherever they stand and are cut', () => {
    fc.assert(
      fc.property(around, secrets, around, fc.integer({ min: 20, max: 600 }), (before, secret, after, most) => {
        const text = `[ERROR] ${before} ${secret} ${after}`;
        const shown = [cleaned(text, most), ...relevantLines(text, 'agent'), ...relevantLines(text, 'other')].join(
          '\n',
        );
        const telltale = secret.includes('PRIVATE KEY') ? secret.split('\n')[1]! : secret.slice(0, 24);
        expect(shown).not.toContain(telltale);
      }),
      { numRuns: 500 },
    );
  });

  it('lines are bounded, well-formed and without control characters', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 3000 }), (text) => {
        for (const line of [cleaned(text), ...relevantLines(`[ERROR] ${text}`, 'agent')]) {
          expect(line.length).toBeLessThanOrEqual(400);
          expect(line).not.toMatch(/\p{Cc}/u);
          expect(line.isWellFormed()).toBe(true);
        }
      }),
    );
  });
});
