/** Reads the IstioVaultCA of a manifest and validates it as the API server does. */
import { readFile } from 'node:fs/promises';
import { text as readAll } from 'node:stream/consumers';
import { z } from 'zod';
import { brokenRules } from '../api/broken-rules.ts';
import { objectName } from '../api/fields.ts';
import { dig, isObject, type JsonObject } from '../api/json.ts';
import { group, kind, specSchema, version, type Spec } from '../api/schema.ts';
import { formatPath, formatValue } from '../control-planes/adapter.ts';
import { loadAllYaml } from '../runtime/yaml.ts';

export interface Manifest {
  name: string;
  /** From the manifest or the flag; undefined if neither has one. */
  namespace: string | undefined;
  annotations: Record<string, string>;
  /** With all defaults. */
  spec: Spec;
}

/** An invalid manifest. The message is one line with file, field, value and resolution. */
export class ManifestError extends Error {
  override readonly name = 'ManifestError';
}

const manifestSchema = z.object({
  apiVersion: z.literal(`${group}/${version}`),
  kind: z.literal(kind),
  metadata: z.looseObject({
    name: objectName(),
    namespace: objectName().optional(),
    annotations: z
      .record(z.string(), z.string({ error: 'must be a string; put it in quotes' }))
      .nullish()
      .transform((annotations) => annotations ?? {}),
  }),
  spec: specSchema,
});

/** Fields that a manifest can have in addition; they are not validated. */
const ignored = ['status'];

/** The maximum number of issues in one message. */
const maxIssues = 5;

/** Returns the paths of fields that the schema does not have. The API server would prune them, or reject them with `kubectl --validate`. */
function unknownFields(given: unknown, known: unknown, path: string[] = []): string[][] {
  if (Array.isArray(given) && Array.isArray(known))
    return given.flatMap((item, i) => unknownFields(item, known[i], [...path, String(i)]));
  if (!isObject(given) || !isObject(known)) return [];
  return Object.entries(given).flatMap(([key, value]) => {
    if (value === undefined || value === null) return [];
    const below = [...path, key];
    return Object.hasOwn(known, key) ? unknownFields(value, known[key], below) : [below];
  });
}

/** The value without fields that are `null`. The API server treats such a field as not set. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, below]) => (below === null ? [] : [[key, withoutNulls(below)]])),
  );
}

function issueText(document: JsonObject, { path, message }: z.core.$ZodIssue): string {
  const value = dig(document, ...path.map(String));
  const field = formatPath(path);
  return value === undefined ? `${field} is missing; add it` : `${field} ${formatValue(value)}: ${message}`;
}

/** Returns the only IstioVaultCA among the documents. @throws ManifestError if there is none, or more than one */
function onlyResource(documents: unknown[]): JsonObject {
  const isResource = (document: unknown) =>
    dig(document, 'kind') === kind && String(dig(document, 'apiVersion')).startsWith(`${group}/`);
  const resources = documents.filter(isObject).filter(isResource);
  const [first] = resources;
  if (first && resources.length === 1) return first;
  const names = resources.map((document) => formatValue(dig(document, 'metadata', 'name'))).join(', ');
  throw new ManifestError(
    first
      ? `${resources.length} documents are an ${kind} (${names}); give one at a time`
      : `no document is an ${kind} of ${group}; give the file that holds it`,
  );
}

function parse(text: string, namespace: string | undefined): Manifest {
  const document = withoutNulls(onlyResource(documentsOf(text))) as JsonObject;
  const parsed = manifestSchema.safeParse(document);
  if (!parsed.success) {
    const issues = parsed.error.issues.slice(0, maxIssues).map((issue) => issueText(document, issue));
    throw new ManifestError(`${issues.join('; ')}; docs/api.md has every field`);
  }
  const { metadata, spec } = parsed.data;
  // The message does not contain the values: the value of an unknown field can be a secret.
  const known = { ...parsed.data, ...Object.fromEntries(ignored.map((name) => [name, document[name]])) };
  const unknown = unknownFields(document, known).slice(0, maxIssues).map(formatPath);
  if (unknown.length > 0)
    throw new ManifestError(`${unknown.join(', ')}: no such field; correct or remove it, docs/api.md has every field`);
  const broken = brokenRules(spec).slice(0, maxIssues);
  if (broken.length > 0)
    throw new ManifestError(
      broken.map(({ path, message }) => `${path}${valueText(document, path)}: ${message}`).join('; '),
    );
  if (namespace !== undefined && metadata.namespace !== undefined && metadata.namespace !== namespace)
    throw new ManifestError(
      `metadata.namespace ${formatValue(metadata.namespace)}: --namespace ${namespace} is another; leave one of them out`,
    );
  return {
    name: metadata.name,
    namespace: metadata.namespace ?? namespace,
    annotations: metadata.annotations,
    spec,
  };
}

/** The value at a path, for a message; empty if it is an object, a list or undefined. */
function valueText(document: JsonObject, path: string): string {
  const value = dig(document, ...path.split('.'));
  return value === undefined || typeof value === 'object' ? '' : ` ${formatValue(value)}`;
}

function documentsOf(text: string): unknown[] {
  try {
    return loadAllYaml(text);
  } catch (error) {
    const [line = ''] = (error instanceof Error ? error.message : '').split('\n');
    throw new ManifestError(`not YAML: ${line.replace(/:$/, '')}`);
  }
}

/**
 * Parses and validates a manifest.
 * @param file name of the manifest for error messages
 * @param namespace the namespace for a manifest without one
 * @throws ManifestError
 */
export function parseManifest(text: string, file: string, namespace: string | undefined): Manifest {
  try {
    return parse(text, namespace);
  } catch (error) {
    if (error instanceof ManifestError) throw new ManifestError(`${file}: ${error.message}`);
    throw error;
  }
}

/** Reads a manifest from a file, or from standard input if the filename is `-`. @throws ManifestError */
export async function readManifest({
  filename,
  namespace,
}: {
  filename: string;
  namespace: string | undefined;
}): Promise<Manifest> {
  if (filename === '-') return parseManifest(await readAll(process.stdin), 'standard input', namespace);
  const text = await readFile(filename, 'utf8').catch((error: unknown) => {
    const { code = 'failed' } = error as NodeJS.ErrnoException;
    throw new ManifestError(`${filename}: cannot be read (${code}); give the path of the manifest`);
  });
  return parseManifest(text, filename, namespace);
}
