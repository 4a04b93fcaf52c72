/**
 * A TLS handshake with an istiod replica, without credentials. It shows which CA the replica uses, and proves that the replica holds the
 * private key of the served certificate. The chain is not verified here; the plan evaluates it (`src/plan/proof/handshake.ts`).
 */
import type { X509Certificate } from 'node:crypto';
import { connect, type TLSSocket } from 'node:tls';
import { certificateFacts, type CertificateFacts } from '../plan/facts/certificate.ts';
import type { Served, Unreachable } from '../plan/facts/observed-istiod.ts';
import type { Clock } from '../runtime/clock.ts';

/** istiod's secure gRPC port. Source: https://istio.io/latest/docs/ops/deployment/application-requirements/ */
export const istiodPort = 15012;

export interface ProbeTarget {
  /** IP address of the Pod. */
  host: string;
  port: number;
  /** Name for SNI: `istiod.<namespace>.svc`. */
  servername: string;
}

export interface ProbeOptions {
  clock: Clock;
  /** Timeout of the handshake, milliseconds. */
  timeoutMs: number;
  signal: AbortSignal;
}

/** Maximum number of certificates that are read from a chain. A chain of istiod has two to four. */
const longestChain = 10;

/** Returns the served certificates, leaf first, and the leaf's issuer name; `undefined`: there is none, or one cannot be parsed. */
function chainOf(socket: TLSSocket): { facts: CertificateFacts[]; issuer: string } | undefined {
  const leaf = socket.getPeerX509Certificate();
  const facts: CertificateFacts[] = [];
  const seen = new Set<string>();
  let certificate: X509Certificate | undefined = leaf;
  while (certificate && !seen.has(certificate.fingerprint256) && facts.length < longestChain) {
    seen.add(certificate.fingerprint256);
    const parsed = certificateFacts(certificate.toString());
    if (!parsed) return undefined;
    facts.push(parsed);
    certificate = certificate.issuerCertificate;
  }
  return leaf && { facts, issuer: issuerOf(leaf) };
}

/**
 * Returns the issuer name of a certificate on one line. node:crypto formats a name with one attribute per line; an empty name is undefined,
 * against its type.
 */
export const issuerOf = ({ issuer }: X509Certificate): string =>
  ((issuer as string | undefined) ?? '').replaceAll('\n', ', ');

/** Returns the certificates of a connection. It never throws: an error in a listener of a socket would end the process. */
function servedBy(socket: TLSSocket): Served | Unreachable {
  const unreadable = { unreachable: 'it showed no certificate that can be read' };
  try {
    const chain = chainOf(socket);
    const [leaf, ...rest] = chain?.facts ?? [];
    return chain && leaf ? { leaf, chain: rest, issuer: chain.issuer } : unreadable;
  } catch {
    return unreadable;
  }
}

/** Returns a failure in words that are the same at each attempt: the error code, without addresses and ports. */
const describeError = (error: { code?: unknown }): string =>
  typeof error.code === 'string' ? error.code : 'the connection was closed';

/** Performs one handshake. A failed handshake is a result, so the promise never rejects. */
export function probe(target: ProbeTarget, { clock, timeoutMs, signal }: ProbeOptions): Promise<Served | Unreachable> {
  return new Promise((resolve) => {
    const socket = connect({ ...target, rejectUnauthorized: false, ALPNProtocols: ['h2'] });
    const timer = clock.setTimeout(
      () => settle({ unreachable: `no answer within ${Math.round(timeoutMs / 1000)} seconds` }),
      timeoutMs,
    );
    const onAbort = () => settle({ unreachable: 'stopped' });
    const settle = (answer: Served | Unreachable): void => {
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
      socket.destroy();
      resolve(answer);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    // the listener stays after the promise is settled, because an unhandled error of a socket would end the process
    socket.on('error', (error: { code?: unknown }) => settle({ unreachable: describeError(error) }));
    socket.on('close', () => settle({ unreachable: 'the connection was closed' }));
    socket.on('secureConnect', () => settle(servedBy(socket)));
  });
}
