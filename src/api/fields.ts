/**
 * Building blocks of the schema: bounded strings, references, durations, CEL rules. Every string and list has a maximum length, so that the
 * API server can estimate the cost of the CEL rules.
 */
import { z } from 'zod';
import { durationPattern } from './duration.ts';

const segment = '[A-Za-z0-9_-]([A-Za-z0-9._-]*[A-Za-z0-9_-])?';

/** Patterns of Vault names, mounts and paths. They permit no character that needs escaping in a policy, a template or a URL. */
const pathPattern = `^${segment}(/${segment})*$`;
const namePattern = `^${segment}$`;

/** One CEL rule of the CRD (`x-kubernetes-validations`). */
export interface CelRule {
  rule: string;
  message: string;
  reason?: 'FieldValueInvalid' | 'FieldValueForbidden' | 'FieldValueRequired';
  fieldPath?: string;
}

/** zod metadata that adds CEL rules to the CRD. */
export function cel(...rules: CelRule[]): { 'x-kubernetes-validations': CelRule[] } {
  return { 'x-kubernetes-validations': rules };
}

export const text = (max: number) => z.string().max(max);
/** Text for the subject of a certificate, without control characters. */
export const subjectText = (max: number) =>
  z
    .string()
    .max(max)
    .regex(/^[^\x00-\x1f\x7f]*$/);
export const required = (max: number) => z.string().min(1).max(max);

/** A Vault name of one segment (role, issuer, cert-manager name …). */
export const vaultName = (max = 128) => z.string().min(1).max(max).regex(new RegExp(namePattern));
/** A Vault path or mount: segments joined by `/`, no slash at either end. */
export const vaultPath = (max = 256) => z.string().min(1).max(max).regex(new RegExp(pathPattern));
/** The name of a Kubernetes object (RFC 1123 subdomain). */
export const objectName = () =>
  z
    .string()
    .min(1)
    .max(253)
    .regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/);
/** A key of a ConfigMap or Secret. */
export const dataKey = () =>
  z
    .string()
    .min(1)
    .max(253)
    .regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]*$/);

/** A Go duration. */
export const duration = () => z.string().min(2).max(32).regex(new RegExp(durationPattern));

/** `scheme://host[:port]`, without user information and path, so that `--vault-addresses` can match it. */
export const address = () =>
  z
    .string()
    .min(1)
    .max(300)
    .regex(/^https?:\/\/([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?\/?$/);

/** A reference `{name, key}` to an object in the namespace of the resource. */
export function keyRef(defaultKey: string) {
  return z.object({ name: objectName(), key: dataKey().default(defaultKey) });
}
/** A reference `{name}` to an object in the namespace of the resource. */
export const nameRef = () => z.object({ name: objectName() });

/** zod metadata of a list that a write replaces as a whole. */
export const atomicList = { 'x-kubernetes-list-type': 'atomic' } as const;
