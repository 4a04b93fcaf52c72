import { describe, expect, it } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from '@jest/globals';
import { armor, Decrypter, Encrypter, generateX25519Identity, identityToRecipient } from 'age-encryption';
import { Secret } from '../observability/secret.ts';
import { encrypt, encrypterFor, readBackup, writeWhole } from './backup-file.ts';

const dir = mkdtempSync(join(tmpdir(), 'backup-file-'));
afterAll(() => rmSync(dir, { recursive: true }));

/** A CA as an entry of it would hold it, and its state entry. */
function makeCa(): { ca: Record<string, string>; state: Record<string, string> } {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' });
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl('req', '-x509', ...ec, '-subj', '/CN=Root', '-days', '9', '-keyout', 'root.key', '-out', 'root.pem');
  openssl('req', ...ec, '-subj', '/CN=Intermediate', '-keyout', 'ca.key', '-out', 'ca.csr');
  writeFileSync(join(dir, 'ext'), 'basicConstraints=critical,CA:true\n');
  openssl('x509', '-req', '-in', 'ca.csr', '-CA', 'root.pem', '-CAkey', 'root.key', '-days', '9', '-extfile', 'ext', '-out', 'ca.pem'); // prettier-ignore
  const read = (name: string) => readFileSync(join(dir, name), 'utf8');
  const marker = 'istio-vault-ca cluster=c ns=mesh name=istioca uid=u origin=made';
  const state = { highestGeneration: 1, role: '', made: [], handled: {}, history: [] };
  return {
    ca: {
      'ca-cert.pem': read('ca.pem'),
      'ca-key.pem': read('ca.key'),
      'cert-chain.pem': read('ca.pem'),
      'root-cert.pem': read('root.pem'),
      generation: '1',
      'istio-vault-ca': marker,
    },
    state: { state: JSON.stringify(state), 'istio-vault-ca': marker },
  };
}

const owner = { cluster: 'c', namespace: 'mesh', name: 'istioca' };
const { ca, state } = makeCa();
const content = { madeAt: '2026-01-01T00:00:00Z', owner, rootSource: 'Generate', state };
const secret = (data: Record<string, string>) => new Secret(JSON.stringify(data));

const identity = await generateX25519Identity();
const other = await generateX25519Identity();
const recipient = await identityToRecipient(identity);
const identityFile = join(dir, 'identity');
writeFileSync(identityFile, `# created: today\n# public key: ${recipient}\n\n${identity}\n`);

/** Writes a file and reads it as a backup. */
async function reads(bytes: Uint8Array | string, with_ = identityFile): Promise<unknown> {
  const path = join(dir, 'given.age');
  writeFileSync(path, bytes);
  return await readBackup(path, with_);
}
const encrypted = await encrypt(encrypterFor([recipient, await identityToRecipient(other)]), {
  ...content,
  ca: secret(ca),
});
const plain = async (value: unknown) => {
  const encrypter = new Encrypter();
  encrypter.addRecipient(recipient);
  return await encrypter.encrypt(JSON.stringify(value));
};

describe('a backup', () => {
  it('is read by each recipient, also with a frame of text around it', async () => {
    const otherFile = join(dir, 'other');
    writeFileSync(otherFile, other);
    for (const given of [reads(encrypted), reads(encrypted, otherFile), reads(armor.encode(encrypted))]) {
      const backup = (await given) as Awaited<ReturnType<typeof readBackup>>;
      expect(JSON.parse(backup.ca.reveal())).toEqual(ca);
      expect(backup).toMatchObject({
        ...content,
        facts: { entry: { generation: 1 }, state: { highestGeneration: 1 } },
      });
      expect(JSON.stringify(backup)).not.toContain('PRIVATE KEY');
    }
  });

  it('is a file of age', async () => {
    expect(Buffer.from(encrypted).toString('latin1')).toMatch(/^age-encryption\.org\/v1\n/);
    const decrypter = new Decrypter();
    decrypter.addIdentity(identity);
    expect(await decrypter.decrypt(encrypted, 'text')).toContain('"format":"istio-vault-ca backup"');
  });

  it('is written whole, for its owner alone', async () => {
    const path = join(dir, 'out.age');
    for (let i = 0; i < 2; i += 1) await writeWhole(path, encrypted);
    expect(readFileSync(path).equals(encrypted)).toBe(true);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await expect(writeWhole(join(dir, 'absent', 'out.age'), encrypted)).rejects.toThrow(/cannot be written \(ENOENT\)/);
    expect(readdirSync(dir).filter((name) => name.endsWith('.part'))).toEqual([]);
  });

  it('that is cut off anywhere, or changed anywhere, is not taken', async () => {
    for (let i = 0; i < 40; i += 1) {
      const at = Math.floor((i / 40) * encrypted.length);
      await expect(reads(encrypted.subarray(0, at))).rejects.toThrow(/truncated or damaged/);
      const changed = Uint8Array.from(encrypted);
      changed[at] = (changed[at] ?? 0) ^ 1;
      await expect(reads(changed)).rejects.toThrow(/truncated or damaged|no private key in/);
    }
  });

  const damaged: [string, unknown, RegExp][] = [
    ['something else', { some: 'thing' }, /is not a backup that this version/],
    ['a later version', { ...content, format: 'istio-vault-ca backup', version: 2, ca }, /is not a backup that this/],
    ['the key of another CA', entries({ 'ca-key.pem': readFileSync(join(dir, 'root.key'), 'utf8') }), /ca-key.pem is not the key/],
    ['another root', entries({ 'root-cert.pem': ca['ca-cert.pem'] ?? '' }), /not signed by a root/],
    ['entries of another resource', entries({ 'istio-vault-ca': 'istio-vault-ca cluster=c ns=shop name=istioca uid=u origin=made' }), /is not of IstioVaultCA mesh\/istioca: it carries the marker of c\/shop\/istioca/],
  ]; // prettier-ignore
  function entries(over: Record<string, string>) {
    return { ...content, format: 'istio-vault-ca backup', version: 1, ca: { ...ca, ...over } };
  }
  it.each(damaged)('with %s is refused', async (_, value, message) => {
    const refused = reads(await plain(value));
    await expect(refused).rejects.toThrow(message);
    await expect(refused).rejects.not.toThrow(/PRIVATE KEY/);
  });
});

describe('a key of age', () => {
  const keyFile = (text: string) => {
    const path = join(dir, 'keys');
    writeFileSync(path, text);
    return path;
  };

  it('of somebody else opens nothing, and says so', async () => {
    const stranger = keyFile(await generateX25519Identity());
    await expect(reads(encrypted, stranger)).rejects.toThrow(/no private key in .*keys opens it; it was encrypted for/);
  });

  it('with a typing error is named by its line, never shown', async () => {
    const typo = `${identity.slice(0, -1)}${identity.endsWith('Q') ? 'P' : 'Q'}`;
    const refused = await reads(encrypted, keyFile(`# mine\n${typo}\n`)).catch(String);
    expect(refused).toMatch(/line 2 is not a private key of age/);
    expect(refused).not.toContain(typo.slice(20, 40));
    await expect(reads(encrypted, keyFile('# nothing\n'))).rejects.toThrow(/contains no private key of age/);
    await expect(reads(encrypted, join(dir, 'absent'))).rejects.toThrow(/cannot be read \(ENOENT\)/);
    expect(() => encrypterFor([`${recipient}q`])).toThrow(/is not a public key of age/);
  });
});
