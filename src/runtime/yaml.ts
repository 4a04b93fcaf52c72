/**
 * YAML as plain data. Not by @kubernetes/client-node, whose functions go through its typed models: they rename or drop
 * fields it does not know, among them every x-kubernetes-… of a CRD.
 */
import { parse, parseAllDocuments, stringify } from 'yaml';

/** One document. @throws YAMLParseError */
export function loadYaml(text: string): unknown {
  return parse(text) as unknown;
}

/** Every document of a stream that is not empty. @throws YAMLParseError */
export function loadAllYaml(text: string): unknown[] {
  return parseAllDocuments(text).flatMap((document) => {
    const [error] = document.errors;
    if (error) throw error;
    const value = document.toJS() as unknown;
    return value === null || value === undefined ? [] : [value];
  });
}

export function dumpYaml(value: unknown): string {
  // tools in Go read YAML 1.1, in which a bare `no` or `on` is a boolean
  return stringify(value, { lineWidth: 0, compat: 'yaml-1.1' });
}
