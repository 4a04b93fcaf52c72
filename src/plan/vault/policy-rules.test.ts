import { describe, expect, it } from '@jest/globals';
import { decidingRule, longestPolicy, readPolicyRules } from './policy-rules.ts';

const rule = (path: string, capabilities: string[], conditions: string[] = []) => ({ path, capabilities, conditions });

describe('what a policy grants', () => {
  it.each<[string, string, ReturnType<typeof rule>[]]>([
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
      [rule('a', ['read'], ['allowed_parameters', 'control_group'])],
    ],
    ['a name before the rules', 'name = "old"\npath "a" { capabilities = ["read"] }', [rule('a', ['read'])]],
    ['JSON', '{"path": {"a": {"capabilities": ["read", "list"]}}}', [rule('a', ['read', 'list'])]],
    ['nothing', ' # only this\n', []],
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
