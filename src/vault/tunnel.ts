/**
 * Connections to a server with TLS through a forward proxy (HTTP CONNECT). Node's agents can do that too (`proxyEnv`), but heed no time limit until
 * the TLS handshake in the tunnel is done; hpagent lets an invalid client certificate end the process. https://www.rfc-editor.org/rfc/rfc9110#CONNECT
 */
import http from 'node:http';
import https from 'node:https';
import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { bracketed, withoutBrackets } from '../runtime/host.ts';
import type { Proxy } from '../runtime/proxy.ts';

type OnConnection = (error: Error | null, stream: Duplex) => void;

/** An error with a code, which is all that is shown of it. */
const failure = (code: string): Error => Object.assign(new Error(code), { code });

/** Agent whose connections are tunnels through a proxy. */
export class TunnelAgent extends https.Agent {
  readonly #proxy: URL;
  readonly #timeoutMs: number;
  /** Requests for tunnels that the proxy has not opened yet. */
  readonly #pending = new Set<http.ClientRequest>();

  /** @param timeoutMs how long the proxy may take to open a tunnel, milliseconds */
  constructor({ url }: Proxy, options: https.AgentOptions, timeoutMs: number) {
    super(options);
    this.#proxy = new URL(url);
    this.#timeoutMs = timeoutMs;
  }

  override createConnection(options: https.RequestOptions, callback?: OnConnection): undefined {
    let isOver = false;
    const settle = (error: Error | null, stream?: Duplex): void => {
      if (isOver) return;
      isOver = true;
      // Node ignores the stream if there is an error
      callback?.(error, stream as Duplex);
    };
    const request = this.#connect(`${bracketed(options.host ?? '')}:${options.port ?? 443}`);
    this.#pending.add(request);
    request.on('error', (error) => settle(error));
    request.on('close', () => this.#pending.delete(request));
    request.on('connect', ({ statusCode }, socket) => {
      // until TLS has the connection
      socket.on('error', () => undefined);
      if (statusCode !== 200) {
        socket.destroy();
        settle(failure(`PROXY_ANSWERED_${statusCode}`));
        return;
      }
      try {
        const inTunnel = { ...options, socket };
        settle(null, super.createConnection(inTunnel) ?? undefined);
      } catch (error) {
        // such as a client certificate that is none
        socket.destroy();
        settle(error instanceof Error ? error : failure('ERR_TLS'));
      }
    });
    request.end();
    return undefined;
  }

  /** Ends idle connections, and those that are not open yet. */
  override destroy(): void {
    for (const request of this.#pending) request.destroy();
    super.destroy();
  }

  /** The request for a tunnel. @param authority `host:port` of the server */
  #connect(authority: string): http.ClientRequest {
    const { protocol, hostname, port, username, password } = this.#proxy;
    const host = withoutBrackets(hostname);
    const isSecure = protocol === 'https:';
    const credentials = Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`);
    const authorization =
      username === '' && password === '' ? {} : { 'proxy-authorization': `Basic ${credentials.toString('base64')}` };
    return (isSecure ? https : http).request({
      method: 'CONNECT',
      host,
      port: port === '' ? (isSecure ? 443 : 80) : port,
      path: authority,
      headers: { host: authority, ...authorization },
      setHost: false,
      // by default it would be the name in the Host header, which is that of the server
      ...(isSecure ? { servername: isIP(host) === 0 ? host : '' } : {}),
      agent: false,
      signal: AbortSignal.timeout(this.#timeoutMs),
    });
  }
}
