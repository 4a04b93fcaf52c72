/**
 * Which roots a replica hands out to workloads. A TLS handshake shows the intermediate only; the last element of a CreateCertificate answer
 * is the whole root-cert.pem that the replica holds.
 * https://github.com/istio/istio, security/pkg/server/ca/server.go; istio.io/api security/v1alpha1/ca.proto
 */
import { createPublicKey, generateKeyPairSync, sign, type KeyObject } from 'node:crypto';
import { connect, constants, type ClientHttp2Session } from 'node:http2';
import { isIPv6 } from 'node:net';
import { isError } from '../observability/is-error.ts';
import type { Secret } from '../observability/secret.ts';
import { bundleFacts } from '../plan/facts/certificate.ts';
import type { Unreachable } from '../plan/facts/observed-istiod.ts';

export interface Replica {
  /** Address of the pod. */
  host: string;
  /** Of the secure gRPC server; 15012. */
  port: number;
  /** A name of its certificate, such as `istiod.istio-system.svc`. */
  servername: string;
}

/** The certificate that comes along is thrown away: it need not live long. */
const validitySeconds = 60;

const method = '/istio.v1.auth.IstioCertificateService/CreateCertificate';

/** DER: a tag, a length, and what is inside. */
function der(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

/** ecdsa-with-SHA256, 1.2.840.10045.4.3.2 (RFC 5758). */
const ecdsaWithSha256 = der(0x30, Buffer.from('06082a8648ce3d040302', 'hex'));

/** A PKCS #10 request without a subject (RFC 2986): istiod takes the names from the token. */
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

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  return Buffer.from([...bytes, rest]);
}

/** IstioCertificateRequest {csr = 1, validity_duration = 3} in the framing of gRPC. */
function requestMessage(csr: string): Buffer {
  const text = Buffer.from(csr);
  const message = Buffer.concat([varint(0x0a), varint(text.length), text, varint(0x18), varint(validitySeconds)]);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** The strings of IstioCertificateResponse {repeated cert_chain = 1}. @throws when it is something else */
function certificateChain(framed: Buffer): string[] {
  if (framed.length < 5 || framed[0] !== 0 || framed.readUInt32BE(1) !== framed.length - 5)
    throw new Error('istiod answered with something that is no gRPC message');
  const found: string[] = [];
  let at = 5;
  const number = (): number => {
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
    if (number() !== 0x0a) throw new Error('istiod answered with a field that is not known');
    const length = number();
    if (at + length > framed.length) throw new Error('istiod answered with a message that ends too soon');
    found.push(framed.toString('utf8', at, at + length));
    at += length;
  }
  return found;
}

/** An answer is no longer than this: a chain and a bundle of roots. */
const longestAnswer = 256 * 1024;

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
    const note = (headers: Record<string, unknown>) => {
      if (typeof headers['grpc-status'] === 'string') status = headers['grpc-status'];
    };
    stream.on('response', note);
    stream.on('trailers', note);
    stream.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length > longestAnswer) stream.close(constants.NGHTTP2_CANCEL);
      else chunks.push(chunk);
    });
    stream.on('error', reject);
    stream.on('close', () => {
      // the text of a foreign error is not passed on
      if (status === '0') resolve(Buffer.concat(chunks));
      else reject(new Error(`istiod refused to sign (gRPC status ${status || 'unknown'})`));
    });
    stream.end(message);
  });
}

/**
 * Has a certificate signed by one replica, and gives the roots that came with it. The token goes only to a server whose certificate is
 * signed under the roots that are given.
 * @param roots PEM of the roots that are trusted
 * @param token of audience `istio-ca`
 * @returns root-cert.pem of the replica
 * @throws when it does not answer before the signal aborts, is not to be trusted, or refuses
 */
export async function handedOutRoots(
  { host, port, servername }: Replica,
  roots: string,
  token: Secret,
  signal: AbortSignal,
): Promise<string> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const session = connect(`https://${isIPv6(host) ? `[${host}]` : host}:${port}`, { ca: roots, servername });
  try {
    const failed = new Promise<never>((_, reject) => {
      session.once('error', reject);
      signal.addEventListener('abort', () => reject(new Error('no answer in time')), { once: true });
    });
    const answer = await Promise.race([
      failed,
      call(session, token, requestMessage(certificateRequest(privateKey)), signal),
    ]);
    const bundle = certificateChain(answer).at(-1);
    if (bundle === undefined) throw new Error('istiod answered without a certificate');
    return bundle;
  } finally {
    session.destroy();
  }
}

/** The same, as fingerprints. Never rejects: a failure is an answer. */
export async function rootsHandedOut(
  replica: Replica,
  trusted: string,
  token: Secret,
  signal: AbortSignal,
): Promise<string[] | Unreachable> {
  try {
    const bundle = await handedOutRoots(replica, trusted, token, signal);
    return bundleFacts(bundle).map(({ fingerprint }) => fingerprint);
  } catch (error) {
    if (!isError(error)) throw error;
    // codes of TLS and sockets, else words of ours
    const words = 'code' in error && typeof error.code === 'string' ? error.code : error.message;
    return { unreachable: `asked for the roots that it hands out: ${words}` };
  }
}
