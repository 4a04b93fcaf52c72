import { describe, expect, it } from '@jest/globals';
import { decidingRule, longestPolicy, readPolicyRules, templatedRules, type PolicyRule } from './policy-rules.ts';

const rule = (path: string, capabilities: string[], refusing: string[] = [], others: string[] = []): PolicyRule => ({
  path,
  capabilities,
  refusing,
  others,
});

describe('what a policy grants', () => {
  it.each<[string, string, PolicyRule[]]>([
    ['a rule', 'path "kv/istioca" {\n  capabilities = ["read"]\n}', [rule('kv/istioca', ['read'])]],
    ['comments', '# a\npath "a" { // b\n /* c " */ capabilities = ["read"] }', [rule('a', ['read'])]],
    ['a leading slash', 'path "/kv/a" { capabilities = ["read",] }', [rule('kv/a', ['read'])]],
    ['the old attribute', 'path "a" { policy = "read" }', [rule('a', ['read', 'list'])]],
    [
      'further attributes',
      'path "a" { capabilities = ["read"] min_wrapping_ttl = "1m" comment = "b" }',
      [rule('a', ['read'], ['min_wrapping_ttl'])],
    ],
    [
      'blocks within a rule',
      'path "a" { capabilities = ["read"] allowed_parameters = { "*" = [] } control_group = { factor "b" { identity { group_names = ["c"] } } } }',
      [rule('a', ['read'], ['control_group'], ['allowed_parameters'])],
    ],
    ['a name before the rules', 'name = "old"\npath "a" { capabilities = ["read"] }', [rule('a', ['read'])]],
    ['JSON', '{"path": {"a": {"capabilities": ["read", "list"]}}}', [rule('a', ['read', 'list'])]],
    ['nothing', ' # only this\n', []],
    ['a comment without a line end', 'path "a" { capabilities = ["read"] } # b', [rule('a', ['read'])]],
    [
      'capabilities that are given twice, which Vault combines',
      'path "a" { capabilities = ["deny"] capabilities = ["read"] }',
      [rule('a', ['deny', 'read'])],
    ],
    ['escaped quotes and backslashes', String.raw`path "a\"\\" { capabilities = [] }`, [rule('a"\\', [])]],
    [
      'attributes without effect',
      'path "a" { min_wrapping_ttl = "0s" max_wrapping_ttl = 0 required_parameters = [] mfa_methods = [] }',
      [rule('a', [])],
    ],
    [
      'the end of a rule',
      'path "a" { expiration = "2027-01-02T03:04:05Z" } path "b" { expiration = 1800000000 }',
      [
        { ...rule('a', []), endsMs: Date.UTC(2027, 0, 2, 3, 4, 5) },
        { ...rule('b', []), endsMs: 1_800_000_000_000 },
      ],
    ],
    [
      'JSON with numbers and further attributes',
      '{"name": "a:b", "path": {"a": {"capabilities": ["read"], "min_wrapping_ttl": 60, "expiration": 1800000000}}}',
      [{ ...rule('a', ['read'], ['min_wrapping_ttl']), endsMs: 1_800_000_000_000 }],
    ],
  ])('%s', (_what, text, rules) => {
    expect(readPolicyRules(text)).toEqual(rules);
  });

  it.each([
    ['an open block', 'path "a" { capabilities = ["read"]'],
    ['an open string', 'path "a { }'],
    ['an open comment', 'path "a" { } /* '],
    ['another block', 'key "a" { }'],
    ['a bare word', 'read'],
    ['JSON without paths', '{"a": 1}'],
    ['JSON that is cut off', '{"path": {'],
    ['more text than is read', `# ${'a'.repeat(longestPolicy)}`],
    ['deep nesting', `path "a" { b = ${'['.repeat(1000)}`],
    ['capabilities that are no list', 'path "a" { capabilities = "read" }'],
    ['capabilities in a block', 'path "a" { capabilities { a = "read" } }'],
    ['capabilities that are no texts', 'path "a" { capabilities = [["read"]] }'],
    ['capabilities in JSON that have no text', '{"path": {"a": {"capabilities": [{"toString": 1}]}}}'],
    [
      'capabilities in JSON in deep nesting',
      `{"path": {"a": {"capabilities": [${'['.repeat(9999)}${']'.repeat(9999)}]}}}`,
    ],
    ['an attribute in JSON that has no text', '{"path": {"a": {"capabilities": ["read"], "policy": {"toString": 1}}}}'],
    ['an old attribute with a name of JavaScript', 'path "a" { policy = "constructor" }'],
    ['an old attribute that is given twice', 'path "a" { policy = "deny" policy = "read" }'],
    ['a path that JSON has twice', '{"path": {"a": {"capabilities": ["deny"]}, "a": {"capabilities": ["read"]}}}'],
    ['capabilities that JSON has twice', '{"path": {"a": {"capabilities": ["deny"], "capabilities": ["read"]}}}'],
    ['paths that JSON has twice', '{"path": {"a": {"capabilities": ["deny"]}}, "path": {}}'],
    ['a code of a character', String.raw`path "a\u0062" { capabilities = ["read"] }`],
    ['a short code of a character', String.raw`path "a\x62" { capabilities = ["read"] }`],
    ['an octal code of a character', String.raw`path "a\142" { capabilities = ["read"] }`],
    ['a line break in a path', String.raw`path "a\n" { capabilities = ["read"] }`],
    ['an interpolation', 'path "a${b}" { capabilities = ["read"] }'],
    ['paths as an attribute', 'path = "a"'],
    ['an end that is no time', 'path "a" { expiration = "tomorrow" }'],
  ])('is unknown: %s', (_what, text) => {
    expect(readPolicyRules(text)).toBeUndefined();
  });
});

describe('the rule that decides about a path', () => {
  it.each<[string, string[], string, string | undefined]>([
    ['the path itself before wildcards', ['kv/*', 'kv/+/a', 'kv/data/a'], 'kv/data/a', 'kv/data/a'],
    ['the longer prefix', ['kv/*', 'kv/data/*'], 'kv/data/a', 'kv/data/*'],
    ['a later wildcard', ['+/data/a', 'kv/+/a'], 'kv/data/a', 'kv/+/a'],
    ['no prefix before a prefix at the same place', ['kv/+/a*', 'kv/+/a'], 'kv/data/a', 'kv/+/a'],
    ['fewer segments left open', ['kv/+/+', 'kv/+/a'], 'kv/data/a', 'kv/+/a'],
    ['a prefix within a segment', ['kv/data/is*'], 'kv/data/istioca', 'kv/data/is*'],
    ['a prefix of several segments', ['*'], 'kv/data/istioca', '*'],
    ['a segment is not several', ['kv/+'], 'kv/data/a', undefined],
    ['another path', ['kv/data/b'], 'kv/data/a', undefined],
    ['a path above', ['kv/data'], 'kv/data/a', undefined],
  ])('%s', (_what, patterns, path, expected) => {
    expect(
      decidingRule(
        patterns.map((pattern) => rule(pattern, ['read'])),
        path,
      )?.path,
    ).toBe(expected);
  });

  it('combines rules of the same path', () => {
    expect(decidingRule([rule('a', ['read']), rule('a', ['list'], ['mfa_methods'])], 'a')).toEqual(
      rule('a', ['read', 'list'], ['mfa_methods']),
    );
  });
  it('deny wins', () => {
    expect(decidingRule([rule('a', ['read']), rule('a', ['deny'])], 'a')?.capabilities).toEqual(['deny']);
  });
});

describe('rules with templates', () => {
  it.each<[string, string, boolean]>([
    ['which begin like the path', 'kv/data/{{identity.entity.name}}', true],
    ['which begin with a template', '{{identity.entity.metadata.mount}}/*', true],
    ['with a segment left open before', '+/data/{{identity.entity.id}}', true],
    ['which begin otherwise', 'secret/{{identity.entity.id}}', false],
    ['without any', 'kv/data/*', false],
  ])('can match if Vault fills in what fits: %s', (_what, path, expected) => {
    expect(templatedRules([rule(path, ['read'])], 'kv/data/istioca')).toHaveLength(expected ? 1 : 0);
  });
});
