/** The one IstioVaultCA of a manifest, judged as the API server would judge it. */
import { readFile } from 'node:fs/promises';
import { text as readAll } from 'node:stream/consumers';
import { z } from 'zod';
import { brokenRules } from '../api/broken-rules.ts';
import { objectName } from '../api/fields.ts';
import { dig, isObject, type JsonObject } from '../api/json.ts';
import { group, kind, specSchema, version, type Spec } from '../api/schema.ts';
import { placeOf, show } from '../control-planes/adapter.ts';
import { loadAllYaml } from '../runtime/yaml.ts';

export interface Manifest {
  name: string;
  /** As the manifest or the flag has it. */
  namespace: string | undefined;
  annotations: Record<string, string>;
  /** With every default. */
  spec: Spec;
}

/** What is wrong with a manifest, on one line: file, field, value, remedy. */
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
      .transform((found) => found ?? {}),
  }),
  spec: specSchema,
});

/** What may stand in a manifest besides. */
const ignored = ['status'];

/** More than these would be no line to read. */
const mostIssues = 5;

/** Fields that the schema does not know: the API server would drop them, or refuse them by `--validate`. */
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

/** `null` is a field that is not given, to the API server too. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, below]) => (below === null ? [] : [[key, withoutNulls(below)]])),
  );
}

function issueText(document: JsonObject, { path, message }: z.core.$ZodIssue): string {
  const value = dig(document, ...path.map(String));
  const place = placeOf(path);
  return value === undefined ? `${place} is missing; add it` : `${place} ${show(value)}: ${message}`;
}

function theOne(documents: unknown[]): JsonObject {
  const isOurs = (document: unknown) =>
    dig(document, 'kind') === kind && String(dig(document, 'apiVersion')).startsWith(`${group}/`);
  const found = documents.filter(isObject).filter(isOurs);
  const [only] = found;
  if (only && found.length === 1) return only;
  const names = found.map((document) => show(dig(document, 'metadata', 'name'))).join(', ');
  throw new ManifestError(
    only
      ? `${found.length} documents are an ${kind} (${names}); give one at a time`
      : `no document is an ${kind} of ${group}; give the file that holds it`,
  );
}

function parse(text: string, namespace: string | undefined): Manifest {
  const document = withoutNulls(theOne(documentsOf(text))) as JsonObject;
  const parsed = manifestSchema.safeParse(document);
  if (!parsed.success) {
    const issues = parsed.error.issues.slice(0, mostIssues).map((issue) => issueText(document, issue));
    throw new ManifestError(`${issues.join('; ')}; docs/api.md has every field`);
  }
  const { metadata, spec } = parsed.data;
  // values are not shown: what stands in the wrong place may be anything
  const known = { ...parsed.data, ...Object.fromEntries(ignored.map((name) => [name, document[name]])) };
  const unknown = unknownFields(document, known).slice(0, mostIssues).map(placeOf);
  if (unknown.length > 0)
    throw new ManifestError(`${unknown.join(', ')}: no such field; correct or remove it, docs/api.md has every field`);
  const broken = brokenRules(spec).slice(0, mostIssues);
  if (broken.length > 0)
    throw new ManifestError(
      broken.map(({ path, message }) => `${path}${valueText(document, path)}: ${message}`).join('; '),
    );
  if (namespace !== undefined && metadata.namespace !== undefined && metadata.namespace !== namespace)
    throw new ManifestError(
      `metadata.namespace ${show(metadata.namespace)}: --namespace ${namespace} is another; leave one of them out`,
    );
  return {
    name: metadata.name,
    namespace: metadata.namespace ?? namespace,
    annotations: metadata.annotations,
    spec,
  };
}

/** The value that stands at a path; of an object or nothing, nothing. */
function valueText(document: JsonObject, path: string): string {
  const value = dig(document, ...path.split('.'));
  return value === undefined || typeof value === 'object' ? '' : ` ${show(value)}`;
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
 * Reads a manifest as text.
 * @param file what errors call it
 * @param namespace for a manifest that names none
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

/** Reads a manifest from a file, or for `-` from standard input. @throws ManifestError */
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
