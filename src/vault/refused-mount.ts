/** Names the field of the spec at whose path nothing can be mounted. */
import type { Reason, StageCondition } from '../api/conditions.ts';
import type { Spec } from '../api/schema.ts';
import { ProblemError } from '../plan/facts/problem.ts';
import { VaultError } from './errors.ts';

interface Named {
  condition: StageCondition;
  reason: Reason;
  /** The field, what is refused, and what to do. */
  text: string;
}

/** What a mount of a field is for the user. @param path as Vault shows it */
const mounted = (field: string, condition: StageCondition, path: string): Named => ({
  condition,
  reason: 'MountRefused',
  text: `${field}: nothing can be mounted at ${path}/. Create this resource anew with another mount, or have an administrator of Vault remove the cause`,
});

/** The fields that name paths in `sys/`, by these paths. */
const namedIn = ({ kubernetesAuth, keyStore, intermediate, root, audit }: Spec): Record<string, Named> => ({
  [`sys/auth/${kubernetesAuth.mount}`]: mounted(
    'spec.kubernetesAuth.mount',
    'AccessReady',
    `auth/${kubernetesAuth.mount}`,
  ),
  [`sys/mounts/${keyStore.mount}`]: mounted('spec.keyStore.mount', 'KeyStored', keyStore.mount),
  [`sys/mounts/${intermediate.mount}`]: mounted('spec.intermediate.mount', 'IntermediateReady', intermediate.mount),
  [`sys/mounts/${root.mount}`]: mounted('spec.root.mount', 'RootReady', root.mount),
  ...(audit && {
    [`sys/audit/${audit.path}`]: {
      condition: 'VaultReady',
      reason: 'AuditDeviceMissing',
      text: `spec.audit: Vault does not enable device ${audit.path}. Change spec.audit, or have an administrator of Vault remove the cause`,
    },
  }),
});

/** Returns the problem of an error of kind `MountRefused`; every other error as it is. */
export function withField(error: unknown, spec: Spec): unknown {
  if (!(error instanceof VaultError && error.kind === 'MountRefused')) return error;
  const named = namedIn(spec)[error.path];
  if (!named) return error;
  const { condition, reason, text } = named;
  return new ProblemError({ condition, reason, message: `${text}. Vault reports: ${error.detail}`, blocks: 'all' });
}
