/**
 * A stand-in for Vault Agent Injector (vault-k8s 1.7.6), which is not available here: a webhook that the API server
 * really calls. `injection.ts` evaluates the annotations of a Pod according to the documentation. Settings that affect only a
 * container of a real runtime are omitted: resources and security contexts.
 */
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { createServer, type Server } from 'node:https';
import { posix } from 'node:path';
import { makeServingCertificate } from '../certificates.ts';
import { expectStatus, longerThanClients } from '../http.ts';
import { agentHome, injectionOf, injectorPrefix, tlsMount, type AgentMode, type Injection } from '../injection.ts';
import { freePort } from '../ports.ts';
import type { KubeServer } from '../types.ts';
import type { Container, EnvVar, Pod, Volume, VolumeMount } from './objects.ts';

export const injectorName = 'vault-agent-injector-cfg';
const configurations = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations';

/**
 * The configuration as in the injector's Helm chart, but with an address instead of a Service.
 * @param over more fields of the webhook
 */
export function injectorConfiguration(
  clientConfig: Readonly<Record<string, unknown>>,
  namespaceSelector: Readonly<Record<string, unknown>> = {},
  over: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  const rule = { operations: ['CREATE', 'UPDATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['pods'] };
  return {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingWebhookConfiguration',
    metadata: { name: injectorName },
    webhooks: [
      {
        name: 'vault.hashicorp.com',
        failurePolicy: 'Ignore',
        sideEffects: 'None',
        timeoutSeconds: 30,
        admissionReviewVersions: ['v1'],
        clientConfig,
        rules: [{ ...rule, scope: 'Namespaced' }],
        namespaceSelector,
        ...over,
      },
    ],
  };
}

interface TokenSource {
  readonly mount: VolumeMount;
  readonly path: string;
}

/** The volume with the token that the agent logs in with, and the token's path within the container. */
function tokenSource(pod: Pod, volumeName: string | undefined): TokenSource {
  const mounts = pod.spec.containers.flatMap(({ volumeMounts }) => volumeMounts ?? []);
  if (volumeName === undefined) {
    const found = mounts.find(({ mountPath }) => mountPath.includes('serviceaccount'));
    if (found === undefined) throw new Error('failed to find service account volume mount');
    const { name, mountPath } = found;
    return { mount: { name, mountPath, readOnly: true }, path: posix.join(mountPath, 'token') };
  }
  const volume = pod.spec.volumes?.find(({ name }) => name === volumeName);
  if (volume === undefined) throw new Error(`failed to find service account volume "${volumeName}"`);
  const token = volume.projected?.sources?.find(({ serviceAccountToken }) => serviceAccountToken !== undefined);
  if (token?.serviceAccountToken === undefined)
    throw new Error(`failed to find tokenPath for projected volume "${volumeName}"`);
  const mountPath =
    mounts.find(({ name }) => name === volumeName)?.mountPath ?? '/var/run/secrets/vault.hashicorp.com/serviceaccount';
  return {
    mount: { name: volumeName, mountPath, readOnly: true },
    path: posix.join(mountPath, token.serviceAccountToken.path),
  };
}

const secretMounts = ({ mounts }: Injection): VolumeMount[] =>
  mounts.map((mountPath, i) => ({ name: i === 0 ? 'vault-secrets' : `vault-secrets-custom-${i - 1}`, mountPath }));

const fromField = (name: string, fieldPath: string): EnvVar => ({ name, valueFrom: { fieldRef: { fieldPath } } });

function agentContainer(injection: Injection, mode: AgentMode, token: TokenSource): Container {
  const config = JSON.stringify(injection.config(mode, token.path));
  const file = posix.join(agentHome, 'config.json');
  return {
    name: mode === 'init' ? 'vault-agent-init' : 'vault-agent',
    image: injection.image,
    command: ['/bin/sh', '-ec'],
    args: [`echo \${VAULT_CONFIG?} | base64 -d > ${file} && vault agent -config=${file}`],
    env: [
      fromField('NAMESPACE', 'metadata.namespace'),
      fromField('HOST_IP', 'status.hostIP'),
      fromField('POD_IP', 'status.podIP'),
      ...Object.entries(injection.env).map(([name, value]) => ({ name, value })),
      { name: 'VAULT_CONFIG', value: Buffer.from(config).toString('base64') },
    ],
    volumeMounts: [
      token.mount,
      { name: `home-${mode}`, mountPath: agentHome },
      ...secretMounts(injection),
      ...(injection.tlsSecret === undefined
        ? []
        : [{ name: 'vault-tls-secrets', mountPath: tlsMount, readOnly: true }]),
    ],
  };
}

interface PatchOperation {
  readonly op: 'add';
  readonly path: string;
  readonly value: unknown;
}

/**
 * The injector's changes of a Pod as a JSON patch; empty: no change.
 * @throws if the injector refuses the Pod; the API server then refuses it too
 */
function injectAgent(pod: Pod, namespace: string, address: string): PatchOperation[] {
  const annotations = pod.metadata.annotations ?? {};
  const injection = injectionOf(annotations, address);
  if (injection === undefined || annotations[`${injectorPrefix}agent-inject-status`] === 'injected') return [];
  if (['kube-system', 'kube-public'].includes(namespace))
    throw new Error(`error with request namespace: cannot inject into system namespaces: ${namespace}`);
  const token = tokenSource(pod, injection.tokenVolume);
  const memory = (name: string): Volume => ({ name, emptyDir: { medium: 'Memory' } });
  const withFiles = (container: Container): Container =>
    injection.containers === undefined || injection.containers.includes(container.name)
      ? { ...container, volumeMounts: [...(container.volumeMounts ?? []), ...secretMounts(injection)] }
      : container;
  const inits = (pod.spec.initContainers ?? []).map(withFiles);
  const agentInit = injection.init ? [agentContainer(injection, 'init', token)] : [];
  const volumes: Volume[] = [
    ...(pod.spec.volumes ?? []),
    ...(injection.init ? [memory('home-init')] : []),
    ...(injection.sidecar ? [memory('home-sidecar')] : []),
    ...secretMounts(injection).map(({ name }) => memory(name)),
    ...(injection.tlsSecret === undefined
      ? []
      : [{ name: 'vault-tls-secrets', secret: { secretName: injection.tlsSecret } }]),
  ];
  return [
    { op: 'add', path: '/spec/volumes', value: volumes },
    {
      op: 'add',
      path: '/spec/initContainers',
      value: injection.initFirst ? [...agentInit, ...inits] : [...inits, ...agentInit],
    },
    {
      op: 'add',
      path: '/spec/containers',
      value: [
        ...pod.spec.containers.map(withFiles),
        ...(injection.sidecar ? [agentContainer(injection, 'sidecar', token)] : []),
      ],
    },
    {
      op: 'add',
      path: '/metadata/annotations',
      value: { ...annotations, [`${injectorPrefix}agent-inject-status`]: 'injected' },
    },
  ];
}

interface AdmissionRequest {
  readonly uid: string;
  readonly namespace: string;
  readonly object: Pod;
}

function review({ uid, namespace, object }: AdmissionRequest, address: string): Record<string, unknown> {
  try {
    const patch = injectAgent(object, namespace, address);
    if (patch.length === 0) return { uid, allowed: true };
    const text = Buffer.from(JSON.stringify(patch)).toString('base64');
    return { uid, allowed: true, patchType: 'JSONPatch', patch: text };
  } catch (error) {
    return { uid, allowed: false, status: { message: error instanceof Error ? error.message : String(error) } };
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = '';
  request.setEncoding('utf8');
  for await (const chunk of request) text += String(chunk);
  return text;
}

export interface StandInInjector {
  /** Registers its webhook for the namespaces that match a selector; default: all. */
  register(namespaceSelector?: Readonly<Record<string, unknown>>): Promise<void>;
  /** Removes the webhook: Pods are created unchanged. */
  unregister(): Promise<void>;
  /** Serves again after `stop`, on the same address. */
  start(): Promise<void>;
  /** Stops serving. The webhook stays registered, and with failurePolicy Ignore Pods are created unchanged. */
  stop(): Promise<void>;
}

/**
 * Starts the webhook and registers it.
 * @param address of Vault, if the annotations of a Pod name none
 */
export async function startInjector(
  kube: Pick<KubeServer, 'request'>,
  address: string,
  dir: string,
): Promise<StandInInjector> {
  const serving = await makeServingCertificate(dir, ['127.0.0.1']);
  const tls = { cert: readFileSync(serving.certFile), key: readFileSync(serving.keyFile) };
  const port = await freePort();
  let server: Server | undefined;
  const start = async (): Promise<void> => {
    if (server !== undefined) return;
    const next = createServer({ ...tls, keepAliveTimeout: longerThanClients }, (request, response) => {
      const answer = async (): Promise<string> => {
        const body = JSON.parse(await bodyOf(request)) as { request: AdmissionRequest };
        const reply = review(body.request, address);
        return JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response: reply });
      };
      answer().then(
        (text) => response.writeHead(200, { 'content-type': 'application/json' }).end(text),
        (error: unknown) => response.writeHead(400).end(String(error)),
      );
    });
    await new Promise<void>((resolve, reject) => {
      next.once('error', reject);
      next.listen(port, '127.0.0.1', resolve);
    });
    server = next;
  };
  const register = async (namespaceSelector?: Readonly<Record<string, unknown>>): Promise<void> => {
    const caBundle = Buffer.from(serving.caPem).toString('base64');
    const wanted = injectorConfiguration({ url: `https://127.0.0.1:${port}/mutate`, caBundle }, namespaceSelector);
    const path = `${configurations}/${injectorName}?fieldManager=kubectl&force=true`;
    const answer = await kube.request('PATCH', path, JSON.stringify(wanted), 'application/apply-patch+yaml');
    expectStatus(answer, [200, 201], 'register the injector');
  };
  await start();
  await register();
  return {
    start,
    register,
    unregister: async () => {
      expectStatus(
        await kube.request('DELETE', `${configurations}/${injectorName}`),
        [200, 404],
        'unregister the injector',
      );
    },
    stop: async () => {
      const old = server;
      server = undefined;
      if (old === undefined) return;
      await new Promise<void>((resolve) => {
        old.close(() => resolve());
        old.closeAllConnections();
      });
    },
  };
}
