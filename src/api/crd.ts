/**
 * The CustomResourceDefinition, derived from the zod schema. The JSON schema that zod creates is not a structural schema as the API server
 * requires it. It is therefore converted with an allow-list, and an unknown keyword fails the build.
 * https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
 */
import { z } from 'zod';
import { isObject, type JsonObject } from './json.ts';
import { group, kind, plural, specSchema, version } from './schema.ts';
import { statusSchema } from './status-schema.ts';
import { fieldDocs } from './field-docs.ts';
import type { CelRule } from './fields.ts';

/** A node of a structural schema. The types name only the keywords that this project reads. */
export interface Structural {
  [keyword: string]: unknown;
  properties?: Record<string, Structural>;
  additionalProperties?: Structural;
  items?: Structural;
  'x-kubernetes-validations'?: CelRule[];
}

const kept = new Set([
  'type',
  'enum',
  'default',
  'pattern',
  'minLength',
  'maxLength',
  'minItems',
  'maxItems',
  'maxProperties',
  'minimum',
  'maximum',
  'x-kubernetes-validations',
  'x-kubernetes-list-type',
  'x-kubernetes-list-map-keys',
]);
/**
 * Keywords that the conversion handles itself or omits. The API server removes unknown fields by pruning, so `additionalProperties: false` is
 * omitted. `propertyNames` of a zod record has no effect here.
 */
const dropped = new Set(['additionalProperties', 'propertyNames', '$schema', 'required', 'properties', 'items']);

/**
 * Converts a JSON schema of zod into a structural schema.
 * @param path of the node in the resource, for descriptions and errors
 * @throws Error for a keyword that is in neither list, and for a node without a type
 */
function toStructuralSchema(json: unknown, path = ''): Structural {
  if (!isObject(json)) throw new Error(`${path}: not a schema`);
  const out: Structural = {};
  const description = fieldDocs[path];
  if (description !== undefined) out['description'] = description;
  for (const [keyword, value] of Object.entries(json)) {
    if (kept.has(keyword)) out[keyword] = value;
    else if (!dropped.has(keyword))
      throw new Error(`${path}: keyword ${keyword} is not allowed in a structural schema`);
  }
  if (Array.isArray(out['enum']) && out['enum'].every((v) => Number.isInteger(v))) out['type'] = 'integer';
  if (out['maximum'] === Number.MAX_SAFE_INTEGER) {
    delete out['maximum'];
    out['format'] = 'int64';
  }
  if (isObject(json['properties'])) {
    out['properties'] = Object.fromEntries(
      Object.entries(json['properties']).map(([name, sub]) => [
        name,
        toStructuralSchema(sub, path === '' ? name : `${path}.${name}`),
      ]),
    );
    if (Array.isArray(json['required']) && json['required'].length > 0) out['required'] = json['required'];
  } else if (isObject(json['additionalProperties'])) {
    out['additionalProperties'] = toStructuralSchema(json['additionalProperties'], `${path}.*`);
  }
  if (isObject(json['items'])) out['items'] = toStructuralSchema(json['items'], `${path}[]`);
  if (typeof out['type'] !== 'string') throw new Error(`${path}: every node of a structural schema needs a type`);
  return out;
}

/** The structural schema of a zod schema. @param root name of the field that has the schema */
function structural(schema: z.ZodType, root: string): Structural {
  return toStructuralSchema(
    z.toJSONSchema(schema, { target: 'openapi-3.0', io: 'input', reused: 'inline', unrepresentable: 'throw' }),
    root,
  );
}

const column = (name: string, jsonPath: string, type = 'string', priority = 0) => ({ name, type, jsonPath, priority });
const ready = (field: string) => `.status.conditions[?(@.type=="Ready")].${field}`;

/** Returns the structural schema of a resource of version `v1alpha1`. */
export function resourceStructure(): Structural {
  return {
    type: 'object',
    description: 'IstioVaultCA makes HashiCorp Vault or OpenBao the CA of one Istio control plane.',
    required: ['spec'],
    properties: {
      apiVersion: { type: 'string' },
      kind: { type: 'string' },
      metadata: { type: 'object' },
      spec: structural(specSchema, 'spec'),
      // default until the first reconcile: no generation was observed, so kstatus does not report the resource as current
      status: { ...structural(statusSchema, 'status'), default: { observedGeneration: -1 } },
    },
  };
}

/** Returns the CustomResourceDefinition. The file in `crds/`, the command `crd` and the tests use it. */
export function customResourceDefinition(): JsonObject {
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}` },
    spec: {
      group,
      scope: 'Namespaced',
      names: {
        kind,
        listKind: `${kind}List`,
        plural,
        singular: kind.toLowerCase(),
        shortNames: ['ivca'],
        categories: ['istio-io', 'security'],
      },
      versions: [
        {
          name: version,
          served: true,
          storage: true,
          subresources: { status: {} },
          // Expiry times have type string: kubectl prints a date as an age, and the age of a future date is <invalid>.
          additionalPrinterColumns: [
            column('Ready', ready('status')),
            column('Reason', ready('reason')),
            column('Istiod', '.status.istiodProven'),
            column('Expires', '.status.intermediate.notAfter'),
            column('Root Expires', '.status.root.notAfter', 'string', 1),
            column('Vault', '.spec.vault.address', 'string', 1),
            column('Control Plane', '.spec.controlPlane.name', 'string', 1),
            column('Age', '.metadata.creationTimestamp', 'date'),
          ],
          schema: { openAPIV3Schema: resourceStructure() },
        },
      ],
    },
  };
}
