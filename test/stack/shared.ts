/** Passes the stack of a Jest worker, which Jest's own process started, to the worker's test files: facts in a file, and a control socket. */
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { call, expectStatus } from './http.ts';
import { kubeClient, type KubeFacts } from './kube.ts';
import type { KubeServer, Product, Stack, StackMode, VaultServer } from './types.ts';
import { vaultClient, type VaultFacts } from './vault.ts';

/** Names the file with the facts. */
export const factsVariable = 'TEST_STACK_FACTS';

interface StackFacts {
  readonly mode: StackMode;
  readonly dir: string;
  readonly controlSocket: string;
  readonly kube: KubeFacts;
  readonly vaults: Record<Product, VaultFacts>;
}

/** The stack for a test file: the same, except that only its owner can stop it. */
export interface SharedStack {
  readonly mode: StackMode;
  readonly dir: string;
  readonly kube: Omit<KubeServer, 'stop'>;
  readonly vaults: Record<Product, Omit<VaultServer, 'stop'>>;
}

/** A stack, with the facts from which another process creates clients. */
export interface OwnedStack extends Stack {
  readonly kubeFacts: KubeFacts;
  readonly vaultFacts: Record<Product, VaultFacts>;
}

/**
 * Writes the facts of a stack to a file that only this user can read. Serves the restart of the API server, which only the
 * owner of the stack can do, on a unix socket. Returns the path of the file and a function that ends the service.
 */
export async function share(stack: OwnedStack): Promise<{ path: string; close: () => Promise<void> }> {
  const controlSocket = join(stack.dir, 'control.sock');
  const server: Server = createServer((request, response) => {
    if (request.method !== 'POST' || request.url !== '/kube/restart') {
      response.writeHead(404).end();
      return;
    }
    stack.kube.restart().then(
      () => response.writeHead(204).end(),
      (error: unknown) => response.writeHead(500).end(JSON.stringify(String(error))),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(controlSocket, resolve);
  });
  server.unref();
  const facts: StackFacts = {
    mode: stack.mode,
    dir: stack.dir,
    controlSocket,
    kube: stack.kubeFacts,
    vaults: stack.vaultFacts,
  };
  const path = join(stack.dir, 'facts.json');
  await writeFile(path, JSON.stringify(facts), { mode: 0o600 });
  return { path, close: () => new Promise((resolve) => server.close(() => resolve())) };
}

/**
 * The stack of this Jest worker. Test files use it one after another: use unique names, and unseal every server that you seal.
 * @throws if there is none
 */
export function sharedStack(): SharedStack {
  const path = process.env[factsVariable];
  if (path === undefined)
    throw new Error(`no shared stack: ${factsVariable} is not set (is this the Jest project "real" or "mesh"?)`);
  const facts = JSON.parse(readFileSync(path, 'utf8')) as StackFacts;
  return {
    mode: facts.mode,
    dir: facts.dir,
    kube: {
      ...kubeClient(facts.kube),
      restart: async () => {
        const url = 'http://localhost/kube/restart';
        const answer = await call(url, { method: 'POST', socketPath: facts.controlSocket, timeoutMs: 90_000 });
        expectStatus(answer, [204], 'restart of the API server');
      },
    },
    vaults: { OpenBao: vaultClient(facts.vaults.OpenBao), Vault: vaultClient(facts.vaults.Vault) },
  };
}
