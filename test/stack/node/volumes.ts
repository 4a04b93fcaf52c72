/**
 * The volumes of a Pod as folders of this machine. They are filled when the Pod starts and not refreshed: tokens are valid
 * longer than a test runs, and no test changes a Secret or ConfigMap of a running Pod.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expectStatus } from '../http.ts';
import type { KubeServer } from '../types.ts';
import type { DownwardItem, KeyToPath, Pod, ProjectedSource, Volume } from './objects.ts';

/** The kubelet's data about a Pod besides its object. */
export interface PodAddress {
  readonly podIP: string;
  readonly hostIP: string;
}

type Files = ReadonlyMap<string, Buffer>;
type Kube = Pick<KubeServer, 'request'>;

/** The value of a downward API field. @throws for an unknown field */
export function fieldOf(pod: Pod, address: PodAddress, path: string): string {
  const { metadata, spec } = pod;
  const keyed = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(path);
  if (keyed !== null) return metadata[keyed[1] as 'labels' | 'annotations']?.[keyed[2] ?? ''] ?? '';
  const fields: Record<string, string> = {
    'metadata.name': metadata.name,
    'metadata.namespace': metadata.namespace,
    'metadata.uid': metadata.uid,
    'spec.nodeName': spec.nodeName ?? '',
    'spec.serviceAccountName': spec.serviceAccountName ?? '',
    'status.podIP': address.podIP,
    'status.podIPs': address.podIP,
    'status.hostIP': address.hostIP,
  };
  const value = fields[path];
  if (value === undefined) throw new Error(`the stand-in for the kubelet does not know field ${path}`);
  return value;
}

interface Data {
  readonly data?: Readonly<Record<string, string>>;
  readonly binaryData?: Readonly<Record<string, string>>;
}

/** The entries of a Secret or ConfigMap. @returns undefined if it is optional and does not exist */
export async function entriesOf(
  kube: Kube,
  namespace: string,
  kind: 'secrets' | 'configmaps',
  name: string,
  optional: boolean | undefined,
): Promise<Files | undefined> {
  const answer = await kube.request('GET', `/api/v1/namespaces/${namespace}/${kind}/${name}`);
  if (answer.status === 404 && optional === true) return undefined;
  if (answer.status === 404) throw new Error(`${kind.slice(0, -1)} "${name}" not found`);
  const { data = {}, binaryData = {} } = expectStatus(answer, [200], `get ${kind} ${namespace}/${name}`) as Data;
  const encoding = kind === 'secrets' ? 'base64' : 'utf8';
  return new Map([
    ...Object.entries(data).map(([key, value]) => [key, Buffer.from(value, encoding)] as const),
    ...Object.entries(binaryData).map(([key, value]) => [key, Buffer.from(value, 'base64')] as const),
  ]);
}

function pick(files: Files | undefined, items: readonly KeyToPath[] | undefined, optional: boolean | undefined): Files {
  if (files === undefined || items === undefined) return files ?? new Map();
  return new Map(
    items.flatMap(({ key, path }) => {
      const content = files.get(key);
      if (content === undefined && optional !== true) throw new Error(`references non-existent key: ${key}`);
      return content === undefined ? [] : [[path, content] as const];
    }),
  );
}

const downward = (pod: Pod, address: PodAddress, items: readonly DownwardItem[] = []): Files =>
  new Map(
    items.map(({ path, fieldRef }) => [path, Buffer.from(fieldOf(pod, address, fieldRef?.fieldPath ?? ''))] as const),
  );

/** Requests a token bound to the Pod, like the kubelet. */
async function tokenOf(kube: Kube, pod: Pod, audience: string | undefined, seconds: number): Promise<Buffer> {
  const { namespace, name, uid } = pod.metadata;
  const account = pod.spec.serviceAccountName ?? 'default';
  const answer = await kube.request('POST', `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`, {
    spec: {
      expirationSeconds: seconds,
      boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name, uid },
      ...(audience === undefined || audience === '' ? {} : { audiences: [audience] }),
    },
  });
  const body = expectStatus(answer, [201], `TokenRequest for ${namespace}/${account}`);
  return Buffer.from((body as { status: { token: string } }).status.token);
}

/** The certificates of a ClusterTrustBundle as a file; no file if the bundle is optional and does not exist. */
async function trustBundle(
  kube: Kube,
  { name = '', path, optional }: NonNullable<ProjectedSource['clusterTrustBundle']>,
): Promise<Files> {
  const answer = await kube.request('GET', `/apis/certificates.k8s.io/v1beta1/clustertrustbundles/${name}`);
  if (answer.status === 404 && optional === true) return new Map();
  const { spec } = expectStatus(answer, [200], `ClusterTrustBundle ${name}`) as { spec: { trustBundle: string } };
  return new Map([[path, Buffer.from(spec.trustBundle)]]);
}

async function projected(kube: Kube, pod: Pod, address: PodAddress, source: ProjectedSource): Promise<Files> {
  const { namespace } = pod.metadata;
  const { serviceAccountToken: token, configMap, secret, downwardAPI, clusterTrustBundle } = source;
  if (token !== undefined)
    return new Map([[token.path, await tokenOf(kube, pod, token.audience, token.expirationSeconds ?? 3600)]]);
  if (configMap !== undefined) {
    const { name = '', items, optional } = configMap;
    return pick(await entriesOf(kube, namespace, 'configmaps', name, optional), items, optional);
  }
  if (secret !== undefined) {
    const { name = '', items, optional } = secret;
    return pick(await entriesOf(kube, namespace, 'secrets', name, optional), items, optional);
  }
  if (downwardAPI !== undefined) return downward(pod, address, downwardAPI.items);
  if (clusterTrustBundle !== undefined) return await trustBundle(kube, clusterTrustBundle);
  throw new Error(`the stand-in for the kubelet does not know this projected source: ${Object.keys(source).join()}`);
}

async function contentOf(kube: Kube, pod: Pod, address: PodAddress, volume: Volume): Promise<Files> {
  const { namespace } = pod.metadata;
  if (volume.emptyDir !== undefined) return new Map();
  if (volume.secret !== undefined) {
    const { secretName, items, optional } = volume.secret;
    return pick(await entriesOf(kube, namespace, 'secrets', secretName, optional), items, optional);
  }
  if (volume.configMap !== undefined) {
    const { name = '', items, optional } = volume.configMap;
    return pick(await entriesOf(kube, namespace, 'configmaps', name, optional), items, optional);
  }
  if (volume.downwardAPI !== undefined) return downward(pod, address, volume.downwardAPI.items);
  if (volume.projected !== undefined) {
    const parts = (volume.projected.sources ?? []).map((source) => projected(kube, pod, address, source));
    return new Map((await Promise.all(parts)).flatMap((files) => [...files]));
  }
  throw new Error(`the stand-in for the kubelet does not know this kind of volume: ${Object.keys(volume).join()}`);
}

/**
 * Creates and fills the folders of the volumes of a Pod below `dir`.
 * @returns folder by volume name
 * @throws while an object that a volume needs does not exist: the kubelet retries
 */
export async function mountVolumes(
  kube: Kube,
  pod: Pod,
  address: PodAddress,
  dir: string,
): Promise<ReadonlyMap<string, string>> {
  const folders = await Promise.all(
    (pod.spec.volumes ?? []).map(async (volume) => {
      const folder = join(dir, volume.name);
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const files = await contentOf(kube, pod, address, volume).catch((error: unknown) => {
        const why = error instanceof Error ? error.message : String(error);
        throw new Error(`MountVolume.SetUp failed for volume "${volume.name}" : ${why}`, { cause: error });
      });
      for (const [path, content] of files) {
        await mkdir(dirname(join(folder, path)), { recursive: true });
        await writeFile(join(folder, path), content, { mode: 0o600 });
      }
      return [volume.name, folder] as const;
    }),
  );
  return new Map(folders);
}
