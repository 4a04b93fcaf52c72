/** A CA created with the manual procedure: in Vault with its own command line, and in the control plane with the overlay. */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { makeTemporaryDir, removeTemporaryDir } from '../stack/index.ts';
import type { Json } from './cluster.ts';
import type { Scene } from './scene.ts';

const run = promisify(execFile);
const script = join(import.meta.dirname, '..', 'by-hand', 'procedure.sh');

/** Runs the manual procedure with the names of a scene. @param over additional variables of the script */
export async function makeByHand(
  { vault, namespace, resource }: Scene,
  over: Record<string, string> = {},
): Promise<void> {
  const { keyStore } = resource['spec'] as { keyStore: { version?: number } };
  const dir = makeTemporaryDir('by-hand');
  try {
    const ca = join(dir, 'ca.pem');
    await writeFile(ca, vault.caPem ?? '');
    const prefix = vault.product === 'OpenBao' ? 'BAO' : 'VAULT';
    const env = {
      PATH: process.env['PATH'] ?? '',
      HOME: dir,
      VAULT: vault.agentBinary,
      [`${prefix}_ADDR`]: vault.address,
      [`${prefix}_TOKEN`]: vault.rootToken,
      [`${prefix}_CACERT`]: ca,
      PKI: `${namespace}-pki`,
      ISTIOCA: `${namespace}-ca`,
      KV: `${namespace}-kv`,
      ENTRY: 'istioca',
      KV_VERSION: String(keyStore.version ?? 2),
      POLICY: `${namespace}-istioca`,
      ROLE: `${namespace}-istiod`,
      NAMESPACE: namespace,
      ...over,
    };
    await run('sh', [script], { env });
  } finally {
    removeTemporaryDir(dir);
  }
}

/** The overlay of the last step of the manual procedure: whole maps and a whole list, as in its documentation. */
export function overlayByHand({ namespace, resource }: Pick<Scene, 'namespace' | 'resource'>): unknown[] {
  const { keyStore } = resource['spec'] as { keyStore: { version?: number } };
  const [kv, data] =
    keyStore.version === 1 ? [`${namespace}-kv/istioca`, '.Data'] : [`${namespace}-kv/data/istioca`, '.Data.data'];
  const from = (path: string) => `{{- with secret "${path}" -}} {{ .Data.certificate }} {{- end }}`;
  const files: Record<string, [string, string]> = {
    'ca-cert.pem': [`${namespace}-ca/cert/ca`, from(`${namespace}-ca/cert/ca`)],
    'ca-key.pem': [kv, `{{- with secret "${kv}" -}} {{ index ${data} "ca-key.pem" }} {{- end }}`],
    'cert-chain.pem': [`${namespace}-ca/cert/ca_chain`, from(`${namespace}-ca/cert/ca_chain`)],
    'root-cert.pem': [`${namespace}-pki/cert/ca`, from(`${namespace}-pki/cert/ca`)],
  };
  const annotations: Json = {
    'vault.hashicorp.com/agent-inject': 'true',
    'vault.hashicorp.com/role': `${namespace}-istiod`,
    'vault.hashicorp.com/secret-volume-path': '/vault/secrets',
  };
  for (const [file, [path, template]] of Object.entries(files)) {
    annotations[`vault.hashicorp.com/agent-inject-secret-${file}`] = path;
    annotations[`vault.hashicorp.com/agent-inject-template-${file}`] = template;
  }
  return [
    {
      apiVersion: 'install.istio.io/v1alpha1',
      kind: 'IstioOperator',
      name: 'tsb-istiocontrolplane',
      patches: [
        { path: 'spec.meshConfig.defaultConfig.holdApplicationUntilProxyStarts', value: true },
        { path: 'spec.components.pilot.k8s.env', value: [{ name: 'ROOT_CA_DIR', value: '/vault/secrets' }] },
        { path: 'spec.components.pilot.k8s.podAnnotations', value: annotations },
      ],
    },
  ];
}
