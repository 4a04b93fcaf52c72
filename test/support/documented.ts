/** The commands and manifests of a page in `docs`, as a reader would copy them. */
import { execFile } from 'node:child_process';
import { readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { loadYaml } from '../../src/runtime/yaml.ts';
import { agentEnv } from '../stack/agent.ts';
import { makeTemporaryDir } from '../stack/processes.ts';
import { ensureServer } from '../stack/servers.ts';
import type { Json, Kube } from './cluster.ts';
import type { Vault } from './scene.ts';

const top = join(import.meta.dirname, '..', '..');

/** What a section of a page contains; that of the top of the page has the name of an empty text. */
export interface Section {
  commands: string[];
  manifests: Json[];
}

/** The sections of a page, by heading. @param file below the top of the repository */
export async function sectionsOf(file: string): Promise<Map<string, Section>> {
  const text = await readFile(join(top, file), 'utf8');
  const sections = text.split(/^#{2,3} /m).map((part, i) => (i === 0 ? `\n${part}` : part));
  return new Map(
    sections.map((part) => {
      const blocks = (language: string) =>
        [...part.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'gms'))].map(([, block = '']) => block);
      return [
        part.slice(0, part.indexOf('\n')),
        { commands: blocks('sh'), manifests: blocks('yaml').map((block) => loadYaml(block) as Json) },
      ];
    }),
  );
}

/** A shell of an administrator, in which `vault` is the client of a server, and `kubectl` the real one. */
export class AdministratorShell {
  readonly dir = makeTemporaryDir('administrator');
  readonly #env: Record<string, string>;

  private constructor(env: Record<string, string>) {
    this.#env = env;
  }

  static async open(kube: Kube, vault: Vault): Promise<AdministratorShell> {
    const { binary } = await ensureServer('kubectl');
    const client = { VAULT_ADDR: vault.address, VAULT_TOKEN: vault.rootToken };
    const shell = new AdministratorShell({ ...agentEnv(client), KUBECONFIG: kube.adminKubeconfig });
    const bin = makeTemporaryDir('bin');
    Object.assign(shell.#env, {
      PATH: `${bin}:${process.env['PATH'] ?? ''}`,
      HOME: shell.dir,
      ...agentEnv({ VAULT_CACERT: join(shell.dir, 'vault-ca.pem') }),
    });
    const program = (path: string) => `#!/bin/sh\nexec '${path}' "$@"\n`;
    await Promise.all([
      writeFile(join(bin, 'vault'), program(vault.agentBinary), { mode: 0o755 }),
      writeFile(join(bin, 'kubectl'), program(binary), { mode: 0o755 }),
      writeFile(join(shell.dir, 'vault-ca.pem'), vault.caPem ?? ''),
      symlink(join(top, 'deploy'), join(shell.dir, 'deploy')),
    ]);
    return shell;
  }

  /**
   * Runs commands.
   * @param replace texts of the page, and what stands for them here
   * @returns their output @throws with their output if one fails
   */
  async run(commands: string, replace: Readonly<Record<string, string>> = {}): Promise<string> {
    const here = Object.entries(replace).reduce((text, [from, to]) => text.replaceAll(from, to), commands);
    const options = { env: this.#env, cwd: this.dir };
    const { stdout } = await promisify(execFile)('sh', ['-euc', here], options);
    return stdout.trim();
  }
}
