/**
 * Asks an istiod replica to sign a certificate. The response shows with which CA the replica signs, which a TLS handshake does not if somebody
 * else gave the replica its serving certificate, and which roots it distributes: its last element is the complete root-cert.pem.
 * Sources: https://github.com/istio/istio, security/pkg/server/ca/server.go, and https://github.com/istio/api, security/v1alpha1/ca.proto
 */
import { createPublicKey, generateKeyPairSync, sign, X509Certificate, type KeyObject } from 'node:crypto';
import { connect, constants, type ClientHttp2Session } from 'node:http2';
import { isError } from '../observability/is-error.ts';
import type { Secret } from '../observability/secret.ts';
import { bundleFacts, bundleFingerprints } from '../plan/facts/certificate.ts';
import type { Signed, Unreachable } from '../plan/facts/observed-istiod.ts';
import { bracketed } from '../runtime/host.ts';
import { issuerOf } from './probe.ts';

/** The gRPC server of an istiod replica. */
export interface Replica {
  /** IP address of the Pod. */
  host: string;
  /** Port of the secure gRPC server: 15012. */
  port: number;
  /** DNS name in its certificate, such as `istiod.istio-system.svc`. */
  servername: string;
}

/** Requested lifetime of the certificate, in seconds. It is short, because nobody uses the certificate. */
const validitySeconds = 60;

/** Path of the gRPC method. */
const method = '/istio.v1.auth.IstioCertificateService/CreateCertificate';

/** Returns a DER element of at most 65535 bytes: tag, length and content. */
function der(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

/** Algorithm identifier ecdsa-with-SHA256, 1.2.840.10045.4.3.2 (RFC 5758). */
const ecdsaWithSha256 = der(0x30, Buffer.from('06082a8648ce3d040302', 'hex'));

/** Returns a PKCS #10 certificate signing request without a subject (RFC 2986), as PEM. istiod takes the identity from the token. */
function certificateRequest(key: KeyObject): string {
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'der' });
  const info = der(0x30, Buffer.from('020100', 'hex'), der(0x30), publicKey, der(0xa0));
  const signature = der(0x03, Buffer.from([0]), sign('sha256', info, key));
  const lines =
    der(0x30, info, ecdsaWithSha256, signature)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE REQUEST-----\n${lines.join('\n')}\n-----END CERTIFICATE REQUEST-----\n`;
}

/** Returns a Protocol Buffers varint of a non-negative integer. */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  return Buffer.from([...bytes, rest]);
}

/** Returns the message IstioCertificateRequest {csr = 1, validity_duration = 3}, framed for gRPC. */
function requestMessage(csr: string): Buffer {
  const text = Buffer.from(csr);
  const message = Buffer.concat([varint(0x0a), varint(text.length), text, varint(0x18), varint(validitySeconds)]);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** Returns the strings of the message IstioCertificateResponse {repeated cert_chain = 1}. @throws Error if it is another message */
function certificateChain(framed: Buffer): string[] {
  if (framed.length < 5 || framed[0] !== 0 || framed.readUInt32BE(1) !== framed.length - 5)
    throw new Error('istiod answered with something that is no gRPC message');
  const certificates: string[] = [];
  let at = 5;
  const nextVarint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = framed[at];
      if (byte === undefined || scale > 2 ** 28) throw new Error('istiod answered with a message that ends too soon');
      at += 1;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  while (at < framed.length) {
    if (nextVarint() !== 0x0a) throw new Error('istiod answered with a field that is not known');
    const length = nextVarint();
    if (at + length > framed.length) throw new Error('istiod answered with a message that ends too soon');
    certificates.push(framed.toString('utf8', at, at + length));
    at += length;
  }
  return certificates;
}

/** Maximum size of a response, in bytes. It contains a certificate chain and a trust bundle. */
const longestAnswer = 256 * 1024;

/** Calls the gRPC method and returns the response. @throws Error if the status is not OK, the response is too long, or the signal aborts */
function call(session: ClientHttp2Session, token: Secret, message: Buffer, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const stream = session.request(
      {
        ':method': 'POST',
        ':path': method,
        'content-type': 'application/grpc',
        te: 'trailers',
        authorization: `Bearer ${token.reveal()}`,
      },
      { signal },
    );
    const chunks: Buffer[] = [];
    let length = 0;
    let status = '';
    const recordStatus = (headers: Record<string, unknown>) => {
      if (typeof headers['grpc-status'] === 'string') status = headers['grpc-status'];
    };
    stream.on('response', recordStatus);
    stream.on('trailers', recordStatus);
    stream.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length > longestAnswer) stream.close(constants.NGHTTP2_CANCEL);
      else chunks.push(chunk);
    });
    stream.on('error', reject);
    stream.on('close', () => {
      // the error text of the server can contain anything, so only its status is used
      if (status === '0') resolve(Buffer.concat(chunks));
      else reject(new Error(`istiod refused to sign (gRPC status ${status || 'unknown'})`));
    });
    stream.end(message);
  });
}

/**
 * Requests a certificate from one replica. The token is sent only to a server whose certificate verifies with the given roots.
 * @param roots PEM of the trusted roots
 * @param token service account token with audience `istio-ca`
 * @returns the texts of the response: the certificate, cert-chain.pem unless it is empty, and root-cert.pem of the replica
 * @throws Error if the replica does not answer before the signal aborts, its certificate does not verify, or it refuses the request
 */
export async function requestCertificate(
  { host, port, servername }: Replica,
  roots: string,
  token: Secret,
  signal: AbortSignal,
): Promise<string[]> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const session = connect(`https://${bracketed(host)}:${port}`, { ca: roots, servername });
  try {
    const failed = new Promise<never>((_, reject) => {
      // it stays: an error that nobody listens to would end the process
      session.on('error', reject);
      signal.addEventListener('abort', () => reject(new Error('no answer in time')), { once: true });
    });
    const answer = await Promise.race([
      failed,
      call(session, token, requestMessage(certificateRequest(privateKey)), signal),
    ]);
    const texts = certificateChain(answer);
    if (texts.length < 2) throw new Error('istiod answered without a certificate');
    return texts;
  } finally {
    session.destroy();
  }
}

/** Reduces the texts of a response. @throws Error if they are no certificates */
function signedOf(texts: string[]): Signed {
  const [leafPem = ''] = texts;
  const [leaf, ...chain] = texts.slice(0, -1).flatMap((text) => bundleFacts(text));
  if (leaf === undefined) throw new Error('istiod answered with something that is no certificate');
  return { leaf, chain, issuer: issuerOf(new X509Certificate(leafPem)), roots: bundleFingerprints(texts.at(-1) ?? '') };
}

/**
 * Has a replica sign a certificate, and returns it with what came along. A failed request is a result, not an exception.
 * @param trusted PEM of the trusted roots
 * @param token service account token with audience `istio-ca`
 */
export async function askToSign(
  replica: Replica,
  trusted: string,
  token: Secret,
  signal: AbortSignal,
): Promise<Signed | Unreachable> {
  try {
    return signedOf(await requestCertificate(replica, trusted, token, signal));
  } catch (error) {
    if (!isError(error)) throw error;
    // the code of a TLS or socket error, else a message of this file
    const cause = 'code' in error && typeof error.code === 'string' ? error.code : error.message;
    return { unreachable: `asked to sign a certificate: ${cause}` };
  }
}
