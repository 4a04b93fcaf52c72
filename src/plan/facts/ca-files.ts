/** The four files of a plugged-in Istio CA: the Vault path that Vault Agent reads each from, and its template. */
import type { Spec } from '../../api/schema.ts';

/** Paths of the key store as the API has them: KV 2 puts `data/` between mount and path. */
export function kvDataPath(spec: Spec, suffix: '' | '-staging' | '-state' = ''): string {
  const { mount, path, version } = spec.keyStore;
  return version === 2 ? `${mount}/data/${path}${suffix}` : `${mount}/${path}${suffix}`;
}

/** The four files of istiod's plugged-in CA. https://istio.io/latest/docs/tasks/security/cert-management/plugin-ca-cert/ */
export const caFiles = ['ca-cert.pem', 'ca-key.pem', 'cert-chain.pem', 'root-cert.pem'] as const;

export type CaFile = (typeof caFiles)[number];

/** Where the agent reads a file, and the template that renders it with a newline at its end. */
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
  return { path, template: `{{- with secret "${path}" -}}{{ index ${data} "${file}" }}{{- end -}}` };
}
