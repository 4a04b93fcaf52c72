/** The real istiod as a process beside a bare API server, with its CA files in a folder. */
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { call } from './http.ts';
import { freePort } from './ports.ts';
import { makeTemporaryDir, removeTemporaryDir, startProcess } from './processes.ts';
import { ensureServer } from './servers.ts';
import type { KubeServer, RunningServer } from './types.ts';
import { waitFor } from './wait.ts';

export interface IstiodOptions {
  readonly kube: Pick<KubeServer, 'adminKubeconfig'>;
  /** Path; the administrator's unless given. */
  readonly kubeconfig?: string;
  /** The folder with ca-cert.pem, ca-key.pem, cert-chain.pem and root-cert.pem (environment ROOT_CA_DIR). */
  readonly rootCaDir: string;
  /** `istio-system` unless given; it has to exist. */
  readonly namespace?: string;
  /** `default` unless given. */
  readonly revision?: string;
  readonly extraEnv?: Readonly<Record<string, string>>;
}

export interface CertificateRequest {
  readonly csrPem: string;
  /** A service account token of audience `istio-ca`. */
  readonly token: string;
  readonly validitySeconds: number;
}

export interface Istiod extends RunningServer {
  /** Port of the secure gRPC server (15012 in a cluster). */
  readonly securePort: number;
  /** Port of /metrics (15014 in a cluster). */
  readonly monitoringPort: number;
  /** The exit code or signal once it has ended: istiod refuses to start on bad CA files. */
  readonly ended: () => number | string | undefined;
  /** Waits until it is ready. @throws with its log's tail when it ends, or is not ready within 60 s */
  ready(): Promise<void>;
  /** The chain that a TLS handshake without credentials shows, leaf first, PEM: which CA this replica uses. */
  peerCertificates(): Promise<string[]>;
  /** Has a workload certificate signed. The answer: leaf, intermediates, and root-cert.pem as the last element. */
  createCertificate(request: CertificateRequest): Promise<string[]>;
}

/** One field of a protobuf message: number, then a varint or length-delimited bytes. */
function field(number: number, value: Buffer | number): Buffer {
  if (typeof value === 'number') return Buffer.concat([varint(number << 3), varint(value)]);
  return Buffer.concat([varint((number << 3) | 2), varint(value.length), value]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 0x7f) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  return Buffer.from([...bytes, rest]);
}

/** The strings of field 1 of a message that has no other fields. */
function stringsOfField1(message: Buffer): string[] {
  const found: string[] = [];
  let at = 0;
  const read = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = message[at++];
      if (byte === undefined) throw new Error('the answer of CreateCertificate ends within a number');
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.length) {
    if (read() !== ((1 << 3) | 2)) throw new Error('the answer of CreateCertificate has an unknown field');
    const length = read();
    found.push(message.toString('utf8', at, at + length));
    at += length;
  }
  return found;
}

/** What Node tells of a chain's certificate; the issuer is absent where the chain ends without its root. */
interface ChainLink {
  readonly raw: Buffer;
  readonly fingerprint256: string;
  readonly issuerCertificate?: ChainLink;
}

const pem = (der: Buffer): string =>
  `-----BEGIN CERTIFICATE-----\n${(der.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END CERTIFICATE-----\n`;

/**
 * Starts istiod as a process, with free ports on 127.0.0.1, in an empty folder, and without what a cluster's
 * environment would tell it. Does not wait: call `ready()`.
 */
export async function startIstiod(options: IstiodOptions): Promise<Istiod> {
  const { binary } = await ensureServer('istiod');
  const namespace = options.namespace ?? 'istio-system';
  const revision = options.revision ?? 'default';
  const first = await freePort(5);
  const [http, https, grpc, secure, monitoring] = [first, first + 1, first + 2, first + 3, first + 4];
  const dir = makeTemporaryDir('istiod');
  // Paths like ./etc/istio and ./var/run are relative to where it starts: nothing may be there.
  mkdirSync(join(dir, 'empty'));
  const child = startProcess({
    name: 'istiod',
    command: binary,
    args: [
      ...['discovery', `--kubeconfig=${options.kubeconfig ?? options.kube.adminKubeconfig}`],
      ...[`--httpAddr=127.0.0.1:${http}`, `--httpsAddr=127.0.0.1:${https}`, `--grpcAddr=127.0.0.1:${grpc}`],
      ...[`--secureGRPCAddr=127.0.0.1:${secure}`, `--monitoringAddr=127.0.0.1:${monitoring}`],
      ...['--ctrlz_port=0', '--shutdownDuration=1s', '--log_output_level=default:info'],
    ],
    env: {
      HOME: dir,
      ROOT_CA_DIR: options.rootCaDir,
      POD_NAMESPACE: namespace,
      POD_NAME: `istiod-${randomBytes(4).toString('hex')}`,
      SERVICE_ACCOUNT: revision === 'default' ? 'istiod' : `istiod-${revision}`,
      REVISION: revision,
      CLUSTER_ID: 'Kubernetes',
      PILOT_CERT_PROVIDER: 'istiod',
      JWT_POLICY: 'third-party-jwt',
      ...options.extraEnv,
    },
    cwd: join(dir, 'empty'),
    logPath: join(dir, 'istiod.log'),
  });
  let finalLog: string | undefined;
  const servername = `istiod.${namespace}.svc`;
  return {
    securePort: secure,
    monitoringPort: monitoring,
    ended: child.ended,
    log: () => finalLog ?? child.log(),
    stop: async () => {
      await child.stop();
      finalLog ??= child.log();
      removeTemporaryDir(dir);
    },
    ready: async () => {
      const ready = async (): Promise<boolean> => (await call(`http://127.0.0.1:${http}/ready`)).status === 200;
      await waitFor('istiod to be ready', ready, { timeoutMs: 60_000, intervalMs: 100, process: child });
    },
    peerCertificates: () =>
      new Promise((resolve, reject) => {
        // Nothing is sent: which chain it shows is what is asked, not whether to trust it.
        const socket = connect(
          { host: '127.0.0.1', port: secure, servername, rejectUnauthorized: false, ALPNProtocols: ['h2'] },
          () => {
            const chain: string[] = [];
            const seen = new Set<string>();
            let certificate: ChainLink | undefined = socket.getPeerCertificate(true);
            while (certificate !== undefined && !seen.has(certificate.fingerprint256)) {
              seen.add(certificate.fingerprint256);
              chain.push(pem(certificate.raw));
              certificate = certificate.issuerCertificate;
            }
            socket.destroy();
            resolve(chain);
          },
        );
        socket.setTimeout(10_000, () => socket.destroy(new Error('no TLS handshake with istiod within 10 s')));
        socket.on('error', reject);
      }),
    createCertificate: async ({ csrPem, token, validitySeconds }) => {
      const roots = await readFile(join(options.rootCaDir, 'root-cert.pem'));
      const client = new Client(`127.0.0.1:${secure}`, credentials.createSsl(roots), {
        'grpc.ssl_target_name_override': servername,
        'grpc.default_authority': servername,
      });
      const metadata = new Metadata();
      metadata.set('authorization', `Bearer ${token}`);
      const message = Buffer.concat([field(1, Buffer.from(csrPem)), field(3, validitySeconds)]);
      try {
        return await new Promise<string[]>((resolve, reject) => {
          client.makeUnaryRequest(
            '/istio.v1.auth.IstioCertificateService/CreateCertificate',
            (request: Buffer) => request,
            stringsOfField1,
            message,
            metadata,
            { deadline: Date.now() + 15_000 },
            (error, answer) => {
              if (error !== null) reject(error);
              else resolve(answer ?? []);
            },
          );
        });
      } finally {
        client.close();
      }
    },
  };
}
