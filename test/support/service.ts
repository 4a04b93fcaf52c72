/**
 * A stand-in for a Kubernetes Service: one address in front of servers, which forwards each new connection to the next server
 * without reading it. It can also simulate network failures.
 */
import { createConnection, createServer, type AddressInfo, type Socket } from 'node:net';
import { freePort } from '../stack/ports.ts';

export interface Service {
  /** `https://127.0.0.1:<port>`: the servers behind it speak TLS. */
  readonly address: string;
  /** Sets the targets of new connections, used in turn; without targets, connections are closed at once. */
  route(ports: readonly number[]): void;
  /** Ends every connection and refuses new ones. */
  refuse(): Promise<void>;
  /** Accepts connections and bytes without an answer, like a failed host or a firewall that drops packets. */
  swallow(): Promise<void>;
  /** Delays every answer, milliseconds. */
  slow(ms: number): void;
  /** Forwards everything again; bytes that were dropped are lost with their connection. */
  restore(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts a stand-in in front of servers on loopback. */
export async function startService(ports: readonly number[]): Promise<Service> {
  const port = await freePort();
  const open = new Set<Socket>();
  let endpoints = ports;
  let turn = 0;
  let swallowing = false;
  let delayMs = 0;

  const keep = (socket: Socket, other: () => void): void => {
    open.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      open.delete(socket);
      other();
    });
  };
  const later = (act: () => void): void => {
    if (delayMs === 0) act();
    else setTimeout(act, delayMs).unref();
  };
  const accept = (client: Socket): void => {
    const to = endpoints[turn++ % Math.max(1, endpoints.length)];
    if (to === undefined) return void client.destroy();
    const server = createConnection({ host: '127.0.0.1', port: to });
    keep(client, () => server.destroy());
    keep(server, () => later(() => client.destroy()));
    client.on('data', (bytes) => swallowing || server.write(bytes));
    server.on('data', (bytes) => swallowing || later(() => client.write(bytes)));
    client.on('end', () => server.end());
    server.on('end', () => later(() => client.end()));
  };
  const listener = createServer({ allowHalfOpen: true }, accept);
  const listen = (): Promise<void> =>
    new Promise((resolve, reject) => {
      listener.once('error', reject);
      listener.listen(port, '127.0.0.1', () => resolve());
    });
  const refuse = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => listener.close(() => resolve()));
    for (const socket of open) socket.destroy();
    await closed;
  };
  await listen();
  return {
    address: `https://127.0.0.1:${(listener.address() as AddressInfo).port}`,
    route: (next) => void (endpoints = next),
    refuse,
    swallow: () => {
      swallowing = true;
      return Promise.resolve();
    },
    slow: (ms) => void (delayMs = ms),
    restore: async () => {
      if (swallowing) for (const socket of open) socket.destroy();
      [swallowing, delayMs] = [false, 0];
      if (!listener.listening) await listen();
    },
    stop: refuse,
  };
}
