import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeServingCertificate, type ServingCertificate } from './certificates.ts';
import { call, expectStatus } from './http.ts';
import { freePort, retryTakenPorts } from './ports.ts';
import {
  leanEnv,
  makeTemporaryDir,
  readLog,
  removeTemporaryDir,
  startProcess,
  type ManagedProcess,
} from './processes.ts';
import { ensureServer } from './servers.ts';
import type { KubeServer } from './types.ts';
import { waitFor } from './wait.ts';

export interface KubeOptions {
  /** Folder for its files; default: a temporary one, which is removed at the end. */
  readonly dir?: string;
  /** More flags for kube-apiserver. */
  readonly extraArgs?: readonly string[];
  /** For very many requests: no audit log, and memory rather than garbage collection. */
  readonly lean?: boolean;
}

/** The data that a client of a running API server needs; plain data, so that another process can use it. */
export interface KubeFacts {
  readonly url: string;
  readonly inClusterUrl: string;
  readonly caPem: string;
  readonly adminKubeconfig: string;
  readonly adminToken: string;
  readonly auditLog: string;
  readonly logs: readonly string[];
  readonly dir: string;
}

/** An API server with the functions that only its owner can use. */
export interface OwnKubeServer extends KubeServer {
  readonly facts: KubeFacts;
  /** Compacts etcd up to now: older versions can neither be listed nor be the start of a watch. */
  compactEtcd(): Promise<void>;
}

/** The part of the interface that needs only the facts. */
export function kubeClient(facts: KubeFacts): Omit<KubeServer, 'stop' | 'restart'> {
  return {
    url: facts.url,
    inClusterUrl: facts.inClusterUrl,
    caPem: facts.caPem,
    adminKubeconfig: facts.adminKubeconfig,
    auditLog: facts.auditLog,
    log: () => facts.logs.map(readLog).join(''),
    kubeconfigWithToken: async (token, name) => {
      const path = join(facts.dir, `${name}.kubeconfig`);
      await writeFile(path, kubeconfig(facts.url, facts.caPem, token, name), { mode: 0o600 });
      return path;
    },
    request: (method, path, body, contentType) =>
      call(`${facts.url}${path}`, {
        method,
        ca: facts.caPem,
        headers: {
          authorization: `Bearer ${facts.adminToken}`,
          accept: 'application/json',
          'content-type': contentType ?? (method === 'PATCH' ? 'application/merge-patch+json' : 'application/json'),
        },
        body,
      }),
  };
}

function kubeconfig(url: string, caPem: string, token: string, user: string): string {
  return `${JSON.stringify(
    {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [
        { name: 'test', cluster: { server: url, 'certificate-authority-data': Buffer.from(caPem).toString('base64') } },
      ],
      users: [{ name: user, user: { token } }],
      contexts: [{ name: 'test', context: { cluster: 'test', user } }],
      'current-context': 'test',
    },
    null,
    2,
  )}\n`;
}

/** The files that an API server starts from, all in one folder. */
export interface KubeFiles {
  readonly serving: ServingCertificate;
  readonly adminToken: string;
  readonly adminKubeconfig: string;
}

/** The names of those files within their folder. */
export const kubeFileNames = {
  serviceAccountKey: 'service-account.key',
  tokens: 'tokens.csv',
  auditPolicy: 'audit-policy.yaml',
  auditLog: 'audit.log',
  serving: 'serving.pem',
  servingKey: 'serving.key',
} as const;

/**
 * Creates a CA, a serving certificate for `names`, the service account key, the administrator's token, the audit policy
 * and the administrator's kubeconfig.
 */
export async function makeKubeFiles(dir: string, names: readonly string[], url: string): Promise<KubeFiles> {
  const adminToken = randomBytes(24).toString('hex');
  const serving = await makeServingCertificate(dir, names);
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const secret = { mode: 0o600 };
  await writeFile(
    join(dir, kubeFileNames.serviceAccountKey),
    privateKey.export({ type: 'pkcs1', format: 'pem' }),
    secret,
  );
  await writeFile(join(dir, kubeFileNames.tokens), `${adminToken},admin,admin,"system:masters"\n`, secret);
  // Metadata only, because bodies contain tokens.
  await writeFile(
    join(dir, kubeFileNames.auditPolicy),
    JSON.stringify({
      apiVersion: 'audit.k8s.io/v1',
      kind: 'Policy',
      omitStages: ['RequestReceived', 'ResponseStarted'],
      rules: [{ level: 'Metadata' }],
    }),
  );
  const adminKubeconfig = join(dir, 'admin.kubeconfig');
  await writeFile(adminKubeconfig, kubeconfig(url, serving.caPem, adminToken, 'admin'), secret);
  return { serving, adminToken, adminKubeconfig };
}

/** The flags of kube-apiserver, for files in `dir` as kube-apiserver sees it. */
export function kubeApiserverArgs(dir: string, etcdUrl: string, bindAddress: string, port: number): string[] {
  const file = (name: keyof typeof kubeFileNames): string => `${dir}/${kubeFileNames[name]}`;
  return [
    `--etcd-servers=${etcdUrl}`,
    `--bind-address=${bindAddress}`,
    `--secure-port=${port}`,
    `--cert-dir=${dir}`,
    `--tls-cert-file=${file('serving')}`,
    `--tls-private-key-file=${file('servingKey')}`,
    '--service-account-issuer=https://kubernetes.default.svc',
    `--service-account-signing-key-file=${file('serviceAccountKey')}`,
    `--service-account-key-file=${file('serviceAccountKey')}`,
    `--token-auth-file=${file('tokens')}`,
    '--authorization-mode=RBAC',
    `--audit-policy-file=${file('auditPolicy')}`,
    `--audit-log-path=${file('auditLog')}`,
    '--service-cluster-ip-range=10.96.0.0/24',
    // off by default in Kubernetes 1.34; istiod publishes its roots so if it is told to
    '--feature-gates=ClusterTrustBundle=true,ClusterTrustBundleProjection=true',
    '--runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true',
    // fair queues between clients: no test is about them, and they take a sixth of the processor time of a request
    '--enable-priority-and-fairness=false',
    // The address is a loopback one, which endpoints of the service "kubernetes" may not be.
    '--endpoint-reconciler-type=none',
  ];
}

/** Waits until an API server serves and has created its initial objects: bootstrap roles, system namespaces. */
export async function waitForKube(facts: KubeFacts, process?: ManagedProcess): Promise<void> {
  const client = kubeClient(facts);
  const options = { timeoutMs: 60_000, log: client.log, ...(process === undefined ? {} : { process }) };
  for (const path of ['/readyz', '/api/v1/namespaces/default', '/api/v1/namespaces/kube-system']) {
    await waitFor(
      `kube-apiserver to answer ${path} with 200`,
      async () => (await client.request('GET', path)).status === 200,
      options,
    );
  }
}

/**
 * Starts etcd and kube-apiserver as processes on loopback, with a CA, keys and an administrator's token created for
 * this run, RBAC and an audit log. No controller runs; `createNamespace` does the work of one.
 * @throws if one of them is not available or does not become ready; the message contains the end of its log
 */
export async function startKube(options: KubeOptions = {}): Promise<OwnKubeServer> {
  const [etcdFiles, apiserverFiles] = [await ensureServer('etcd'), await ensureServer('kube-apiserver')];
  const dir = options.dir ?? makeTemporaryDir('kube');
  const { lean = false } = options;
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const running: ManagedProcess[] = [];
  const stop = async (): Promise<void> => {
    for (const child of running.splice(0).reverse()) await child.stop();
    if (options.dir === undefined) removeTemporaryDir(dir);
  };
  try {
    return await retryTakenPorts(async () => {
      for (const child of running.splice(0).reverse()) await child.stop();
      const [etcdPort, port] = [await freePort(2), await freePort()];
      const etcdUrl = `http://127.0.0.1:${etcdPort}`;
      const etcd = startProcess({
        name: 'etcd',
        command: etcdFiles.binary,
        args: [
          ...['--name=default', `--data-dir=${join(dir, `etcd-${etcdPort}`)}`, '--unsafe-no-fsync', '--log-level=warn'],
          ...[`--listen-client-urls=${etcdUrl}`, `--advertise-client-urls=${etcdUrl}`],
          ...[
            `--listen-peer-urls=http://127.0.0.1:${etcdPort + 1}`,
            `--initial-advertise-peer-urls=http://127.0.0.1:${etcdPort + 1}`,
          ],
          `--initial-cluster=default=http://127.0.0.1:${etcdPort + 1}`,
        ],
        cwd: dir,
        env: lean ? leanEnv : {},
        logPath: join(dir, 'etcd.log'),
      });
      running.push(etcd);
      const url = `https://127.0.0.1:${port}`;
      const files = await makeKubeFiles(dir, ['127.0.0.1', 'localhost', 'kubernetes.default.svc'], url);
      await waitFor('etcd to be healthy', async () => (await call(`${etcdUrl}/health`)).status === 200, {
        process: etcd,
      });

      const facts: KubeFacts = {
        url,
        inClusterUrl: url,
        caPem: files.serving.caPem,
        adminKubeconfig: files.adminKubeconfig,
        adminToken: files.adminToken,
        auditLog: join(dir, kubeFileNames.auditLog),
        logs: [join(dir, 'kube-apiserver.log')],
        dir,
      };
      const start = (): ManagedProcess =>
        startProcess({
          name: 'kube-apiserver',
          command: apiserverFiles.binary,
          args: [
            ...kubeApiserverArgs(dir, etcdUrl, '127.0.0.1', port).filter((arg) => !lean || !arg.startsWith('--audit')),
            ...(options.extraArgs ?? []),
          ],
          env: { HOME: dir, ...(lean ? leanEnv : {}) },
          cwd: dir,
          logPath: join(dir, 'kube-apiserver.log'),
          // It would wait up to a minute for watches to end.
          graceMs: 2000,
        });
      let apiserver = start();
      running.push(apiserver);
      await waitForKube(facts, apiserver);
      return {
        ...kubeClient(facts),
        facts,
        stop,
        compactEtcd: () => compact(etcdUrl),
        restart: async () => {
          running.splice(running.indexOf(apiserver), 1);
          await apiserver.stop();
          apiserver = start();
          running.push(apiserver);
          await waitForKube(facts, apiserver);
        },
      };
    });
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Through etcd's JSON gateway. */
async function compact(etcdUrl: string): Promise<void> {
  const post = async (path: string, body: unknown): Promise<unknown> =>
    expectStatus(await call(`${etcdUrl}/v3/kv/${path}`, { method: 'POST', body }), [200], `etcd ${path}`);
  const key = Buffer.from('/').toString('base64');
  const { header } = (await post('range', { key, limit: '1' })) as { header: { revision: string } };
  await post('compaction', { revision: header.revision, physical: true });
}

/**
 * Creates a namespace with the objects that kube-controller-manager creates in it: the ServiceAccount `default` and the
 * ConfigMap `kube-root-ca.crt`. Existing objects stay unchanged.
 */
export async function createNamespace(kube: Pick<KubeServer, 'request' | 'caPem'>, name: string): Promise<void> {
  const create = async (path: string, body: unknown): Promise<void> => {
    expectStatus(await kube.request('POST', path, body), [201, 409], `create ${path} for namespace ${name}`);
  };
  await create('/api/v1/namespaces', { metadata: { name } });
  await create(`/api/v1/namespaces/${name}/serviceaccounts`, { metadata: { name: 'default' } });
  await create(`/api/v1/namespaces/${name}/configmaps`, {
    metadata: { name: 'kube-root-ca.crt' },
    data: { 'ca.crt': kube.caPem },
  });
}

/**
 * Requests a bound token of a ServiceAccount with TokenRequest. Creates the ServiceAccount if it does not exist.
 * @param audiences default: the API server's own
 * @param seconds its lifetime, at least 600; default 3600
 */
export async function requestToken(
  kube: Pick<KubeServer, 'request'>,
  namespace: string,
  serviceAccount: string,
  audiences?: readonly string[],
  seconds = 3600,
): Promise<string> {
  const accounts = `/api/v1/namespaces/${namespace}/serviceaccounts`;
  const created = await kube.request('POST', accounts, { metadata: { name: serviceAccount } });
  expectStatus(created, [201, 409], `create ServiceAccount ${namespace}/${serviceAccount}`);
  const spec = { expirationSeconds: seconds, ...(audiences === undefined ? {} : { audiences }) };
  const answer = await kube.request('POST', `${accounts}/${serviceAccount}/token`, { spec });
  const body = expectStatus(answer, [201], `TokenRequest for ${namespace}/${serviceAccount}`);
  return (body as { status: { token: string } }).status.token;
}
