/**
 * Functions that read texts from elsewhere, with harmless repetitive texts: each has a limit, and none takes time that grows with the
 * square of the length. The one test of the project that measures time, as a ratio of processor times: 16 for a linear function, 256 for a
 * quadratic one.
 */
import { runInNewContext } from 'node:vm';
import { beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { cleaned, relevantLines } from '../../src/istiod/log-lines.ts';
import { bundleReader } from '../../src/istiod/bundles.ts';
import {
  bundleFacts,
  bundleFingerprints,
  certificateFacts,
  publicKeyOfPrivate,
} from '../../src/plan/facts/certificate.ts';
import { DerivedState } from '../../src/plan/facts/derived.ts';
import { accessDiffers, nameList, unmanagedNotes } from '../../src/plan/vault/unmanaged-access.ts';
import { readPolicyRules } from '../../src/plan/vault/policy-rules.ts';
import { listsIn, longestList, revocationList } from '../../src/plan/facts/revocation-list.ts';
import { parseMarker } from '../../src/plan/facts/identity.ts';
import { toKubeError } from '../../src/kube/errors.ts';
import { isTooLong } from '../../src/control-planes/istio-path.ts';
import { istioOperatorPaths, istiodValuesOf, patchReader } from '../../src/control-planes/istiod-values.ts';
import { loadYaml } from '../../src/runtime/yaml.ts';
import { head, printable } from '../../src/text/bounded.ts';
import { pemLimits, splitPem } from '../../src/text/pem.ts';
import { redact } from '../../src/text/redact.ts';
import { roleOf } from '../../src/vault/access.ts';
import { clean } from '../../src/vault/errors.ts';
import { Body } from '../../src/vault/transport.ts';
import { safeError } from '../../src/observability/logger.ts';
import { makeForeignRoot } from '../support/foreign-root.ts';
import { desiredOf, emptyWorld, start } from './model.ts';

/** Repeats a text to at least this many characters. */
const repeated = (text: string, length: number): string =>
  text.repeat(Math.ceil(length / text.length)).slice(0, length);

/** Harmless texts that a pattern with nested or open ends reads again and again: repeated, and the end that follows the repetitions. */
const repetitive: Readonly<Record<string, string | [repeated: string, end: string]>> = {
  'first lines of certificates': '-----BEGIN CERTIFICATE-----\n',
  'first lines of keys': '-----BEGIN PRIVATE KEY-----!',
  'first lines of revocation lists': '-----BEGIN X509 CRL-----\n',
  'first and last lines of revocation lists': '-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n',
  'first and last lines of certificates': '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n',
  'beginnings of JWTs': 'eyJ',
  'beginnings of JWTs with hyphens': 'eyJ-',
  'beginnings of JWTs with dots': 'eyJeyJeyJ.',
  'beginnings of tokens': 's.hvs.b.',
  spaces: ' ',
  tabs: '\t',
  'line breaks': '\n',
  'indented lines': ' x\n',
  'one letter': 'a',
  digits: '1',
  durations: '1.5s',
  'durations in one word': '1m1s',
  addresses: '1.1.1.1.',
  colours: '[1;1;1',
  'retries of an agent': '(retry attempt 1 after "',
  'levels of an agent': '[WARN] ',
  'errors of istiod': 'failed to create ',
  'lines with errors': 'error x\n',
  'ownership markers': 'istio-vault-ca cluster=a ns=b name=',
  'numbers with spaces': 'backoff= 1s ',
  'letters beyond the first plane': '𝓐',
  'keys of YAML': 'a: b\n',
  'anchors of YAML': '- &a b\n',
  'text without end in YAML': '"',
  'open rules of a policy': 'path "a" { ',
  'rules of a policy': 'path "a" { }\n',
  'open comments of a policy': '/* *',
  // a character that begins nothing shows whether what is before it can be read in several ways
  'signs of comments before what is no token': ['#', '\n@'],
  'slashes of comments before what is no token': ['//', '\n@'],
  'lines of comments before what is no token': ['# a\n', '@'],
  'comments before what is no token': ['/* * */', '@'],
  'spaces before what is no token': [' ', '@'],
  'line breaks before what is no token': ['\n', '@'],
  'strings before what is no token': ['"a" ', '@'],
  'escaped quotes before what is no token': ['\\"', '\n@'],
  'words before what is no token': ['a.+- ', '@'],
  'one word before what is no token': ['a', '@'],
  'marks before what is no token': ['{[,=:]}', '@'],
};

/** Functions of texts from elsewhere. Each returns something whose size its limit bounds. */
const readers: Readonly<Record<string, (text: string) => unknown>> = {
  splitPem: (text) => splitPem(text),
  bundleFacts: (text) => bundleFacts(text),
  listsIn: (text) => listsIn(text),
  revocationList: (text) =>
    revocationList(`-----BEGIN X509 CRL-----\n${text.slice(0, longestList - 60)}\n-----END X509 CRL-----\n`),
  bundleFingerprints: (text) => bundleFingerprints(text),
  bundleReader: (text) => bundleReader()(text).roots,
  certificateFacts: (text) => certificateFacts(text),
  publicKeyOfPrivate: (text) => publicKeyOfPrivate(text),
  redact: (text) => redact(text),
  'clean, of errors of Vault': (text) => clean(text),
  'cleaned, of messages of Pods': (text) => cleaned(text),
  'relevantLines of an agent': (text) => relevantLines(text, 'agent'),
  'relevantLines of istiod': (text) => relevantLines(text, 'discovery'),
  'relevantLines of another program': (text) => relevantLines(text, 'other'),
  safeError: (text) => safeError(new Error(text)),
  toKubeError: (text) => toKubeError({ code: 403, body: { kind: 'Status', message: text } }),
  parseMarker: (text) => parseMarker(text),
  readPolicyRules: (text) => readPolicyRules(text),
  accessDiffers: (text) => accessDiffers(roleWith({ bound_service_account_names: text.match(/[^]{1,4}/g) ?? [] })),
  'accessDiffers, of names of policies': (text) => accessDiffers(roleWith({ token_policies: text.split(/[ \n]/) })),
  'accessDiffers, of one name': (text) => accessDiffers(roleWith({ bound_service_account_namespaces: [text] })),
  'accessDiffers, of a policy': (text) => {
    const world = emptyWorld();
    Object.assign(world.vault, { policy: `path "kv/data/istioca" { capabilities = ["read"] }\n${text}` });
    return accessDiffers(new DerivedState(unmanaged, world, start));
  },
  // one patch for 1,750 characters: 299 of the longest text; 300 are still read
  'istiodValuesOf, of an overlay': (text) => {
    const path = 'spec.components.pilot.k8s.env.[name:A].value';
    const patches = Array.from({ length: Math.floor(text.length / 1_750) }, () => ({ path, value: 'a' }));
    return istiodValuesOf(patchReader(patches), istioOperatorPaths);
  },
  loadYaml: (text) => attempt(() => loadYaml(text)),
  printable: (text) => printable(text),
  head: (text) => head(text, 1000),
};

/** Functions with a limit of 64 KiB, which read nothing of a longer text: their texts are shorter by this factor. */
const shorterBy: Readonly<Record<string, number>> = {
  readPolicyRules: 8,
  'accessDiffers, of a policy': 8.1,
  loadYaml: 8,
};

/** The texts of functions that take long to prepare or to run, and whose time other texts do not change; any other function has all of them. */
const texts: Readonly<Record<string, RegExp>> = {
  accessDiffers: /^(one letter|spaces)$/,
  'istiodValuesOf, of an overlay': /^one letter$/,
  'accessDiffers, of names of policies': /^(spaces|line breaks|keys of YAML)$/,
  loadYaml: /YAML|^(spaces|line breaks|indented lines)$/,
};

const unmanaged = desiredOf({ policy: { manage: false }, kubernetesAuth: { manage: false } });

/** A state with a role that an administrator of Vault wrote. @param fields of Vault's answer */
function roleWith(fields: Record<string, unknown>): DerivedState {
  const world = emptyWorld();
  world.vault.role = roleOf(fields);
  return new DerivedState(unmanaged, world, start);
}

/** Harmless texts can still be no YAML. */
function attempt(read: () => unknown): unknown {
  try {
    return read();
  } catch (error) {
    return error;
  }
}

/** A call that takes longer than this is ended, so that the test fails instead of going on for hours, milliseconds. */
const longestCallMs = 60_000;

/** Processor time of a call, microseconds. @throws if the call takes too long */
function cpuTime(call: () => unknown): number {
  const before = process.cpuUsage();
  runInNewContext('call()', { call }, { timeout: longestCallMs });
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

/**
 * Median of three measurements of the processor time of a call, microseconds; at least one, so that it can divide.
 * @param measured the first ones
 */
function medianTime(call: () => unknown, measured: readonly number[] = []): number {
  const times = [...measured, ...Array.from({ length: 3 - measured.length }, () => cpuTime(call))];
  return Math.max(1, times.sort((a, b) => a - b)[1] ?? 0);
}

/** Below this processor time of the long text, in microseconds, the short one cannot be measured: nobody has to wait for it either. */
const unnoticed = 5_000;

describe('the time for texts from elsewhere', () => {
  describe.each(Object.keys(readers))('%s', (name) => {
    const kinds = Object.keys(repetitive).filter((kind) => texts[name]?.test(kind) ?? true);
    it.each(kinds)('grows no faster than %s do', (kind) => {
      const read = readers[name] ?? fail(name);
      const [part, end] = [repetitive[kind] ?? fail(kind)].flat();
      const text = (length: number) =>
        repeated(part ?? '', length / (shorterBy[name] ?? 1) - (end ?? '').length) + (end ?? '');
      const [short, long] = [text(32 * 1024), text(512 * 1024)];
      const once = cpuTime(() => read(long));
      if (once <= unnoticed) return;
      expect(medianTime(() => read(long), [once]) / medianTime(() => read(short))).toBeLessThan(64);
    });
  });
});

function fail(what: string): never {
  throw new Error(`no ${what}`);
}

describe('limits of texts from elsewhere', () => {
  let block: string;
  beforeAll(async () => {
    block = (await makeForeignRoot()).pem;
  });

  it('a bundle: 300 certificates, and half a mebibyte', () => {
    expect(splitPem(block.repeat(1000))).toHaveLength(
      Math.min(pemLimits.most, Math.floor(pemLimits.longest / block.length)),
    );
    expect(splitPem('-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n'.repeat(1000))).toHaveLength(300);
    expect(splitPem(`${' '.repeat(pemLimits.longest)}${block}`)).toEqual([]);
  });

  it('a bundle of a namespace: 64 KiB, and equal ones are read once', () => {
    const read = bundleReader();
    expect(read(block).roots).toEqual([certificateFacts(block)?.fingerprint]);
    expect(read(block)).toBe(read([block].join('')));
    expect(read(`${' '.repeat(64 * 1024)}${block}`).roots).toEqual([]);
  });

  it('bundles of all namespaces together: 16 MiB', () => {
    const read = bundleReader();
    for (let i = 0; i < 256; i += 1) read(repeated(`${i} `, 64 * 1024));
    expect(read(block).roots).toEqual([]);
  });

  it('a certificate or key: 32 KiB', () => {
    const long = block.replace('\n-----END', `\n${'\n'.repeat(32 * 1024)}-----END`);
    expect(certificateFacts(block)).toBeDefined();
    expect(certificateFacts(long)).toBeUndefined();
    expect(publicKeyOfPrivate(repeated('a', 40 * 1024))).toBeUndefined();
  });

  it('an error of Vault: one line of 300 characters, and no part of a word that the limit cuts', () => {
    expect(clean(repeated('word ', 100_000)).length).toBeLessThanOrEqual(300);
    expect(clean(`a\u0007b\u001b[31m\nc`)).toBe('a b [31m c');
    const token = `hvs.${'x'.repeat(95)}`;
    for (let before = 3980; before < 4100; before += 1)
      expect(clean(`${'\n'.repeat(before)}${token}`)).toMatch(/^(\[redacted token\])?$/);
  });

  it('lines of a log: three, of 400 characters', () => {
    const lines = relevantLines(repeated(`error ${'y '.repeat(3000)}\nerror z\n`, 1024 * 1024), 'other');
    expect(lines.length).toBeLessThanOrEqual(3);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(400);
  });

  it('YAML of the cluster: 64 KiB', () => {
    expect(() => loadYaml(`# ${repeated('a', 70 * 1024)}`)).toThrow('longer than 64 KiB');
  });

  it('bodies of Vault together: 64 MiB, and the longest makes room', () => {
    const given: number[] = [];
    const chunk = Buffer.alloc(1024 * 1024);
    const bodies = Array.from({ length: 17 }, (_, i) => new Body(4 * chunk.length, () => given.push(i)));
    for (const body of bodies) for (let n = 0; n < (body === bodies[16] ? 1 : 4); n += 1) body.add(chunk);
    expect(given).toHaveLength(1);
    expect(given[0]).toBeLessThan(16);
    for (const body of bodies) body.release();
  });

  it('a role: 200 names of a kind, of 253 characters, on one line', () => {
    const names = Array.from({ length: 201 }, (_, i) => `name-${i}`);
    for (const field of ['bound_service_account_names', 'bound_service_account_namespaces', 'token_policies']) {
      const { serviceAccountNames, serviceAccountNamespaces, policies, more } = roleOf({ [field]: names });
      expect([...serviceAccountNames, ...serviceAccountNamespaces, ...policies]).toHaveLength(200);
      expect(more).toBe(true);
      expect(roleOf({ [field]: names.slice(1) }).more).toBeUndefined();
    }
    const foreign = `a\u0007b\n${repeated('c', 1000)}`;
    const { serviceAccountNames, audience } = roleOf({ bound_service_account_names: [foreign], audience: foreign });
    expect([...serviceAccountNames, audience]).toEqual([`a b ${'c'.repeat(248)}…`, `a b ${'c'.repeat(248)}…`]);
  });

  it('what a condition says of a role and a policy: the first names, and of each 100 characters', () => {
    const long = (letter: string) => letter.repeat(300);
    const state = roleWith({
      bound_service_account_names: ['istiod', ...['a', 'b', 'c', 'd', 'e', 'f', 'g'].map(long)],
      token_policies: [`istioca\u001b[31m`],
    });
    state.vault.policy = `path "kv/\u001b[31m${long('a')}" { capabilities = ["read"] }`;
    const { message = '' } = accessDiffers(state) ?? {};
    expect(message).toMatch(/lets in service accounts a{99}…, b{99}…, c{99}…, d{99}…, e{99}… and 2 more/);
    const notes = unmanagedNotes(state).join('; ');
    expect(notes).toMatch(/also gives policies istioca \[31m; .*|grants more than that, on kv\/ \[31ma+…/);
    expect(`${message}${notes}`).toBe(printable(`${message}${notes}`));
    expect(nameList(Array.from({ length: 200 }, () => long('a'))).length).toBeLessThan(600);
  });

  it('patches of an overlay: 300, and 128 KiB', () => {
    const patches = (count: number, text: string) =>
      Array.from({ length: count }, () => ({ path: 'spec.a', value: text }));
    expect(isTooLong(patches(300, 'a'))).toBe(false);
    expect(isTooLong(patches(301, 'a'))).toBe(true);
    expect(isTooLong(patches(3, repeated('a', 50 * 1024)))).toBe(true);
  });

  it('control characters and invisible ones become spaces', () => {
    expect(printable('a\u0000b\u009bc\u202ed\u2028e\u200bf')).toBe('a b c d e f');
    expect(printable('Zürich – 東京 🙂')).toBe('Zürich – 東京 🙂');
  });
});

describe('redact', () => {
  /** The same by patterns that need more time for long texts. */
  function reference(text: string): string {
    const key =
      /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:[^"]*?-----END [A-Z0-9 ]*PRIVATE KEY-----|[A-Za-z0-9+/=:,\s-]*(?:\\[nr][A-Za-z0-9+/=:,\s-]*)*)/g;
    const jwt =
      /eyJ[A-Za-z0-9_-]{5,}\.(?:eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?|[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*)/g;
    return text.replaceAll(key, '[redacted private key]').replaceAll(jwt, '[redacted JWT]');
  }

  it('finds what the patterns of a key and of a JWT describe', () => {
    const part = fc.constantFrom(
      ...['-----BEGIN PRIVATE KEY-----', '-----BEGIN RSA PRIVATE KEY-----', '-----END PRIVATE KEY-----', '"', '!'],
      ...['\n', '\\n', ' ', 'abc', 'MIIE', 'eyJ', 'eyJhbGciOi', '.', '-', '_', 'x', '-----BEGIN CERTIFICATE-----'],
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 14 }), (parts) => {
        const text = parts.join('');
        expect(redact(text)).toBe(reference(text));
      }),
      { numRuns: 3000 },
    );
  });
});
