/** CEL rules on `spec`: immutable fields, and relations between fields of different objects. */
import type { CelRule } from './fields.ts';

/** Reserved words of CEL and its parsers. https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax */
const reserved = new Set(
  `as break const continue else false for function if import in let loop namespace null package return true var void
  while`.split(/\s+/),
);

/**
 * Returns the name of a field in CEL. Kubernetes encloses reserved words in double underscores.
 * https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
 * @param field an identifier of letters, as all fields of the CRD are. Kubernetes escapes other characters too, which this function does not
 */
export const celName = (field: string): string => (reserved.has(field) ? `__${field}__` : field);

/** A field path in CEL. */
const celPath = (path: string): string => path.split('.').map(celName).join('.');

/** @param path below `spec` */
const immutableMessage = (path: string): string =>
  `spec.${path} cannot be changed: delete this resource (deletionPolicy: Retain keeps the CA) and create it anew`;

/**
 * A transition rule that makes a field immutable. To set or clear it later is a change too. The rule belongs to `spec`, because a rule of an
 * absent field is not evaluated.
 */
function immutable(path: string): CelRule {
  const field = celPath(path);
  return {
    rule: `has(self.${field}) == has(oldSelf.${field}) && (!has(self.${field}) || self.${field} == oldSelf.${field})`,
    message: immutableMessage(path),
    reason: 'FieldValueForbidden',
    fieldPath: `.${path}`,
  };
}

/** Paths of the immutable fields, below `spec`. */
export const immutableFields = [
  'vault.namespace',
  'root.source',
  'root.mount',
  'intermediate.mount',
  'keyStore.manage',
  'keyStore.mount',
  'keyStore.path',
  'keyStore.version',
  'policy.name',
  'kubernetesAuth.mount',
  'kubernetesAuth.role',
  'controlPlane.kind',
  'controlPlane.name',
  'controlPlane.revision',
];

/** All rules on `spec`. */
export const specRules: CelRule[] = [
  ...immutableFields.map(immutable),
  {
    rule: "self.root.source != 'Generate' || duration(self.intermediate.ttl) <= duration(self.root.ttl)",
    message:
      'IntermediateOutlivesRoot: intermediate.ttl is longer than root.ttl; shorten the one or lengthen the other',
    fieldPath: '.intermediate.ttl',
  },
  {
    rule: '!has(self.intermediate.maxWorkloadCertTTL) || duration(self.intermediate.ttl).getMilliseconds() > 2 * duration(self.intermediate.maxWorkloadCertTTL).getMilliseconds()',
    message:
      'intermediate.ttl must be more than twice intermediate.maxWorkloadCertTTL, else it cannot be renewed in time',
    fieldPath: '.intermediate.ttl',
  },
  {
    rule: '!has(self.intermediate.renewBefore) || duration(self.intermediate.renewBefore) < duration(self.intermediate.ttl)',
    message:
      'intermediate.renewBefore must be shorter than intermediate.ttl, else every intermediate would be due at once',
    fieldPath: '.intermediate.renewBefore',
  },
  {
    rule: "[self.root.mount, self.intermediate.mount, self.keyStore.mount].all(a, [self.root.mount, self.intermediate.mount, self.keyStore.mount].filter(b, (b + '/').startsWith(a + '/')).size() == 1)",
    message: 'root.mount, intermediate.mount and keyStore.mount must be three different mounts, none below another',
  },
  {
    rule: "self.root.source != 'External' || self.delivery.source != 'PKI'",
    message:
      'delivery.source: PKI reads the root from its mount, and with root.source: External there is none: use Bundle',
    fieldPath: '.delivery.source',
  },
  {
    rule: "self.intermediate.source != 'Import' || self.delivery.source != 'PKI'",
    message:
      'delivery.source: PKI reads certificates from PKI mounts, and with intermediate.source: Import there are none: use Bundle',
    fieldPath: '.delivery.source',
  },
  {
    rule: `!has(self.audit) || !has(self.vault.${celName('namespace')})`,
    message: 'audit cannot be used with vault.namespace: audit devices belong to the root namespace; remove audit',
    fieldPath: '.audit',
  },
  {
    rule: 'self.keyStore.manage || !self.intermediate.manage',
    message:
      'keyStore.manage: false goes only with intermediate.manage: false: who issues the intermediate writes its key there',
    fieldPath: '.keyStore.manage',
  },
  {
    rule: 'self.keyStore.manage || !self.adopt',
    message:
      'adopt: true needs keyStore.manage: true, since what is adopted is recorded in the key store; remove adopt, and leave policy and role to others (policy.manage and kubernetesAuth.manage: false) if they exist',
    fieldPath: '.adopt',
  },
  {
    rule: 'self.keyStore.manage || !self.kubernetesAuth.config.manage',
    message:
      'kubernetesAuth.config.manage: true needs keyStore.manage: true, where the operator records which mount it made',
    fieldPath: '.kubernetesAuth.config.manage',
  },
  {
    rule: 'self.keyStore.manage || self.policy.manage || !self.kubernetesAuth.manage',
    message:
      'with keyStore.manage: false the policy shows whose the role is: kubernetesAuth.manage: true needs policy.manage: true; set kubernetesAuth.manage: false',
    fieldPath: '.kubernetesAuth.manage',
  },
  {
    rule: 'self.kubernetesAuth.manage || !self.kubernetesAuth.config.manage',
    message: 'kubernetesAuth.config.manage: true goes only with kubernetesAuth.manage: true',
    fieldPath: '.kubernetesAuth.config.manage',
  },
];
