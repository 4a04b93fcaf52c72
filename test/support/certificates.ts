/** Checks certificates with node:crypto alone, independently of the operator's code. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execFile } from 'node:child_process';
import { tmpdir } from 'node:os';
import { promisify } from 'node:util';

const exec = promisify(execFile);

export const blocks = (pem: string): X509Certificate[] =>
  (pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []).map(
    (block) => new X509Certificate(block),
  );

export interface CaFiles {
  cert: string;
  key: string;
  chain: string;
  root: string;
}

export async function readCaFiles(dir: string): Promise<CaFiles> {
  const read = async (name: string) => await readFile(join(dir, name), 'utf8');
  return {
    cert: await read('ca-cert.pem'),
    key: await read('ca-key.pem'),
    chain: await read('cert-chain.pem'),
    root: await read('root-cert.pem'),
  };
}

/** The defects of a set of CA files; empty: istiod can use them. */
export function defects(files: CaFiles): string[] {
  const out: string[] = [];
  const [cert] = blocks(files.cert);
  const chain = blocks(files.chain);
  const roots = blocks(files.root);
  const [root] = roots;
  if (!cert || !root) return ['no certificate or no root'];
  for (const [name, text] of Object.entries(files))
    if (!String(text).endsWith('\n')) out.push(`${name} does not end in a newline`);
  if (blocks(files.cert).length !== 1) out.push('ca-cert.pem holds more than one certificate');
  if (!cert.checkPrivateKey(createPrivateKey(files.key))) out.push('the key does not belong to the certificate');
  if (chain[0]?.fingerprint256 !== cert.fingerprint256)
    out.push('the chain does not begin with the signing certificate');
  // each certificate of the chain is signed by the next, and the last by a root
  for (const [at, one] of chain.entries()) {
    const signers = at + 1 < chain.length ? [chain[at + 1] ?? root] : roots;
    if (!signers.some((signer) => one.verify(signer.publicKey) && one.checkIssued(signer)))
      out.push(`certificate ${at} of the chain is not signed by what follows it`);
  }
  if (!root.verify(root.publicKey)) out.push('the root is not self-signed');
  if (!cert.ca || !root.ca) out.push('not a CA');
  const now = Date.now();
  for (const c of [cert, root])
    if (c.validFromDate.getTime() > now || c.validToDate.getTime() < now) out.push(`${c.subject} is not valid now`);
  if (cert.validToDate > root.validToDate) out.push('the intermediate outlives its root');
  return out;
}

/** Verifies a chain with `openssl verify`. @throws with the output of openssl if it does not verify */
export async function opensslVerify(leaf: string, intermediates: string, root: string): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'openssl-'));
  try {
    await Promise.all([
      writeFile(join(dir, 'leaf.pem'), leaf),
      writeFile(join(dir, 'intermediates.pem'), intermediates),
      writeFile(join(dir, 'root.pem'), root),
    ]);
    const untrusted = intermediates === '' ? [] : ['-untrusted', 'intermediates.pem'];
    await exec('openssl', ['verify', '-CAfile', 'root.pem', ...untrusted, 'leaf.pem'], { cwd: dir });
  } finally {
    await rm(dir, { recursive: true });
  }
}

/**
 * Verifies a workload certificate that is made with CA files for the purpose, as proxies do: with a revocation list of every CA above it.
 * @param lists ca-crl.pem
 * @throws with the output of openssl if it does not verify
 */
export async function opensslVerifyWithLists({ cert, key, chain, root }: CaFiles, lists: string): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'openssl-'));
  try {
    const csr = await makeCsr();
    for (const [name, text] of Object.entries({ cert, key, chain, root, lists, csr })) await writeFile(join(dir, name), text); // prettier-ignore
    await exec('openssl', ['x509', '-req', '-in', 'csr', '-CA', 'cert', '-CAkey', 'key', '-days', '1', '-out', 'leaf'], { cwd: dir }); // prettier-ignore
    const files = ['-CAfile', 'root', '-untrusted', 'chain', '-CRLfile', 'lists'];
    await exec('openssl', ['verify', '-crl_check_all', ...files, 'leaf'], { cwd: dir });
  } finally {
    await rm(dir, { recursive: true });
  }
}

/** A CSR with an empty subject for a fresh P-256 key, as a workload's agent sends it. */
export async function makeCsr(): Promise<string> {
  const { stdout } = await exec('openssl', [
    'req',
    '-new',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-keyout',
    '/dev/null',
    '-subj',
    '/',
  ]);
  return stdout.slice(stdout.indexOf('-----BEGIN'));
}
