/** What others do of a CA in Vault that the operator only checks (`manage: false`). */
import { blocks } from './certificates.ts';
import type { Json } from './cluster.ts';
import type { Vault } from './scene.ts';

type Requests = Pick<Vault, 'request'>;

/** A request of an administrator. @returns the data of the answer @throws if Vault refuses */
export async function administer(vault: Requests, method: string, path: string, body: Json = {}): Promise<Json> {
  const reply = await vault.request(method, path, body);
  if (reply.status >= 300) throw new Error(`${method} ${path}: ${reply.status}`);
  return ((reply.body ?? {}) as { data?: Json }).data ?? {};
}

/** Makes a mount with a root of others. */
export async function makeRoot(vault: Requests, mount: string, commonName: string): Promise<void> {
  const { status } = await vault.request('GET', `sys/mounts/${mount}`);
  const config = { max_lease_ttl: '87600h' };
  if (status !== 200) await administer(vault, 'POST', `sys/mounts/${mount}`, { type: 'pki', config });
  const root = { common_name: commonName, ttl: '87600h', key_type: 'ec', key_bits: 256 };
  const { issuer_id: id } = await administer(vault, 'POST', `${mount}/root/generate/internal`, root);
  await administer(vault, 'POST', `${mount}/config/issuers`, { default: id as string });
}

/**
 * Has an intermediate signed by the default issuer of a root mount, and makes it the default issuer of its mount.
 * @returns the files of istiod, PEM, which are not in the key store yet
 */
export async function renewIntermediate(
  vault: Requests,
  mounts: { root: string; intermediate: string },
  commonName: string,
  key: { type: 'rsa' | 'ec'; bits: number } = { type: 'rsa', bits: 2048 },
) {
  const asked = { common_name: commonName, key_type: key.type, key_bits: key.bits };
  const { intermediate } = mounts;
  const made = await administer(vault, 'POST', `${intermediate}/intermediate/generate/exported`, asked);
  const request = { csr: made['csr'] as string, common_name: commonName, ttl: '40000h' };
  const signed = await administer(vault, 'POST', `${mounts.root}/root/sign-intermediate`, request);
  const certificate = signed['certificate'] as string;
  const installed = await administer(vault, 'POST', `${intermediate}/intermediate/set-signed`, { certificate });
  const [id = ''] = installed['imported_issuers'] as string[];
  await administer(vault, 'POST', `${intermediate}/config/issuers`, { default: id });
  const line = (pem: unknown) => `${String(pem).trim()}\n`;
  return {
    'ca-cert.pem': line(certificate),
    'ca-key.pem': line(made['private_key']),
    'cert-chain.pem': line(certificate),
    'root-cert.pem': line(signed['issuing_ca']),
  };
}

/** The serial number of a certificate: lower-case hex digits. */
export const serialOf = (pem: string): string => (blocks(pem)[0]?.serialNumber ?? '').toLowerCase();

/** A serial number of a status as of `serialOf`. */
export const plainSerial = (serial: string | undefined): string => (serial ?? '').replaceAll(':', '');
