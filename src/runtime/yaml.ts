/**
 * Parses and formats YAML as plain data. The functions of @kubernetes/client-node are not used, because they convert to generated models.
 * `loadYaml` renames keys that are not identifiers (`x-kubernetes-validations` to `x_kubernetes_validations`) and reserved words (`default` to
 * `_default`, `enum` to `_enum`), and drops unknown keys. Only `dumpYaml` restores the names. See findings/client-node-yaml.sh.
 */
import { parse, parseAllDocuments, stringify } from 'yaml';

/** Maximum length of a document from the cluster, in UTF-16 code units: a mesh configuration has some kilobytes. */
const longestYaml = 64 * 1024;

/**
 * Options for texts from elsewhere. The parser would compare each key with all keys before it, copy the line for each error, and look for
 * each alias among all anchors: that takes time in proportion to the square of the length.
 */
const foreignYaml = { uniqueKeys: false, prettyErrors: false, maxAliasCount: 0, logLevel: 'error' } as const;

/** Parses one document from the cluster. @throws YAMLParseError; RangeError if the text is longer than 64 KiB, ReferenceError for an alias */
export function loadYaml(text: string): unknown {
  if (text.length > longestYaml) throw new RangeError('the YAML text is longer than 64 KiB');
  return parse(text, foreignYaml) as unknown;
}

/** Parses all documents of a stream; empty ones are omitted. @throws YAMLParseError */
export function loadAllYaml(text: string): unknown[] {
  return parseAllDocuments(text).flatMap((document) => {
    const [error] = document.errors;
    if (error) throw error;
    const value = document.toJS() as unknown;
    return value === null || value === undefined ? [] : [value];
  });
}

export function dumpYaml(value: unknown): string {
  // Tools in Go read YAML 1.1, in which an unquoted `no` or `on` is a boolean.
  return stringify(value, { lineWidth: 0, compat: 'yaml-1.1' });
}
