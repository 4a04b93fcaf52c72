/** Policy and role that an administrator of Vault manages (`manage: false`): what is said of them, and that nothing is written. */
import { describe, expect, it } from '@jest/globals';
import type { KubernetesRole, Observed, ObservedVault } from '../../src/plan/facts/observed.ts';
import { plan } from '../../src/plan/plan.ts';
import { operatorPolicy } from '../../src/plan/vault/capabilities.ts';
import { cleanup, possiblyLeft } from '../../src/plan/vault/cleanup.ts';
import { statusOf } from '../../src/plan/status/status.ts';
import { converge, desiredOf, emptyWorld, handMadeWorld, identity, minimalSpec, start } from './model.ts';

const unmanaged = { policy: { manage: false }, kubernetesAuth: { manage: false } };
const d = desiredOf(unmanaged);

const fittingRole: KubernetesRole = {
  serviceAccountNames: ['istiod'],
  serviceAccountNamespaces: [identity.namespace],
  policies: ['istioca'],
  tokenTtl: 86_400,
  audience: '',
  otherFields: [],
};
const fittingPolicy = 'path "kv/data/istioca" { capabilities = ["read"] }';

/** A world in which somebody else has written policy and role. @param accounts service accounts of istiod's Deployments */
function world(vault: Partial<ObservedVault> = {}, accounts: string[] | 'unreadable' = []): Observed {
  const empty = emptyWorld();
  Object.assign(empty.vault, { policy: fittingPolicy, role: fittingRole, authMount: undefined, ...vault });
  empty.kubernetes.istiodServiceAccounts = accounts;
  return empty;
}

/** `AccessReady` of a world in which nothing else is to be done, and whether the control plane has got its fields. @param over of the spec */
function accessOf(from: Observed, over: Record<string, unknown> = {}) {
  const spec = {
    ...unmanaged,
    ...over,
    kubernetesAuth: { ...unmanaged.kubernetesAuth, ...(over['kubernetesAuth'] ?? {}) },
  };
  const d = desiredOf(spec);
  const { world: at, last } = converge(d, from);
  const resource = {
    metadata: { name: 'a', namespace: 'b', uid: 'u', generation: 1, resourceVersion: '1', annotations: {} },
    spec: minimalSpec(spec),
  } as unknown as Parameters<typeof statusOf>[0]['resource'];
  const status = statusOf({ resource, desired: d, observed: at, problems: last.problems, now: start });
  const condition = status.conditions?.find(({ type }) => type === 'AccessReady');
  return { ...condition, fields: at.kubernetes.controlPlane?.carriesFields };
}

describe('what is written', () => {
  it('everything but policy, role and auth mount', () => {
    const { done, last, world: at } = converge(d, world());
    expect(done.map(({ kind }) => kind).filter((kind) => /Policy|Role|Auth/.test(kind))).toEqual([]);
    expect(last).toEqual({ problems: [], steps: [] });
    expect(at.vault.role).toEqual(fittingRole);
  });

  it('no right to write them is asked for', () => {
    const policy = operatorPolicy(minimalSpec(unmanaged), { authMount: false, authConfig: false, auditDevice: false });
    expect(policy).toContain('path "sys/policies/acl/istioca" {\n  capabilities = ["read"]\n}');
    expect(policy).toContain('path "auth/kubernetes/role/istiod" {\n  capabilities = ["read"]\n}');
    expect(policy).toContain('path "auth/kubernetes/config" {\n  capabilities = ["read"]\n}');
    expect(policy).not.toMatch(/sys\/auth/);
  });

  it('a role that was not managed is taken over only with spec.adopt, and then counts as adopted', () => {
    const { world: at } = converge(d, world());
    const managed = (adopt: boolean) => desiredOf({ adopt });
    at.vault.authMount = { type: 'kubernetes', description: '', maxLeaseTtl: 0 };
    expect(plan(managed(false), at, start).problems.map(({ reason }) => reason)).toEqual([
      'MountNotOwned',
      'MountNotOwned',
    ]);
    const { world: after, last } = converge(managed(true), at);
    expect(last).toEqual({ problems: [], steps: [] });
    const { state } = after.vault;
    expect(typeof state.entry === 'object' && [...state.entry.adopted, state.entry.role]).toEqual([
      'policy:istioca',
      'role:istiod',
      'istiod',
    ]);
  });
});

describe('manage: false and back', () => {
  type Managed = { policy?: boolean; role?: boolean };
  const of = ({ policy = true, role = true }: Managed, over: Record<string, unknown> = {}) =>
    desiredOf({ ...over, policy: { manage: policy }, kubernetesAuth: { manage: role } });
  /** A world in which an administrator wrote policy and role, after the operator had made its own. */
  function rewritten(before: Managed = {}, from = emptyWorld(), adopt = false): Observed {
    const { world: provisioned } = converge(of(before, { adopt }), from);
    const { world: at, done } = converge(of({ policy: false, role: false }), provisioned);
    expect(done.map(({ kind }) => kind).filter((kind) => kind !== 'WriteState')).toEqual([]);
    Object.assign(at.vault, { policy: fittingPolicy, role: { ...fittingRole, otherFields: ['token_num_uses'] } });
    at.vault.authMount ??= { type: 'kubernetes', description: '', maxLeaseTtl: 0 };
    return at;
  }
  const written = (steps: { kind: string }[]) =>
    steps.map(({ kind }) => kind).filter((kind) => /Policy|Role/.test(kind));
  const reasons = (problems: { reason: string }[]) => problems.map(({ reason }) => reason);

  it.each<[string, Managed, string[]]>([
    ['policy and role', {}, ['MountNotOwned', 'MountNotOwned']],
    ['the policy', { role: false }, ['MountNotOwned']],
    ['the role', { policy: false }, ['MountNotOwned']],
  ])('%s of the administrator stay until spec.adopt', (_what, managed, expected) => {
    const { done, last } = converge(of(managed), rewritten());
    expect([written(done), reasons(last.problems).filter((r) => r === 'MountNotOwned')]).toEqual([[], expected]);
    const adopted = converge(of(managed, { adopt: true }), rewritten());
    expect(written(adopted.done).length).toBeGreaterThan(0);
    expect(reasons(adopted.last.problems)).not.toContain('MountNotOwned');
  });

  it('also where the operator had adopted what was there before', () => {
    const at = rewritten({}, handMadeWorld(of({})), true);
    const found = reasons(plan(of({}), at, start).problems);
    expect(found.filter((reason) => reason === 'MountNotOwned')).toHaveLength(2);
  });

  it('a role for the policy of this resource is not taken for its own while the state entry says otherwise', () => {
    const { world: at } = converge(of({ role: false }), world({ policy: undefined }));
    at.vault.authMount = { type: 'kubernetes', description: '', maxLeaseTtl: 0 };
    const { done, last } = converge(of({}), at);
    expect([written(done), reasons(last.problems)]).toEqual([[], ['MountNotOwned']]);
    expect(last.problems[0]?.message).toContain('set spec.adopt: true');
    const { world: adopted } = converge(of({}, { adopt: true }), at);
    const removed = converge(of({}, { adopt: true, deletionPolicy: 'Delete' }), adopted, { next: cleanup });
    expect(removed.done.map(({ kind }) => kind)).toContain('DeletePolicy');
    expect(removed.world.vault.role).toBeDefined();
  });

  it('a role for the policy of this resource counts as its own if the state entry is lost', () => {
    const { world: at } = converge(of({}), emptyWorld());
    at.vault.state = { casVersion: 0, entry: undefined };
    expect(converge(of({}), at).last).toEqual({ problems: [], steps: [] });
  });

  it('what is gone meanwhile is made again, without spec.adopt', () => {
    const at = rewritten();
    Object.assign(at.vault, { policy: undefined, role: undefined });
    const { done, last } = converge(of({}), at);
    expect([written(done).sort(), last.problems]).toEqual([['WritePolicy', 'WriteRole'], []]);
  });

  it('a policy that still carries the marker is still this resource’s', () => {
    const { world: provisioned } = converge(of({}), emptyWorld());
    const { world: at } = converge(of({ policy: false }), provisioned);
    expect(converge(of({}), at).last).toEqual({ problems: [], steps: [] });
  });

  it('what can be left by a deletion that gives up is without what the administrator manages', () => {
    expect(possiblyLeft(of({})).slice(0, 2)).toEqual(['auth/kubernetes/role/istiod', 'policy istioca']);
    expect(possiblyLeft(of({ role: false }))[0]).toBe('policy istioca');
    expect(possiblyLeft(of({ policy: false, role: false })).join()).not.toMatch(/role|policy/);
  });

  it.each<[string, Managed]>([
    ['policy and role', { policy: false, role: false }],
    ['the policy', { policy: false }],
    ['the role', { role: false }],
  ])('a deletion leaves %s that the operator made before', (_what, managed) => {
    const deleting = (m: Managed) => of(m, { deletionPolicy: 'Delete' });
    const { world: at } = converge(deleting(managed), converge(of({}), emptyWorld()).world);
    const { world: end, last } = converge(deleting(managed), at, { next: cleanup });
    expect(last).toEqual({ problems: [], steps: [] });
    expect(end.vault.policy !== undefined).toBe(managed.policy === false);
    expect(end.vault.role !== undefined).toBe(managed.role === false);
  });
});

describe('what is said of a policy', () => {
  it.each<[string, string | undefined, object]>([
    ['it grants exactly what is needed', fittingPolicy, { status: 'True', reason: 'AccessConfigured', fields: true }],
    [
      'by a wildcard',
      'path "kv/data/*" { capabilities = ["read"] }',
      { status: 'True', message: /grants more than that, on kv\/data\/\*/ },
    ],
    [
      'it grants writes too',
      'path "kv/data/istioca" { capabilities = ["read", "update"] }',
      { status: 'True', message: /policy istioca grants more than that, on kv\/data\/istioca/ },
    ],
    [
      'it does not exist',
      undefined,
      { status: 'False', reason: 'AccessDiffers', message: /policy istioca does not exist/, fields: false },
    ],
    [
      'it is for another version of KV',
      'path "kv/istioca" { capabilities = ["read"] }',
      { status: 'False', reason: 'AccessDiffers', message: /lacks read on kv\/data\/istioca/, fields: false },
    ],
    [
      'a more specific rule denies',
      'path "kv/*" { capabilities = ["read"] } path "kv/data/istioca" { capabilities = ["deny"] }',
      { status: 'False', reason: 'AccessDiffers', fields: false },
    ],
    ...['min_wrapping_ttl = "1m"', 'max_wrapping_ttl = 60', 'required_parameters = ["a"]', 'mfa_methods = ["a"]'].map(
      (attribute): [string, string, object] => [
        `it has ${attribute}, which an agent cannot meet`,
        `path "kv/data/istioca" { capabilities = ["read"] ${attribute} }`,
        {
          status: 'False',
          reason: 'AccessDiffers',
          message: new RegExp(`sets ${attribute.split(' ')[0]} on kv/data/istioca, so that Vault refuses`),
          fields: false,
        },
      ],
    ),
    [
      'somebody is to confirm each read',
      'path "kv/data/*" { capabilities = ["read"] control_group = { ttl = "1h" factor "a" { identity { approvals = 1 } } } }',
      { status: 'False', reason: 'AccessDiffers', message: /sets control_group on kv\/data\/istioca/, fields: false },
    ],
    [
      'answers may be wrapped for no time, which means nothing',
      'path "kv/data/istioca" { capabilities = ["read"] min_wrapping_ttl = "0s" }',
      { status: 'True', reason: 'AccessConfigured', fields: true },
    ],
    [
      'parameters of writes are limited',
      'path "kv/data/istioca" { capabilities = ["read"] denied_parameters = { "*" = [] } }',
      { status: 'True', message: /sets denied_parameters for what istiod's agent reads/, fields: true },
    ],
    [
      'the rule has ended',
      'path "kv/data/istioca" { capabilities = ["read"] expiration = "2001-01-01T00:00:00Z" }',
      { status: 'False', reason: 'AccessDiffers', message: /lacks read on kv\/data\/istioca/, fields: false },
    ],
    [
      'a rule that denies has ended',
      'path "kv/data/istioca" { capabilities = ["deny"] expiration = 1000000000 } path "kv/*" { capabilities = ["read"] }',
      { status: 'True', fields: true },
    ],
    [
      'the rule has not ended',
      'path "kv/data/istioca" { capabilities = ["read"] expiration = "2999-01-01T00:00:00Z" }',
      { status: 'True', reason: 'AccessConfigured', fields: true },
    ],
    [
      'Vault fills in a path for each login',
      'path "kv/data/{{identity.entity.metadata.ca}}*" { capabilities = ["read"] }',
      {
        status: 'True',
        message: /fills in for each login, so that read on kv\/data\/istioca is not verified/,
        fields: true,
      },
    ],
    [
      'Vault fills in a path, and a wildcard grants no read',
      'path "{{identity.entity.metadata.ca}}" { capabilities = ["read"] } path "kv/*" { capabilities = ["list"] }',
      { status: 'True', message: /read on kv\/data\/istioca is not verified/, fields: true },
    ],
    [
      'Vault fills in a path, and the path itself is denied',
      'path "kv/data/{{identity.entity.metadata.ca}}" { capabilities = ["read"] } path "kv/data/istioca" { capabilities = ["deny"] }',
      { status: 'False', reason: 'AccessDiffers', fields: false },
    ],
    [
      'Vault fills in a path that can never fit',
      'path "secret/{{identity.entity.id}}" { capabilities = ["read"] }',
      { status: 'False', reason: 'AccessDiffers', message: /lacks read on kv\/data\/istioca/, fields: false },
    ],
    [
      'capabilities are given twice, and one denies',
      'path "kv/data/istioca" { capabilities = ["deny"] capabilities = ["read"] }',
      { status: 'False', reason: 'AccessDiffers', fields: false },
    ],
    [
      'JSON has a path twice',
      '{"path": {"kv/data/istioca": {"capabilities": ["deny"]}, "kv/data/istioca": {"capabilities": ["read"]}}}',
      { status: 'True', message: /is not understood/ },
    ],
    [
      'it denies elsewhere',
      'path "kv/data/istioca" { capabilities = ["read"] } path "secret/*" { capabilities = ["deny"] }',
      { status: 'True', message: /^(?!.*grants more)/ },
    ],
    [
      'one rule grants more, and another denies that',
      'path "kv/data/istioca" { capabilities = ["read"] } path "a" { capabilities = ["read"] } path "a" { policy = "deny" }',
      { status: 'True', message: /^(?!.*grants more)/ },
    ],
    [
      'it grants much elsewhere',
      `path "kv/data/istioca" { capabilities = ["read"] } path "${'a'.repeat(500)}" { capabilities = ["read"] }`,
      { status: 'True', message: /grants more than that, on a{99}…/ },
    ],
    ['it is not understood', 'kv/data/istioca: read', { status: 'True', message: /is not understood/ }],
  ])('%s', (_what, policy, expected) => {
    const { message, ...rest } = expected as { message?: RegExp };
    const access = accessOf(world({ policy }));
    expect(access).toMatchObject(rest);
    expect(access.message).toMatch(message ?? /./);
  });
});

describe('what is said of a role', () => {
  const differs = { status: 'False', reason: 'AccessDiffers' };
  it.each<[string, Partial<KubernetesRole> | undefined, { message?: RegExp; fields?: boolean; status?: string }]>([
    [
      'it does not exist',
      undefined,
      { ...differs, message: /role istiod of auth\/kubernetes does not exist/, fields: false },
    ],
    [
      'another service account',
      { serviceAccountNames: ['web'] },
      { ...differs, message: /lets in service accounts web/, fields: false },
    ],
    [
      'further service accounts',
      { serviceAccountNames: ['istiod', 'web'] },
      { ...differs, message: /lets in service accounts web/, fields: true },
    ],
    [
      'every service account',
      { serviceAccountNames: ['*'] },
      { ...differs, message: /lets in service accounts \*/, fields: true },
    ],
    [
      'the other usual name too',
      { serviceAccountNames: ['istiod', 'istiod-service-account'] },
      { status: 'True', fields: true },
    ],
    [
      'another namespace',
      { serviceAccountNamespaces: ['web'] },
      { ...differs, message: /is not bound to namespace istio-system; lets in namespaces web/, fields: false },
    ],
    [
      'every namespace',
      { serviceAccountNamespaces: ['*'] },
      { ...differs, message: /lets in namespaces \*/, fields: true },
    ],
    [
      'a selector of namespaces',
      { otherFields: ['bound_service_account_namespace_selector'] },
      { ...differs, message: /sets bound_service_account_namespace_selector/, fields: true },
    ],
    ['another policy', { policies: ['web'] }, { ...differs, message: /does not give policy istioca/, fields: false }],
    ['a further policy', { policies: ['istioca', 'web'] }, { status: 'True', message: /also gives policies web/ }],
    [
      'an audience that is not the API server’s',
      { audience: 'vault' },
      { ...differs, message: /has audience vault, which the token of istiod's agent does not have/, fields: false },
    ],
    [
      'an audience that can be the API server’s',
      { audience: 'https://kubernetes.default.svc' },
      {
        status: 'True',
        message: /audience https:\/\/kubernetes.default.svc, and whether .* is not verified/,
        fields: true,
      },
    ],
    [
      'a selector of namespaces, and no namespace',
      { serviceAccountNamespaces: [], otherFields: ['bound_service_account_namespace_selector'] },
      {
        ...differs,
        message: /^(?!.*not bound to namespace).*sets bound_service_account_namespace_selector/,
        fields: true,
      },
    ],
    [
      'names with wildcards that take in istiod',
      { serviceAccountNames: ['istio*d'], serviceAccountNamespaces: ['istio-*'] },
      {
        ...differs,
        message: /^(?!.*is not bound to).*lets in service accounts istio\*d; lets in namespaces istio-\*/,
        fields: true,
      },
    ],
    [
      'names with wildcards that do not take in istiod',
      { serviceAccountNames: ['istiod*istiod'], serviceAccountNamespaces: ['*-system-*'] },
      { ...differs, message: /is not bound to service account.*is not bound to namespace/, fields: false },
    ],
    [
      'another service account, which istiod may have',
      { serviceAccountNames: ['mine'] },
      { ...differs, message: /if istiod has another one, set spec.kubernetesAuth.serviceAccountNames/, fields: false },
    ],
    [
      'more names than are read',
      { serviceAccountNames: ['istiod'], policies: [], more: true },
      { status: 'True', message: /more names of a kind than the operator reads/, fields: true },
    ],
    ['a shorter life', { tokenTtl: 60 }, { status: 'True', message: /has a token_ttl of 60s/ }],
    ['a limited number of uses', { otherFields: ['token_num_uses'] }, { status: 'False', message: /token_num_uses/ }],
    ['addresses', { otherFields: ['token_bound_cidrs'] }, { status: 'True', message: /sets token_bound_cidrs/ }],
  ])('%s', (_what, role, { message, ...expected }) => {
    const access = accessOf(world({ role: role && { ...fittingRole, ...role } }));
    expect(access).toMatchObject(expected);
    expect(access.message).toMatch(message ?? /./);
  });

  it('it must be for every service account that istiod runs with', () => {
    const of = (...serviceAccountNames: string[]) =>
      world({ role: { ...fittingRole, serviceAccountNames } }, ['one', 'two']);
    expect(accessOf(of('one', 'two'))).toMatchObject({ status: 'True' });
    expect(accessOf(of('one'))).toMatchObject({ ...differs, fields: false });
    expect(accessOf(of('one')).message).toMatch(/not bound to service account two/);
  });

  it('which accounts it is for is not verified where istiod’s are not known, unless it is for all', () => {
    const of = (...serviceAccountNames: string[]) =>
      accessOf(world({ role: { ...fittingRole, serviceAccountNames } }, 'unreadable'));
    expect(of('mine')).toMatchObject({ status: 'True', fields: true });
    expect(of('mine').message).toMatch(/bound to service accounts mine, which are not verified/);
    expect(of('*')).toMatchObject({ ...differs, fields: true });
  });

  it('for an Istio of the Sail operator, it can be for istiod of a revision of that name', () => {
    const sail = (name: string) => ({ controlPlane: { kind: 'Sail', name } });
    const of = (serviceAccountName: string) =>
      world({ role: { ...fittingRole, serviceAccountNames: [serviceAccountName] } });
    expect(accessOf(of('istiod-mesh'), sail('mesh'))).toMatchObject({ status: 'True', fields: true });
    expect(accessOf(of('istiod'), sail('default'))).toMatchObject({ status: 'True', fields: true });
    expect(accessOf(of('istiod-mesh'), sail('another'))).toMatchObject({ ...differs, fields: false });
  });

  it('with an audience in the spec, it needs none, and no other', () => {
    const of = (audience: string) =>
      accessOf(world({ role: { ...fittingRole, audience } }), { kubernetesAuth: { audience: 'istio-ca' } });
    expect(of('')).toMatchObject({ status: 'True', fields: true });
    expect(of('istio-ca')).toMatchObject({ status: 'True', fields: true });
    expect(of('https://kubernetes.default.svc')).toMatchObject({ ...differs, fields: false });
  });

  it('an account of istiod that is not bound any more keeps no field away that is there', () => {
    const { world: at } = converge(d, world());
    at.vault.role = undefined;
    expect(accessOf(at)).toMatchObject({ ...differs, fields: true });
  });
});

describe('what may not be read', () => {
  it.each<['policy' | 'role', RegExp]>([
    ['policy', /not verified, because the token lacks read on sys\/policies\/acl\/istioca$/],
    ['role', /not verified, because the token lacks read on auth\/kubernetes\/role\/istiod$/],
  ])('%s', (part, message) => {
    const access = accessOf(world({ [part]: undefined, unreadable: [part] }));
    expect(access).toMatchObject({ status: 'True', reason: 'NotVerified', fields: true });
    expect(access.message).toMatch(message);
  });
});

describe('an auth mount of somebody else', () => {
  const clientToken = { disableLocalCaJwt: true, reviewerJwtSet: false };
  const audience = { kubernetesAuth: { audience: 'istio-ca' } };
  it.each<[string, object, string | undefined, Record<string, unknown>, RegExp | undefined]>([
    ['checks for an issuer and names none', { otherFields: ['disable_iss_validation'] }, 'https://ours', {}, undefined],
    ['checks no issuer', {}, 'https://ours', {}, undefined],
    ['checks for the issuer of this cluster', { issuer: 'https://ours' }, 'https://ours', {}, undefined],
    [
      'checks for another issuer',
      { issuer: 'https://theirs' },
      'https://ours',
      {},
      /only tokens of issuer "https:\/\/theirs".*of "https:\/\/ours"/,
    ],
    ['checks, and what this cluster has is not known', { issuer: 'https://theirs' }, undefined, {}, undefined],
    ['has the token of a login reviewed by itself', clientToken, undefined, {}, undefined],
    ['does so with an audience', clientToken, undefined, audience, /no token_reviewer_jwt/],
    ['has a reviewer', { ...clientToken, reviewerJwtSet: true }, undefined, audience, undefined],
    ['does not show whether it has one', { ...clientToken, reviewerJwtSet: undefined }, undefined, audience, undefined],
  ])('%s', (_what, config, tokenIssuer, spec, expected) => {
    const desired = desiredOf(spec);
    const from = emptyWorld();
    from.vault.authConfig = {
      host: 'https://a',
      caCert: '',
      disableLocalCaJwt: false,
      reviewerJwtSet: false,
      otherFields: [],
      ...config,
    };
    from.kubernetes.tokenIssuer = tokenIssuer;
    const { last, world: at } = converge(desired, from);
    const unfit = last.problems.find(({ reason }) => reason === 'AuthConfigUnfit');
    expect(at.kubernetes.controlPlane?.carriesFields).toBe(expected === undefined);
    if (expected) expect(unfit?.message).toMatch(expected);
    else expect(unfit).toBeUndefined();
  });

  it('is not said to be somebody else’s where only the spec says that somebody else configures it', () => {
    const from = world({
      authConfig: { host: '', caCert: '', disableLocalCaJwt: true, reviewerJwtSet: false, otherFields: [] },
    });
    const { last } = converge(
      desiredOf({ ...unmanaged, kubernetesAuth: { manage: false, audience: 'istio-ca' } }),
      from,
    );
    const { message } = last.problems.find(({ reason }) => reason === 'AuthConfigUnfit') ?? {};
    expect(message).toContain('With spec.kubernetesAuth.manage: false the operator does not write');
    expect(message).not.toContain('did not make');
  });
});
