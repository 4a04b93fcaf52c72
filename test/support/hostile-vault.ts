/** Servers at the address of a Vault that do not serve: what a tenant could have the operator connect to. */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { makeServingCertificate } from '../stack/certificates.ts';
import { makeTemporaryDir, removeTemporaryDir } from '../stack/processes.ts';

/**
 * `silent`: takes requests and never answers. `trickling`: answers without end, byte by byte. `huge`: answers with more than anybody needs.
 * `wrong`: answers with something else. The last three say before that they are a Vault.
 */
export type Hostility = 'silent' | 'trickling' | 'huge' | 'wrong';

export interface HostileVault {
  readonly address: string;
  readonly caPem: string;
  /** Requests, and those of them whose client has gone away. */
  readonly requests: { readonly received: number; readonly ended: number };
  stop(): Promise<void>;
}

const health = { initialized: true, sealed: false, standby: false, version: '2.7.2', server_time_utc: 1 };

function answer(response: ServerResponse, hostility: Exclude<Hostility, 'silent'>): void {
  response.writeHead(200, { 'content-type': 'application/json' });
  if (hostility === 'wrong') response.end('<html>it works</html>');
  else if (hostility === 'huge') response.end(`{"data":{"x":"${'a'.repeat(5 * 1024 * 1024)}"}}`);
  else {
    const timer = setInterval(() => response.write(' '), 50);
    response.on('close', () => clearInterval(timer));
  }
}

export async function startHostileVault(hostility: Hostility): Promise<HostileVault> {
  const dir = makeTemporaryDir('hostile');
  const { caPem, certFile, keyFile } = await makeServingCertificate(dir, ['127.0.0.1']);
  const requests = { received: 0, ended: 0 };
  const server = createServer({ cert: readFileSync(certFile), key: readFileSync(keyFile) }, (request, response) => {
    requests.received += 1;
    response.on('close', () => (requests.ended += 1));
    if (hostility === 'silent') return;
    if (request.url === '/v1/sys/health') response.end(JSON.stringify(health));
    else answer(response, hostility);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    address: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    caPem,
    requests,
    stop: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
      removeTemporaryDir(dir);
    },
  };
}
