/** A workload's view of istiod's secure port (15012), of any replica, on a connection of its own. */
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { connect } from 'node:tls';

/** The address of an istiod replica. */
export interface IstiodAt {
  readonly host: string;
  /** Of the secure gRPC server: 15012 in a cluster. */
  readonly port: number;
  /** The namespace of its Service, whose name is in the certificate. */
  readonly namespace: string;
}

export interface CertificateRequest {
  readonly csrPem: string;
  /** A service account token of audience `istio-ca`. */
  readonly token: string;
  readonly validitySeconds: number;
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

/** Node's data about a certificate of a chain; the issuer is absent if the chain ends without its root. */
interface ChainLink {
  readonly raw: Buffer;
  readonly fingerprint256: string;
  readonly issuerCertificate?: ChainLink;
}

const pem = (der: Buffer): string =>
  `-----BEGIN CERTIFICATE-----\n${(der.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END CERTIFICATE-----\n`;

const nameOf = ({ namespace }: IstiodAt): string => `istiod.${namespace}.svc`;

/** The chain that a TLS handshake without credentials shows, leaf first, PEM: which CA this replica uses. */
export function peerCertificates(at: IstiodAt): Promise<string[]> {
  return new Promise((resolve, reject) => {
    // Nothing is sent. The caller wants the chain, and does not verify it.
    const socket = connect(
      { host: at.host, port: at.port, servername: nameOf(at), rejectUnauthorized: false, ALPNProtocols: ['h2'] },
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
  });
}

/**
 * Requests a workload certificate. The response contains leaf, intermediates, and root-cert.pem as the last element.
 * @param roots the roots that the workload trusts, PEM
 * @param timeoutMs timeout, milliseconds
 */
export async function createCertificate(
  at: IstiodAt,
  roots: Buffer,
  request: CertificateRequest,
  timeoutMs = 15_000,
): Promise<string[]> {
  const client = new Client(`${at.host}:${at.port}`, credentials.createSsl(roots), {
    'grpc.ssl_target_name_override': nameOf(at),
    'grpc.default_authority': nameOf(at),
    // a new connection: the pool could return one that was opened before a change
    'grpc.use_local_subchannel_pool': 1,
  });
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${request.token}`);
  const message = Buffer.concat([field(1, Buffer.from(request.csrPem)), field(3, request.validitySeconds)]);
  try {
    return await new Promise<string[]>((resolve, reject) => {
      client.makeUnaryRequest(
        '/istio.v1.auth.IstioCertificateService/CreateCertificate',
        (bytes: Buffer) => bytes,
        stringsOfField1,
        message,
        metadata,
        { deadline: Date.now() + timeoutMs },
        (error, answer) => {
          if (error !== null) reject(error);
          else resolve(answer ?? []);
        },
      );
    });
  } finally {
    client.close();
  }
}
