/**
 * The small vocabulary the schema is made of: bounded strings, references, durations, CEL rules.
 * Every string and list carries a bound, so that the API server can estimate the cost of the CEL rules.
 */
import { z } from 'zod';
import { durationPattern } from './duration.ts';

const segment = '[A-Za-z0-9_-]([A-Za-z0-9._-]*[A-Za-z0-9_-])?';

/** Names, mounts and paths: nothing that could need escaping in a policy, a template or a URL. */
const pathPattern = `^${segment}(/${segment})*$`;
const namePattern = `^${segment}$`;

/** One CEL rule of the CRD (`x-kubernetes-validations`). */
export interface CelRule {
  rule: string;
  message: string;
  reason?: 'FieldValueInvalid' | 'FieldValueForbidden' | 'FieldValueRequired';
  fieldPath?: string;
}

/** The metadata key under which CEL rules travel from the schema into the CRD. */
export function cel(...rules: CelRule[]): { 'x-kubernetes-validations': CelRule[] } {
  return { 'x-kubernetes-validations': rules };
}

export const text = (max: number) => z.string().max(max);
/** What goes into a certificate's subject: no control characters. */
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

/** `scheme://host[:port]`, no user, no path: what `--vault-addresses` can judge. */
export const address = () =>
  z
    .string()
    .min(1)
    .max(300)
    .regex(/^https?:\/\/([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?\/?$/);

/** `{name, key}` in the resource's own namespace; the key may have a default. */
export function keyRef(defaultKey: string) {
  return z.object({ name: objectName(), key: dataKey().default(defaultKey) });
}
export const nameRef = () => z.object({ name: objectName() });

/** A list that is replaced whole. */
export const atomicList = { 'x-kubernetes-list-type': 'atomic' } as const;
