/**
 * The effects of a rotation on workloads. Workloads continuously request certificates from any ready replica of istiod, and make mutual TLS
 * connections with each other with the roots that they received. Two kinds of failure are recorded: a certificate expired before any
 * replica issued another one, and a handshake failed while both certificates were valid. If there are no handshakes to evaluate, there is
 * therefore a failure of the first kind.
 */
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { createCertificate, requestToken, waitFor } from '../stack/index.ts';
import type { Kube } from './cluster.ts';

const exec = promisify(execFile);

/** What a workload connects with. */
export interface Identity {
  key: string;
  /** The leaf and its intermediates, PEM. */
  chain: string;
  /** root-cert.pem of the replica that signed the certificate. */
  roots: string;
  /** `notAfter` of the leaf, milliseconds since the epoch. */
  ends: number;
}

interface Pod {
  metadata: { name: string; deletionTimestamp?: string };
  status: { podIP?: string; conditions?: { type: string; status: string }[] };
}

/** A key and a request for it. */
async function makeKeyAndCsr(): Promise<{ key: string; csr: string }> {
  const dir = await mkdtemp(join(tmpdir(), 'workload-'));
  try {
    const file = join(dir, 'key.pem');
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];
    const { stdout } = await exec('openssl', ['req', '-new', ...curve, '-nodes', '-keyout', file, '-subj', '/']);
    return { key: await readFile(file, 'utf8'), csr: stdout.slice(stdout.indexOf('-----BEGIN')) };
  } finally {
    await rm(dir, { recursive: true });
  }
}

/** The revocation lists in ConfigMap istio-ca-crl of a namespace, one PEM block each; empty: it does not exist. */
export async function publishedLists(kube: Kube, namespace: string): Promise<string[]> {
  const { body } = await kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/istio-ca-crl`);
  const text = (body as { data?: Record<string, string> }).data?.['ca-crl.pem'] ?? '';
  return text.match(/-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----/g) ?? [];
}

/**
 * Makes one mutual TLS connection, each side with its own certificate and its own roots.
 * @param crl revocation lists: if there are any, OpenSSL needs one of every CA of the chain that has not ended, as Envoy does
 * @throws the error of either side
 */
async function shakeHands(server: Identity, client: Identity, crl: string[]): Promise<void> {
  const lists = crl.length > 0 ? { crl } : {};
  const listening = createServer({
    key: server.key,
    cert: server.chain,
    ca: server.roots,
    requestCert: true,
    rejectUnauthorized: true,
    ...lists,
  });
  listening.listen(0, '127.0.0.1');
  await once(listening, 'listening');
  const failed = new Promise<never>((_, reject) => listening.once('tlsClientError', reject));
  const accepted = once(listening, 'secureConnection') as Promise<[TLSSocket]>;
  const socket = connect({
    host: '127.0.0.1',
    port: (listening.address() as AddressInfo).port,
    key: client.key,
    cert: client.chain,
    ca: client.roots,
    ...lists,
    // names are SPIFFE URIs: only the chain is verified
    checkServerIdentity: () => undefined,
  });
  try {
    const [[other]] = await Promise.race([Promise.all([accepted, once(socket, 'secureConnect')]), failed]);
    other.destroy();
  } finally {
    socket.destroy();
    listening.close();
  }
}

/** The istiod of one revision. */
export interface MeshPlace {
  kube: Kube;
  /** istiod's. */
  namespace: string;
  /** Default: `default`. */
  revision?: string;
}

export interface WorkloadOptions extends MeshPlace {
  /** The istiod of the second workload; default: the same one. */
  second?: MeshPlace;
  /** Lifetime of the certificates, seconds; a workload requests a new one at half of it. */
  certificateSeconds: number;
  /** How long after its publication a revocation list reaches the workloads, milliseconds, as a kubelet takes its time; undefined: they have none. */
  listsLagMs?: number | undefined;
}

/** Two workloads, from `start` to `stop`. */
export class Workloads {
  readonly failures: string[] = [];
  /** Handshakes between them. */
  verifications = 0;
  /** The number of requests that reached a starting or stopping replica and were sent to another one. */
  repeated = 0;
  readonly #o: WorkloadOptions;
  readonly #identities: Identity[] = [];
  readonly #stopping = new AbortController();
  /** Published lists with the time at which they were read, oldest first. */
  #lists: { at: number; lists: string[] }[] = [];
  #loops: Promise<void>[] = [];
  #tokens: string[] = [];

  constructor(options: WorkloadOptions) {
    this.#o = options;
  }

  async start(): Promise<void> {
    for (const place of [0, 1]) {
      const { kube, namespace } = this.#place(place);
      this.#tokens[place] = await requestToken(kube, namespace, 'workload', ['istio-ca']);
    }
    const until = Date.now() + 1000 * this.#o.certificateSeconds;
    for (const place of [0, 1]) this.#identities[place] = await this.#renew(place, until);
    this.#loops = [this.#renewing(0), this.#renewing(1), this.#verifying()];
  }

  /** Waits until each workload has a certificate that was issued after the call, and they have connected with these. */
  async renewed(): Promise<void> {
    const options = { timeoutMs: 2000 * this.#o.certificateSeconds, log: () => this.failures.join('\n') };
    const before = [...this.#identities];
    const all = () => this.#identities.every((identity, place) => identity !== before[place]);
    await waitFor('workloads to renew their certificates', all, options);
    // the two handshakes in progress can have started with older certificates
    const verified = this.verifications + 4;
    await waitFor('workloads to speak with each other', () => this.verifications >= verified, options);
  }

  /** Requests a certificate for neither of the two, to connect with it later. */
  async guest(certificateSeconds: number): Promise<Identity> {
    return await this.#renew(0, Date.now() + 1000 * this.#o.certificateSeconds, certificateSeconds);
  }

  /** Connects a workload to a server with another certificate. @throws the error of either side; that of the client says what is wrong with it */
  async connect(guest: Identity): Promise<void> {
    const [client] = this.#identities;
    if (!client) throw new Error('start first');
    await shakeHands(guest, client, await this.#crl());
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#loops);
  }

  #place(place: number): MeshPlace {
    return place === 0 ? this.#o : (this.#o.second ?? this.#o);
  }

  /** Addresses of replicas, as in the Service. */
  async #ready({ kube, namespace, revision = 'default' }: MeshPlace): Promise<string[]> {
    const selector = encodeURIComponent(`app=istiod,istio.io/rev=${revision}`);
    const { body } = await kube.request('GET', `/api/v1/namespaces/${namespace}/pods?labelSelector=${selector}`);
    return (body as { items: Pod[] }).items
      .filter(({ metadata, status }) => {
        const ready = status.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true;
        return ready && metadata.deletionTimestamp === undefined;
      })
      .map(({ status }) => status.podIP ?? '');
  }

  /** The revocation lists that have reached the workloads. */
  async #crl(): Promise<string[]> {
    const { kube, namespace, listsLagMs } = this.#o;
    if (listsLagMs === undefined) return [];
    const now = Date.now();
    this.#lists.push({ at: now, lists: await publishedLists(kube, namespace) });
    const arrived = this.#lists.filter(({ at }) => at <= now - listsLagMs);
    this.#lists = [...arrived.slice(-1), ...this.#lists.filter(({ at }) => at > now - listsLagMs)];
    return arrived.at(-1)?.lists ?? [];
  }

  /** The roots that the namespace trusts; a workload verifies istiod with them. */
  async #trusted({ kube, namespace }: MeshPlace): Promise<Buffer> {
    const { body } = await kube.request('GET', `/api/v1/namespaces/${namespace}/configmaps/istio-ca-root-cert`);
    return Buffer.from((body as { data: Record<string, string> }).data['root-cert.pem'] ?? '');
  }

  /**
   * Requests a certificate from any replica. A replica that stops or hangs at that moment is no failure: a workload asks the next one.
   * @throws if no replica issues one in time
   */
  async #renew(place: number, until: number, certificateSeconds = this.#o.certificateSeconds): Promise<Identity> {
    const mesh = this.#place(place);
    const { key, csr } = await makeKeyAndCsr();
    const request = { csrPem: csr, token: this.#tokens[place] ?? '', validitySeconds: certificateSeconds };
    let last = 'no replica is ready';
    for (;;) {
      try {
        const hosts = await this.#ready(mesh);
        const host = hosts[Math.floor(Math.random() * hosts.length)];
        if (host !== undefined) {
          const at = { host, port: 15012, namespace: mesh.namespace };
          // a replica that hangs leaves time for another one
          const answer = await createCertificate(at, await this.#trusted(mesh), request, (until - Date.now()) / 2);
          const roots = answer.pop() ?? '';
          return {
            key,
            chain: answer.join('\n'),
            roots,
            ends: new X509Certificate(answer[0] ?? '').validToDate.getTime(),
          };
        }
      } catch (error) {
        last = error instanceof Error ? error.message : String(error);
      }
      if (Date.now() > until) throw new Error(`no certificate in time: ${last}`);
      this.repeated += 1;
      await pause(200);
    }
  }

  async #renewing(place: number): Promise<void> {
    const { signal } = this.#stopping;
    const life = 1000 * this.#o.certificateSeconds;
    let until = this.#identities[place]?.ends ?? 0;
    while (!signal.aborted) {
      const woken = await pause(Math.max(0, until - life / 2 - Date.now()), true, { signal }).catch(() => false);
      if (!woken) return;
      try {
        const identity = await this.#renew(place, until);
        this.#identities[place] = identity;
        until = identity.ends;
      } catch (error) {
        this.failures.push(`workload ${place}: ${String(error)}`);
        until += life;
      }
    }
  }

  async #verifying(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      const [one, other] = this.#identities;
      if (!one || !other) throw new Error('start first');
      for (const [server, client] of [
        [one, other],
        [other, one],
      ] as const) {
        const bothLast = (): boolean => Math.min(server.ends, client.ends) > Date.now();
        if (!bothLast()) continue;
        try {
          await shakeHands(server, client, await this.#crl());
          this.verifications += 1;
        } catch (error) {
          // a certificate can have expired just now
          if (bothLast()) this.failures.push(`handshake: ${String(error)}`);
        }
      }
      await pause(50, undefined, { signal }).catch(() => undefined);
    }
  }
}
