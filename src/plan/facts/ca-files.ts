/** The files of istiod's plugged-in CA: the Vault path from which Vault Agent reads each file, and its template. */
import type { Spec } from '../../api/schema.ts';

/**
 * API path of an entry of the key store. KV 2 has `data/` between mount and path.
 * @param suffix empty: the CA entry
 */
export function kvDataPath(spec: Spec, suffix: '' | '-staging' | '-state' = ''): string {
  const { mount, path, version } = spec.keyStore;
  return version === 2 ? `${mount}/data/${path}${suffix}` : `${mount}/${path}${suffix}`;
}

/** The four files of istiod's plugged-in CA. https://istio.io/latest/docs/tasks/security/cert-management/plugin-ca-cert/ */
export const caFiles = ['ca-cert.pem', 'ca-key.pem', 'cert-chain.pem', 'root-cert.pem'] as const;

/** The revocation lists of a plugged-in CA, an optional file (istiod 1.27 and later): PEM blocks, one for each CA above workload certificates. */
export const crlFile = 'ca-crl.pem';

export type CaFile = (typeof caFiles)[number] | typeof crlFile;

/** The files that Vault Agent renders for istiod. */
export const deliveredFiles = ({ delivery }: Spec): readonly CaFile[] =>
  delivery.crl ? [...caFiles, crlFile] : caFiles;

/** The Vault path from which Vault Agent reads a file, and the template that renders the file with a newline at its end. */
export function fileSource(spec: Spec, file: CaFile): { path: string; template: string } {
  const fromPki: Partial<Record<CaFile, string>> = {
    'ca-cert.pem': `${spec.intermediate.mount}/cert/ca`,
    'cert-chain.pem': `${spec.intermediate.mount}/cert/ca_chain`,
    'root-cert.pem': `${spec.root.mount}/cert/ca`,
  };
  const pkiPath = spec.delivery.source === 'PKI' ? fromPki[file] : undefined;
  if (pkiPath !== undefined) {
    return { path: pkiPath, template: `{{- with secret "${pkiPath}" -}}{{ .Data.certificate }}{{ "\\n" }}{{- end -}}` };
  }
  const path = kvDataPath(spec);
  const data = spec.keyStore.version === 2 ? '.Data.data' : '.Data';
  // the entry can lack the lists; the template language prints a placeholder for what is missing, which istiod takes for a damaged file
  const content =
    file === crlFile ? `{{ with index ${data} "${file}" }}{{ . }}{{ end }}` : `{{ index ${data} "${file}" }}`;
  return { path, template: `{{- with secret "${path}" -}}${content}{{- end -}}` };
}
