/**
 * A TLS handshake with an istiod replica, without credentials: its answer shows which CA it uses, and proves that it holds the key of what
 * it shows. The chain is not trusted here, it is what the plan judges.
 */
import type { X509Certificate } from 'node:crypto';
import { connect, type TLSSocket } from 'node:tls';
import { certificateFacts, type CertificateFacts } from '../plan/facts/certificate.ts';
import type { Served, Unreachable } from '../plan/facts/observed-istiod.ts';
import type { Clock } from '../runtime/clock.ts';

/** istiod's secure gRPC port. https://istio.io/latest/docs/ops/deployment/application-requirements/ */
export const istiodPort = 15012;

export interface ProbeTarget {
  /** An IP address. */
  host: string;
  port: number;
  /** For SNI: `istiod.<namespace>.svc`. */
  servername: string;
}

export interface ProbeOptions {
  clock: Clock;
  /** Milliseconds. */
  timeoutMs: number;
  signal: AbortSignal;
}

/** Chains of istiod have two to four certificates; a longer one is not read to its end. */
const longestChain = 10;

function chainOf(socket: TLSSocket): { facts: CertificateFacts[]; issuer: string } | undefined {
  const leaf = socket.getPeerX509Certificate();
  const facts: CertificateFacts[] = [];
  const seen = new Set<string>();
  let at: X509Certificate | undefined = leaf;
  while (at && !seen.has(at.fingerprint256) && facts.length < longestChain) {
    seen.add(at.fingerprint256);
    const one = certificateFacts(at.toString());
    if (!one) return undefined;
    facts.push(one);
    at = at.issuerCertificate;
  }
  // node:crypto prints a name with one attribute a line
  return leaf && { facts, issuer: leaf.issuer.replaceAll('\n', ', ') };
}

/** Failures in a few words that are the same at each try: codes only, no addresses and no ports. */
const wordsFor = (error: { code?: unknown }): string =>
  typeof error.code === 'string' ? error.code : 'the connection was closed';

/**
 * One handshake. Never rejects: a failure is an answer.
 */
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
    // also after it was settled: a socket without a listener would end the process
    socket.on('error', (error: { code?: unknown }) => settle({ unreachable: wordsFor(error) }));
    socket.on('close', () => settle({ unreachable: 'the connection was closed' }));
    socket.on('secureConnect', () => {
      const chain = chainOf(socket);
      const [leaf, ...rest] = chain?.facts ?? [];
      settle(
        chain && leaf
          ? { leaf, chain: rest, issuer: chain.issuer }
          : { unreachable: 'it showed no certificate that can be read' },
      );
    });
  });
}
