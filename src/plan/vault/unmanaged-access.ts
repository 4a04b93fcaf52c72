/**
 * Checks of a policy or role with `manage: false`: an administrator of Vault writes it, and the operator only reads it. Pure.
 */
import type { DerivedState } from '../facts/derived.ts';
import type { Spec } from '../../api/schema.ts';
import { cut, printable } from '../../text/bounded.ts';
import { listNames } from '../facts/list-names.ts';
import { caFiles, fileSource } from '../facts/ca-files.ts';
import type { KubernetesRole } from '../facts/observed.ts';
import type { Problem } from '../facts/problem.ts';
import { desiredRole, isWidening, namesAreAssumed, namespaceSelector, permittedAccountNames } from './access.ts';
import { decidingRule, readPolicyRules, templatedRules, type PolicyRule } from './policy-rules.ts';

/** What was found at one object. Each text is a clause for the user, without the name of the object. */
interface Findings {
  /** Vault Agent cannot work by the object as it is. */
  lacks: string[];
  /** Others than istiod get the CA with it. */
  widens: string[];
  /** Differs and does neither, or is not known to do either. */
  notes: string[];
}

const nothing: Findings = { lacks: [], widens: [], notes: [] };

/** The longest foreign name in a message, in UTF-16 code units. */
const longestListed = 100;

/** A list of foreign names for a message. */
export const nameList = (texts: string[]): string =>
  listNames(texts.map((text) => cut(printable(text), longestListed)));

const clauseIf = (when: boolean, clause: string): string[] => (when ? [clause] : []);

/** The paths that Vault Agent reads. */
const agentPaths = (s: DerivedState): string[] => [...new Set(caFiles.map((file) => fileSource(s.spec, file).path))];

/** What the rules of a policy mean for a path that Vault Agent reads. */
interface Access {
  path: string;
  /** `unknown`: Vault fills in the path of a rule for each login, and the rule can then decide about the path. */
  result: 'granted' | 'lacking' | 'refused' | 'unknown';
  rule: PolicyRule | undefined;
}

function accessTo(rules: PolicyRule[], path: string): Access {
  const rule = decidingRule(rules, path);
  const reads = rule?.capabilities.includes('read') === true;
  const refuses = (rule?.refusing.length ?? 0) > 0;
  if (reads && !refuses) return { path, result: 'granted', rule };
  // what the path itself denies or refuses, no other rule grants
  const isFinal = rule?.path === path && (refuses || rule.capabilities.includes('deny'));
  if (!isFinal && templatedRules(rules, path).length > 0) return { path, result: 'unknown', rule };
  return { path, result: reads ? 'refused' : 'lacking', rule };
}

/** The paths of the rules that grant more than reading the paths of Vault Agent. */
function furtherPaths(rules: PolicyRule[], paths: string[]): string[] {
  const denied = new Set(rules.filter(({ capabilities }) => capabilities.includes('deny')).map(({ path }) => path));
  const grantsMore = ({ path, capabilities }: PolicyRule) =>
    paths.includes(path) ? capabilities.some((capability) => capability !== 'read') : capabilities.length > 0;
  return [...new Set(rules.filter((rule) => grantsMore(rule) && !denied.has(rule.path)).map(({ path }) => path))];
}

function policyFindings(s: DerivedState): Findings {
  const text = s.vault.policy;
  if (text === undefined) return { ...nothing, lacks: ['does not exist'] };
  const all = readPolicyRules(text);
  if (!all) return { ...nothing, notes: ['is not understood, so what it grants is not verified'] };
  const rules = all.filter(({ endsMs }) => endsMs === undefined || endsMs > s.vault.time);
  const paths = agentPaths(s);
  const accesses = paths.map((path) => accessTo(rules, path));
  const pathsWith = (result: Access['result']) => accesses.filter((a) => a.result === result).map(({ path }) => path);
  const [lacking, refused, unknown] = [pathsWith('lacking'), pathsWith('refused'), pathsWith('unknown')];
  const refusing = accesses.flatMap(({ result, rule }) => (result === 'refused' ? (rule?.refusing ?? []) : []));
  const others = [...new Set(accesses.flatMap(({ rule }) => rule?.others ?? []))];
  const more = furtherPaths(rules, paths);
  return {
    lacks: [
      ...clauseIf(lacking.length > 0, `lacks read on ${nameList(lacking)}`),
      ...clauseIf(
        refused.length > 0,
        `sets ${nameList([...new Set(refusing)])} on ${nameList(refused)}, so that Vault refuses what istiod's agent reads`,
      ),
    ],
    widens: [],
    notes: [
      ...clauseIf(
        unknown.length > 0,
        `has paths that Vault fills in for each login, so that read on ${nameList(unknown)} is not verified`,
      ),
      ...clauseIf(others.length > 0, `sets ${nameList(others)} for what istiod's agent reads`),
      ...clauseIf(more.length > 0, `grants more than that, on ${nameList(more)}`),
    ],
  };
}

/** Whether Vault takes a name for one that a role names: `*` stands for any text. Source: https://pkg.go.dev/github.com/ryanuber/go-glob */
function matchesGlob(pattern: string, name: string): boolean {
  const [head = '', ...parts] = pattern.split('*');
  const tail = parts.pop();
  if (tail === undefined) return pattern === name;
  if (!name.startsWith(head)) return false;
  let at = head.length;
  for (const part of parts) {
    const found = name.indexOf(part, at);
    if (found === -1) return false;
    at = found + part.length;
  }
  return name.length - tail.length >= at && name.endsWith(tail);
}

/** Returns a function that says whether the names of a role cover a name. */
function coverage(bound: string[]): (name: string) => boolean {
  const exact = new Set(bound);
  const globs = bound.filter((name) => name.includes('*'));
  return (name) => exact.has(name) || globs.some((glob) => matchesGlob(glob, name));
}

/**
 * What the audience of a role means for the token of Vault Agent. The token is for `spec.kubernetesAuth.audience`, without it for the
 * audiences of the API server, which are not known here. A role without an audience takes every token.
 */
function audienceFindings({ kubernetesAuth, vault }: Spec, audience: string): Pick<Findings, 'lacks' | 'notes'> {
  if (audience === '' || audience === kubernetesAuth.audience) return { lacks: [], notes: [] };
  const has = `has audience ${cut(audience, longestListed)}`;
  if (kubernetesAuth.audience !== undefined)
    return { lacks: [`${has}, and the token of istiod's agent is for ${kubernetesAuth.audience}`], notes: [] };
  // a text that is no address, and that stands for Istio or for Vault, is not one of the API server
  const { audiences } = vault.auth.kubernetes ?? vault.auth.jwt ?? { audiences: [] };
  const isOther = !audience.includes('://') && ['istio-ca', ...audiences].includes(audience);
  return isOther
    ? {
        lacks: [`${has}, which the token of istiod's agent does not have: see spec.kubernetesAuth.audience`],
        notes: [],
      }
    : { lacks: [], notes: [`${has}, and whether the API server has it too is not verified`] };
}

/** What the names of service accounts that a role is bound to mean. */
function accountFindings(s: DerivedState, role: KubernetesRole): Findings {
  const wanted = desiredRole(s.desired, s.kubernetes, role).serviceAccountNames;
  const covers = coverage(role.serviceAccountNames);
  const unbound = wanted.filter((name) => !covers(name));
  // of names that are only assumed, one is enough: which one istiod has is not known yet
  const assumed = namesAreAssumed(s);
  const lacks = assumed ? unbound.length === wanted.length : unbound.length > 0;
  const permitted = new Set(permittedAccountNames(s));
  const others = role.serviceAccountNames.filter((name) => !permitted.has(name));
  const unreadable = assumed && s.kubernetes.istiodServiceAccounts === 'unreadable';
  const widens = unreadable ? others.filter((name) => name === '*') : others;
  const unverified = unreadable ? others.filter((name) => name !== '*') : [];
  const remedy = assumed ? ' (if istiod has another one, set spec.kubernetesAuth.serviceAccountNames)' : '';
  return {
    lacks: clauseIf(lacks, `is not bound to service account ${nameList(unbound)}${remedy}`),
    widens: clauseIf(widens.length > 0, `lets in service accounts ${nameList(widens)}`),
    notes: clauseIf(
      unverified.length > 0,
      `is bound to service accounts ${nameList(unverified)}, which are not verified: the operator cannot list istiod's Deployments`,
    ),
  };
}

function roleFindings(s: DerivedState): Findings {
  const { role } = s.vault;
  if (!role) return { ...nothing, lacks: ['does not exist'] };
  const wanted = desiredRole(s.desired, s.kubernetes, role);
  const [namespace = ''] = wanted.serviceAccountNamespaces;
  const accounts = accountFindings(s, role);
  const audience = audienceFindings(s.spec, role.audience);
  const otherNamespaces = role.serviceAccountNamespaces.filter((name) => name !== namespace);
  // which namespaces a selector takes in is Vault's to find out
  const selects = role.otherFields.includes(namespaceSelector);
  const lacksNamespace = !selects && !coverage(role.serviceAccountNamespaces)(namespace);
  const widening = role.otherFields.filter(isWidening);
  const otherPolicies = role.policies.filter((name) => !wanted.policies.includes(name));
  const narrowing = role.otherFields.filter((name) => !isWidening(name));
  // what is beyond the limit can be what seems to be missing
  const lacks = [
    ...accounts.lacks,
    ...clauseIf(lacksNamespace, `is not bound to namespace ${namespace}`),
    ...clauseIf(!role.policies.includes(s.spec.policy.name), `does not give policy ${s.spec.policy.name}`),
  ];
  return {
    lacks: [...(role.more ? [] : lacks), ...audience.lacks],
    widens: [
      ...accounts.widens,
      ...clauseIf(otherNamespaces.length > 0, `lets in namespaces ${nameList(otherNamespaces)}`),
      ...clauseIf(widening.length > 0, `sets ${nameList(widening)}, which lets in more or for longer`),
    ],
    notes: [
      ...accounts.notes,
      ...audience.notes,
      ...clauseIf(role.more === true, 'has more names of a kind than the operator reads, so that it is not verified'),
      ...clauseIf(otherPolicies.length > 0, `also gives policies ${nameList(otherPolicies)}`),
      ...clauseIf(role.tokenTtl !== wanted.tokenTtl, `has a token_ttl of ${role.tokenTtl}s`),
      ...clauseIf(narrowing.length > 0, `sets ${nameList(narrowing)}`),
    ],
  };
}

/** The objects that somebody else manages and that could be read. */
function unmanagedObjects(s: DerivedState): { name: string; field: string; findings: Findings }[] {
  const { policy, kubernetesAuth } = s.spec;
  const objects: ReturnType<typeof unmanagedObjects> = [];
  if (!policy.manage && !s.vault.unreadable.includes('policy'))
    objects.push({ name: `policy ${policy.name}`, field: 'spec.policy.name', findings: policyFindings(s) });
  if (!kubernetesAuth.manage && !s.vault.unreadable.includes('role')) {
    const name = `role ${kubernetesAuth.role} of auth/${kubernetesAuth.mount}`;
    objects.push({ name, field: 'spec.kubernetesAuth.role', findings: roleFindings(s) });
  }
  return objects;
}

/**
 * A policy or role that somebody else manages lacks what istiod's Vault Agent needs, or lets in others than istiod. In the first case, the
 * fields of the control plane wait: istiod would not start.
 */
export function accessDiffers(s: DerivedState): Problem | undefined {
  const objects = unmanagedObjects(s).filter(({ findings }) => findings.lacks.length + findings.widens.length > 0);
  if (objects.length === 0) return undefined;
  const clauses = objects.map(
    ({ name, field, findings }) => `${field}: ${name} ${[...findings.lacks, ...findings.widens].join('; ')}`,
  );
  return {
    condition: 'AccessReady',
    reason: 'AccessDiffers',
    message: `${clauses.join('. ')}. With manage: false the operator does not write it: have an administrator of Vault correct it (deploy/vault/access.sh)`,
    blocks: objects.some(({ findings }) => findings.lacks.length > 0) ? 'controlPlane' : 'nothing',
  };
}

/** How the objects that somebody else manages differ without harm: clauses for the message of `AccessReady`. */
export const unmanagedNotes = (s: DerivedState): string[] =>
  unmanagedObjects(s).flatMap(({ name, findings }) => findings.notes.map((note) => `${name} ${note}`));

/** The objects that somebody else manages and that the token may not read, with the right that is missing; empty: none. */
export function notVerified({ spec, vault }: DerivedState): string[] {
  const paths = {
    policy: `read on sys/policies/acl/${spec.policy.name}`,
    role: `read on auth/${spec.kubernetesAuth.mount}/role/${spec.kubernetesAuth.role}`,
  };
  return vault.unreadable.map((part) => paths[part]);
}
