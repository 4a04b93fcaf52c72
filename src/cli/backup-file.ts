/**
 * The file of a backup: JSON with the entries of a CA, encrypted with age (https://age-encryption.org/v1). Errors of the library are not shown, because
 * they can contain the text that it was given.
 */
import { open, readFile, rename, rm, type FileHandle } from 'node:fs/promises';
import { armor, Decrypter, Encrypter } from 'age-encryption';
import { z } from 'zod';
import { Secret } from '../observability/secret.ts';
import { BackupError, factsOf, type StoredCa, type StoredFacts } from '../vault/backup.ts';

const format = 'istio-vault-ca backup';
const entrySchema = z.record(z.string(), z.string());
const fileSchema = z.object({
  format: z.literal(format),
  version: z.literal(1),
  /** RFC 3339. */
  madeAt: z.string(),
  owner: z.object({ cluster: z.string(), namespace: z.string(), name: z.string() }),
  rootSource: z.string(),
  ca: entrySchema,
  state: entrySchema,
});

/** What a backup holds. */
export interface Backup extends StoredCa, Pick<z.output<typeof fileSchema>, 'madeAt' | 'owner' | 'rootSource'> {
  facts: StoredFacts;
}

/** Bytes. The entries of a CA are smaller than 1 MiB each, see docs/security.md. */
const largestFile = 8 * 2 ** 20;
const armorStart = '-----BEGIN AGE ENCRYPTED FILE-----';

/**
 * An encrypter for public keys of age.
 * @throws BackupError if one of them is none, such as a key with a typing error
 */
export function encrypterFor(recipients: readonly string[]): Encrypter {
  const encrypter = new Encrypter();
  for (const recipient of recipients) {
    try {
      encrypter.addRecipient(recipient);
    } catch {
      throw new BackupError(
        `--recipient "${recipient.slice(0, 100)}" is not a public key of age; copy the line that begins with "Public key" in the output of age-keygen`,
      );
    }
  }
  return encrypter;
}

/** Encrypts a backup. The key is in memory only. */
export async function encrypt(encrypter: Encrypter, { ca, ...rest }: Omit<Backup, 'facts'>): Promise<Uint8Array> {
  const content = { format, version: 1, ...rest, ca: JSON.parse(ca.reveal()) as unknown };
  return await encrypter.encrypt(JSON.stringify(content));
}

/** Writes a file that only its owner can read. A file of that name is replaced when the new one is complete. */
export async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const part = `${path}.${process.pid}.part`;
  let file: FileHandle | undefined;
  try {
    file = await open(part, 'wx', 0o600);
    await file.writeFile(bytes);
    await file.sync();
    await file.close();
    await rename(part, path);
  } catch (error) {
    if (file) await rm(part, { force: true });
    throw new BackupError(`${path}: cannot be written (${codeOf(error)}); nothing was written there`);
  }
}

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? 'failed';

/** @throws BackupError if the file does not exist, or is larger than a backup can be */
async function readBounded(path: string, what: string): Promise<Buffer> {
  const bytes = await readFile(path).catch((error: unknown) => {
    throw new BackupError(`${path}: cannot be read (${codeOf(error)}); give the path of ${what}`);
  });
  if (bytes.length > largestFile) throw new BackupError(`${path}: is larger than 8 MiB, so it is not ${what}`);
  return bytes;
}

/** Private keys of age, from a file as age-keygen writes it: one on a line, comments after #. */
async function decrypterFor(path: string): Promise<Decrypter> {
  const lines = (await readBounded(path, 'the file that age-keygen wrote')).toString('utf8').split('\n');
  const decrypter = new Decrypter();
  let count = 0;
  for (const [i, line] of lines.entries()) {
    const text = line.trim();
    if (text === '' || text.startsWith('#')) continue;
    try {
      decrypter.addIdentity(text);
      count += 1;
    } catch {
      throw new BackupError(
        `${path}: line ${i + 1} is not a private key of age (AGE-SECRET-KEY-1…); keys of SSH and encrypted key files are not supported`,
      );
    }
  }
  if (count === 0) throw new BackupError(`${path}: contains no private key of age (AGE-SECRET-KEY-1…)`);
  return decrypter;
}

/** @throws BackupError if the file is no backup of this version */
function parse(text: string, path: string): Backup {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    content = undefined; // the schema rejects it
  }
  const parsed = fileSchema.safeParse(content);
  if (!parsed.success)
    throw new BackupError(`${path}: is encrypted with age, but is not a backup that this version of the program reads`);
  const { ca, state, madeAt, owner, rootSource } = parsed.data;
  const entry = (data: Record<string, string>) => ({ casVersion: 0, data });
  const what = { ca: `${path}: its CA entry`, state: `${path}: its state entry` };
  const facts = factsOf(owner, entry(ca), entry(state), what);
  return { madeAt, owner, rootSource, ca: new Secret(JSON.stringify(ca)), state, facts };
}

/**
 * Reads and decrypts a backup.
 * @param identity path of the file with private keys of age
 * @throws BackupError
 */
export async function readBackup(path: string, identity: string): Promise<Backup> {
  const decrypter = await decrypterFor(identity);
  const bytes = await readBounded(path, 'the file that the command backup wrote');
  let text: string;
  try {
    const armored = bytes.subarray(0, armorStart.length).toString('latin1') === armorStart;
    text = await decrypter.decrypt(armored ? armor.decode(bytes.toString('latin1')) : bytes, 'text');
  } catch (error) {
    const isOther = error instanceof Error && error.message.startsWith('no identity matched');
    throw new BackupError(
      isOther
        ? `${path}: no private key in ${identity} opens it; it was encrypted for other recipients`
        : `${path}: cannot be decrypted: it is truncated or damaged, or was not written by the command backup; take another copy`,
    );
  }
  return parse(text, path);
}
