/**
 * The images of container mode: the public images by name, each replaceable with an environment variable. If they cannot
 * be pulled, images with the same names are built FROM scratch with the binaries of the server cache.
 */
import { open, stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
import type { ContainerRuntimeClient } from 'testcontainers';
import { ensureServer, serverVersion, type ServerName } from './servers.ts';

export type ImageName = Extract<ServerName, 'etcd' | 'kube-apiserver' | 'openbao' | 'vault'>;

interface ImageKind {
  readonly repository: string;
  readonly tag: string;
  /** Replaces the whole name. */
  readonly variable: string;
  /** Where the public image has the program. */
  readonly program: string;
}

export const images: Readonly<Record<ImageName, ImageKind>> = {
  etcd: {
    repository: 'quay.io/coreos/etcd',
    tag: `v${serverVersion('etcd')}`,
    variable: 'TEST_STACK_IMAGE_ETCD',
    program: '/usr/local/bin/etcd',
  },
  'kube-apiserver': {
    repository: 'registry.k8s.io/kube-apiserver',
    tag: `v${serverVersion('kube-apiserver')}`,
    variable: 'TEST_STACK_IMAGE_KUBE_APISERVER',
    program: '/usr/local/bin/kube-apiserver',
  },
  openbao: {
    repository: 'openbao/openbao',
    get tag() {
      return serverVersion('openbao');
    },
    variable: 'TEST_STACK_IMAGE_OPENBAO',
    program: '/bin/bao',
  },
  vault: {
    repository: 'hashicorp/vault',
    get tag() {
      return serverVersion('vault');
    },
    variable: 'TEST_STACK_IMAGE_VAULT',
    program: '/bin/vault',
  },
};

export const imageNames = Object.keys(images) as readonly ImageName[];

/** The full name under which an image is started. */
export const imageReference = (name: ImageName): string =>
  process.env[images[name].variable] ?? `${images[name].repository}:${images[name].tag}`;

/** Only in images built here: the folder with Vault's plugins, which are part of the public image. */
export const pluginsLabel = 'istio-vault-ca.plugins';

type Docker = ContainerRuntimeClient['container']['dockerode'];

/** Whether the daemon has an image. */
export async function haveImage(docker: Docker, reference: string): Promise<boolean> {
  try {
    await docker.getImage(reference).inspect();
    return true;
  } catch {
    return false;
  }
}

/** Reads a daemon's response to its end. @throws if it is aborted first */
function drain(stream: NodeJS.ReadableStream, signal: AbortSignal, onChunk: (chunk: string) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(new Error('the Docker daemon takes too long')));
    stream.on('data', (chunk: Buffer | string) => onChunk(chunk.toString()));
    stream.on('error', reject);
    stream.on('end', () => resolve());
  });
}

/**
 * Pulls an image. Gives up if the registry does not answer within 20 seconds, or no data arrives for 60 seconds.
 * @returns whether the daemon has the image now
 */
export async function pullImage(docker: Docker, reference: string): Promise<boolean> {
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), 20_000);
  try {
    const progress = await docker.pull(reference, { abortSignal: abort.signal });
    await drain(progress, abort.signal, () => {
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), 60_000);
    });
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
  }
  return haveImage(docker, reference);
}

/** A member of a tar archive: a folder without `source`. */
interface Member {
  readonly path: string;
  readonly source?: string;
}

function tarHeader(path: string, mode: number, size: number, type: '0' | '5'): Buffer {
  const header = Buffer.alloc(512);
  const octal = (value: number, at: number, length: number): void => {
    header.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at);
  };
  header.write(path, 0);
  octal(mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(size, 124, 12);
  octal(0, 136, 12);
  header.write('        ', 148);
  header.write(type, 156);
  header.write('ustar\x0000', 257);
  octal(
    header.reduce((sum, byte) => sum + byte, 0),
    148,
    8,
  );
  return header;
}

async function* tar(members: readonly Member[]): AsyncGenerator<Buffer> {
  for (const { path, source } of members) {
    if (source === undefined) {
      yield tarHeader(`${path}/`, path === 'tmp' ? 0o1777 : 0o755, 0, '5');
      continue;
    }
    const { size } = await stat(source);
    yield tarHeader(path, 0o755, size, '0');
    const file = await open(source);
    for await (const chunk of file.createReadStream()) yield chunk as Buffer;
    yield Buffer.alloc((512 - (size % 512)) % 512);
  }
  yield Buffer.alloc(1024);
}

/**
 * Builds an image FROM scratch with the static binary of a server, under the name of the public image.
 * @throws if the binary is not available, or the daemon refuses
 */
export async function makeImage(docker: Docker, name: ImageName, onProgress: (line: string) => void): Promise<void> {
  const { binary, plugins } = await ensureServer(name, { onProgress });
  const { repository, tag, program } = images[name];
  onProgress(`making image ${repository}:${tag} from ${name}'s binary`);
  const members: Member[] = [
    ...['bin', 'etc', 'tmp', 'usr', 'usr/local', 'usr/local/bin', 'plugins'].map((path) => ({ path })),
    { path: program.slice(1), source: binary },
    ...(plugins === undefined ? [] : [{ path: 'plugins/kubernetes', source: `${plugins}/kubernetes` }]),
  ];
  const options = {
    repo: repository,
    tag,
    ...(plugins === undefined ? {} : { changes: `LABEL ${pluginsLabel}=/plugins` }),
  };
  const answer = await docker.importImage(Readable.from(tar(members)), options);
  let text = '';
  await drain(answer, AbortSignal.timeout(120_000), (chunk) => {
    text += chunk;
  });
  if (!(await haveImage(docker, `${repository}:${tag}`))) throw new Error(`the daemon did not make the image: ${text}`);
}
