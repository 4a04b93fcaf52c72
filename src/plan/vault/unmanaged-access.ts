/**
 * Checks of a policy or role with `manage: false`: an administrator of Vault writes it, and the operator only reads it. Pure.
 */
import type { DerivedState } from '../facts/derived.ts';
import { caFiles, fileSource } from '../facts/ca-files.ts';
import type { Problem } from '../facts/problem.ts';
import { desiredRole, isWidening, namesAreAssumed, permittedAccountNames } from './access.ts';
import { decidingRule, readPolicyRules } from './policy-rules.ts';

/** What was found at one object. Each text is a clause for the user, without the name of the object. */
interface Findings {
  /** Vault Agent cannot work by the object as it is. */
  lacks: string[];
  /** Others than istiod get the CA with it. */
  widens: string[];
  /** Differs, and does neither. */
  notes: string[];
}

const nothing: Findings = { lacks: [], widens: [], notes: [] };

/** A list in a message has at most this many items. */
const mostListed = 5;

const list = (texts: string[]): string =>
  texts.length > mostListed
    ? `${texts.slice(0, mostListed).join(', ')} and ${texts.length - mostListed} more`
    : texts.join(', ');

/** The paths that Vault Agent reads. */
const agentPaths = (s: DerivedState): string[] => [...new Set(caFiles.map((file) => fileSource(s.spec, file).path))];

function policyFindings(s: DerivedState): Findings {
  const text = s.vault.policy;
  if (text === undefined) return { ...nothing, lacks: ['does not exist'] };
  const rules = readPolicyRules(text);
  if (!rules) return { ...nothing, notes: ['is not understood, so what it grants is not verified'] };
  const paths = agentPaths(s);
  const deciding = paths.map((path) => ({ path, rule: decidingRule(rules, path) }));
  const lacking = deciding.filter(({ rule }) => rule?.capabilities.includes('read') !== true).map(({ path }) => path);
  const conditions = [...new Set(deciding.flatMap(({ rule }) => rule?.conditions ?? []))];
  const isExact = ({ path, capabilities }: (typeof rules)[number]) =>
    paths.includes(path) && capabilities.every((capability) => capability === 'read');
  const more = rules.filter((rule) => !isExact(rule) && rule.capabilities.length > 0).map(({ path }) => path);
  return {
    lacks: lacking.length > 0 ? [`lacks read on ${list(lacking)}`] : [],
    widens: [],
    notes: [
      ...(conditions.length > 0 ? [`sets ${list(conditions)} for what istiod's agent reads`] : []),
      ...(more.length > 0 ? [`grants more than that, on ${list([...new Set(more)])}`] : []),
    ],
  };
}

function roleFindings(s: DerivedState): Findings {
  const { role } = s.vault;
  if (!role) return { ...nothing, lacks: ['does not exist'] };
  const wanted = desiredRole(s.desired, s.kubernetes, role);
  const [namespace = ''] = wanted.serviceAccountNamespaces;
  const covers = (bound: string[], name: string) => bound.includes('*') || bound.includes(name);
  const unbound = wanted.serviceAccountNames.filter((name) => !covers(role.serviceAccountNames, name));
  // of names that are only assumed, one is enough: which one istiod has is not known yet
  const lacksNames = namesAreAssumed(s) ? unbound.length === wanted.serviceAccountNames.length : unbound.length > 0;
  const others = role.serviceAccountNames.filter((name) => !permittedAccountNames(s).includes(name));
  const otherNamespaces = role.serviceAccountNamespaces.filter((name) => name !== namespace);
  const widening = role.otherFields.filter(isWidening);
  const otherPolicies = role.policies.filter((name) => !wanted.policies.includes(name));
  const narrowing = role.otherFields.filter((name) => !isWidening(name));
  const text = (when: boolean, clause: string) => (when ? [clause] : []);
  return {
    lacks: [
      ...text(lacksNames, `is not bound to service account ${list(unbound)}`),
      ...text(!covers(role.serviceAccountNamespaces, namespace), `is not bound to namespace ${namespace}`),
      ...text(!role.policies.includes(s.spec.policy.name), `does not give policy ${s.spec.policy.name}`),
      ...text(role.audience !== wanted.audience, `has another audience than spec.kubernetesAuth.audience`),
    ],
    widens: [
      ...text(others.length > 0, `lets in service accounts ${list(others)}`),
      ...text(otherNamespaces.length > 0, `lets in namespaces ${list(otherNamespaces)}`),
      ...text(widening.length > 0, `sets ${list(widening)}, which lets in more or for longer`),
    ],
    notes: [
      ...text(otherPolicies.length > 0, `also gives policies ${list(otherPolicies)}`),
      ...text(role.tokenTtl !== wanted.tokenTtl, `has a token_ttl of ${role.tokenTtl}s`),
      ...text(narrowing.length > 0, `sets ${list(narrowing)}`),
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
