/** A forward proxy (HTTP CONNECT) on loopback. It alone knows where the names of a test are, as the proxy at the edge of a network does. */
import { createServer, type IncomingMessage } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';

export interface ForwardProxy {
  /** `http://user:password@127.0.0.1:<port>`; the proxy refuses who does not say both. */
  readonly url: string;
  /** `127.0.0.1:<port>` */
  readonly host: string;
  readonly password: string;
  /** The number of connections to a name that it has opened. */
  opened(name: string): number;
  /** Refuses connections to a name with status 403, and ends those that exist; `undefined`: refuses nothing. */
  refuse(name: string | undefined): void;
  stop(): Promise<void>;
}

/** Starts a proxy. @param servers port on loopback by name; any other name is refused with status 502 */
export async function startForwardProxy(servers: Readonly<Record<string, number>>): Promise<ForwardProxy> {
  const password = `proxy-${Math.random().toString(36).slice(2)}`;
  const expected = `Basic ${Buffer.from(`operator:${password}`).toString('base64')}`;
  const opened = new Map<string, number>();
  const tunnels = new Map<Socket, string>();
  let refused: string | undefined;

  const answer = (client: Socket, status: string): void => void client.end(`HTTP/1.1 ${status}\r\n\r\n`);
  const keep = (socket: Socket, name: string, other: Socket): void => {
    tunnels.set(socket, name);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      tunnels.delete(socket);
      other.destroy();
    });
  };
  const onConnect = (request: IncomingMessage, client: Socket, head: Buffer): void => {
    const [name = ''] = (request.url ?? '').split(':');
    const port = servers[name];
    client.on('error', () => client.destroy());
    if (request.headers['proxy-authorization'] !== expected) return answer(client, '407 Proxy Authentication Required');
    if (name === refused) return answer(client, '403 Forbidden');
    if (port === undefined) return answer(client, '502 Bad Gateway');
    const server = connect({ host: '127.0.0.1', port }, () => {
      opened.set(name, (opened.get(name) ?? 0) + 1);
      client.write('HTTP/1.1 200 Connection established\r\n\r\n');
      server.write(head);
      server.pipe(client).pipe(server);
    });
    keep(server, name, client);
    keep(client, name, server);
  };

  const listener = createServer((_, response) => response.writeHead(405).end());
  listener.on('connect', onConnect);
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const host = `127.0.0.1:${(listener.address() as AddressInfo).port}`;
  return {
    url: `http://operator:${password}@${host}`,
    host,
    password,
    opened: (name) => opened.get(name) ?? 0,
    refuse: (name) => {
      refused = name;
      for (const [socket, to] of tunnels) if (to === name) socket.destroy();
    },
    stop: async () => {
      for (const socket of tunnels.keys()) socket.destroy();
      await new Promise((resolve) => listener.close(resolve));
    },
  };
}
