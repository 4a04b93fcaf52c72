/** The versions of OpenBao and Vault that tests and the demo can run, and which of them a process uses. */

export type VersionedServer = 'openbao' | 'vault';

/** A version of Vault, and how it is built. */
interface VaultVersion {
  readonly version: string;
  /** Folder under `modules/` whose go.mod pins everything. */
  readonly module: string;
  /**
   * Whether the version has the build tag `minimal`, with which a build takes a fraction of the time and has the Kubernetes auth method only as a
   * plugin. Since 1.18.
   */
  readonly minimal: boolean;
}

/**
 * Newest first; the first is the default. Of each minor version the newest patch that compiles with published versions of Vault's own modules
 * sdk and api: 1.18.2 to 1.18.5 need code of the sdk that no published version has, and so does everything after 1.19.
 */
export const vaultVersions: readonly [VaultVersion, ...VaultVersion[]] = [
  { version: '1.19.5', module: 'vault', minimal: true },
  { version: '1.18.1', module: 'vault-1.18', minimal: true },
  { version: '1.17.6', module: 'vault-1.17', minimal: false },
  { version: '1.16.3', module: 'vault-1.16', minimal: false },
];

/** Newest first; the first is the default. Every version of the Python package. */
const openbaoVersions: readonly [string, ...string[]] = ['2.7.2', '2.7.1', '2.7.0', '2.6.2', '2.6.1'];

/** All versions of a product, newest first. */
export const versionsOf = (server: VersionedServer): readonly string[] =>
  server === 'vault' ? vaultVersions.map(({ version }) => version) : openbaoVersions;

/** The environment variable that chooses another version than the default: a whole one, or its beginning (`1.18`). */
export const versionVariable = { openbao: 'TEST_OPENBAO_VERSION', vault: 'TEST_VAULT_VERSION' } as const;

/**
 * Finds a version by itself or by its beginning, as `2.6`: then the newest one.
 * @throws Error with the list of versions if there is none
 */
export function findVersion(server: VersionedServer, text: string): string {
  const found = versionsOf(server).find((version) => version === text || version.startsWith(`${text}.`));
  if (found === undefined) throw new Error(`there is no ${server} ${text}; there are ${versionsOf(server).join(', ')}`);
  return found;
}

/** The version that this process uses. @throws Error if the environment names one that does not exist */
export function chosenVersion(server: VersionedServer): string {
  const text = process.env[versionVariable[server]] ?? '';
  return text === '' ? versionsOf(server)[0]! : findVersion(server, text);
}

/** Chooses the version for this process and those that it starts. @throws Error if it does not exist */
export function chooseVersion(server: VersionedServer, text: string): void {
  process.env[versionVariable[server]] = findVersion(server, text);
}
