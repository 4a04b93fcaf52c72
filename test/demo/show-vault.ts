/** Prints the path of each object in Vault. Names the fields of entries that hold keys, never their values. */
import { X509Certificate } from 'node:crypto';
import { expectStatus } from '../stack/http.ts';
import { blocks } from '../support/certificates.ts';
import type { Json } from '../support/cluster.ts';
import type { Vault } from '../support/scene.ts';
import type { Rendered } from './show-files.ts';
import { step, table, title } from './terminal.ts';

interface Issuer {
  issuer_id: string;
  issuer_name: string;
  key_id: string;
  certificate: string;
}

async function read(vault: Vault, path: string): Promise<Json> {
  return (expectStatus(await vault.request('GET', path), [200], `read ${path}`) as { data: Json }).data;
}

const list = (value: unknown): string => (Array.isArray(value) ? value.map(String).join(', ') : String(value));

async function issuerRows(vault: Vault, mount: string, what: string, key: string): Promise<string[][]> {
  const issuer = (await read(vault, `${mount}/issuer/default`)) as unknown as Issuer;
  const { key_name: keyName, key_type: keyType } = await read(vault, `${mount}/key/${issuer.key_id}`);
  const name = issuer.issuer_name === '' ? issuer.issuer_id : `${issuer.issuer_name} (${issuer.issuer_id})`;
  return [
    [what, `${mount}/issuer/default`, `issuer ${name}`],
    ['', `${mount}/key/${issuer.key_id.slice(0, 8)}…`, `${String(keyType)} key ${list(keyName)}; ${key}`],
  ];
}

async function entryRow(vault: Vault, path: string, what: string): Promise<string[]> {
  const answer = await vault.request('GET', `kv/data/${path}`);
  const data = answer.status === 200 ? (answer.body as { data: { data: Json; metadata: Json } }).data : undefined;
  if (data === undefined) return [what, `kv/data/${path}`, 'empty'];
  const fields = Object.keys(data.data).sort().join(', ');
  return [what, `kv/data/${path}`, `version ${String(data.metadata['version'])}: ${fields}`];
}

async function accessRows(vault: Vault): Promise<string[][]> {
  const policy = String((await read(vault, 'sys/policies/acl/istioca'))['policy']);
  const paths = [...policy.matchAll(/^path "([^"]+)" \{\s*capabilities = \[([^\]]*)\]/gm)];
  const role = await read(vault, 'auth/kubernetes/role/istiod');
  return [
    [
      'policy',
      'sys/policies/acl/istioca',
      paths.map(([, path, what]) => `${what?.replaceAll('"', '') ?? ''} ${path ?? ''}`).join('; '),
    ],
    [
      'role',
      'auth/kubernetes/role/istiod',
      `service accounts ${list(role['bound_service_account_names'])} of ${list(role['bound_service_account_namespaces'])}, policies ${list(role['token_policies'])}`,
    ],
  ];
}

/** The root certificate, which Vault serves without authentication. */
export async function vaultRoot(vault: Vault): Promise<X509Certificate> {
  return new X509Certificate(String((await read(vault, 'pki/cert/ca'))['certificate']));
}

export async function showVault(vault: Vault, { files }: Rendered): Promise<void> {
  title(`Where it lives in ${vault.product}`);
  table(
    [
      ...(await issuerRows(vault, 'pki', 'root CA', 'made in Vault, cannot be read')),
      ...(await issuerRows(vault, 'istioca', 'intermediate CA', 'imported')),
      await entryRow(vault, 'istioca', 'the four files'),
      await entryRow(vault, 'istioca-staging', 'staged key'),
      await entryRow(vault, 'istioca-state', "operator's memory"),
      ...(await accessRows(vault)),
    ],
    ['WHAT', 'PATH', 'CONTENT'],
  );
  const same = (await vaultRoot(vault)).fingerprint256 === blocks(files.root)[0]?.fingerprint256;
  if (!same) throw new Error(`root-cert.pem is not the certificate of pki/cert/ca in ${vault.product}`);
  step(`root-cert.pem is the certificate that ${vault.product} serves at pki/cert/ca`);
}
