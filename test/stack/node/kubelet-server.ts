/** The part of the kubelet's HTTPS server that the API server uses for `pods/log`. It has no access control, because it listens on loopback. */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { longerThanClients } from '../http.ts';
import type { ServingCertificate } from '../certificates.ts';
import type { PodRunner } from './pod.ts';

export interface KubeletServer {
  readonly port: number;
  stop(): Promise<void>;
}

interface LogAnswer {
  readonly status: number;
  readonly text: string;
}

function lastLines(text: string, count: number): string {
  const lines = text.split('\n');
  // text after the last newline is a line only if it is not empty
  if (lines.at(-1) === '') lines.pop();
  const kept = count === 0 ? [] : lines.slice(-count);
  return kept.map((line) => `${line}\n`).join('');
}

/** The kubelet's response, with its wording. */
function logsOf(pod: PodRunner | undefined, container: string, query: URLSearchParams): LogAnswer {
  if (query.get('follow') === 'true') return { status: 501, text: 'the stand-in for the kubelet does not follow logs' };
  const runner = pod?.container(container);
  if (pod === undefined || runner === undefined)
    return { status: 404, text: `container "${container}" not found in pod "${pod?.name ?? ''}"` };
  const previous = query.get('previous') === 'true';
  const text = runner.log(previous);
  if (text === undefined && previous)
    return { status: 400, text: `previous terminated container "${container}" in pod "${pod.name}" not found` };
  if (text === undefined) {
    const { state } = runner.status();
    const reason = 'waiting' in state ? state.waiting.reason : 'ContainerCreating';
    return { status: 400, text: `container "${container}" in pod "${pod.name}" is waiting to start: ${reason}` };
  }
  const tailLines = query.get('tailLines');
  const limit = query.get('limitBytes');
  const lines = tailLines === null ? text : lastLines(text, Number(tailLines));
  return { status: 200, text: limit === null ? lines : Buffer.from(lines).subarray(0, Number(limit)).toString('utf8') };
}

/** @param podOf finds a pod of this node by namespace and name */
export async function startKubeletServer(
  address: string,
  serving: ServingCertificate,
  podOf: (namespace: string, name: string) => PodRunner | undefined,
): Promise<KubeletServer> {
  const tls = { cert: readFileSync(serving.certFile), key: readFileSync(serving.keyFile) };
  const server = createServer({ ...tls, keepAliveTimeout: longerThanClients }, (request, response) => {
    const url = new URL(request.url ?? '/', 'https://kubelet');
    const [, where, namespace = '', pod = '', container = ''] = url.pathname.split('/').map(decodeURIComponent);
    const answer =
      request.method === 'GET' && where === 'containerLogs'
        ? logsOf(podOf(namespace, pod), container, url.searchParams)
        : { status: 404, text: 'not known to the stand-in for the kubelet' };
    response.writeHead(answer.status, { 'content-type': 'text/plain' }).end(answer.text);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, address, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
