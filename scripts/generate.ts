/** Writes the generated files (`npm run generate`). With --check it writes nothing, and fails if a file is out of date. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { customResourceDefinition } from '../src/api/crd.ts';
import { group, kind, specSchema, type Spec } from '../src/api/schema.ts';
import { dumpYaml, loadAllYaml } from '../src/runtime/yaml.ts';
import { desire } from '../src/plan/facts/desired.ts';
import { policyText } from '../src/plan/vault/access.ts';
import { operatorPolicy, type ToMake } from '../src/plan/vault/capabilities.ts';

const top = join(import.meta.dirname, '..');
const note = (source: string) => `# Generated from ${source} by "npm run generate"; do not edit.\n`;

/** The spec of the IstioVaultCA in a manifest. */
async function specOf(file: string): Promise<Spec> {
  const objects = loadAllYaml(await readFile(join(top, file), 'utf8')) as { kind: string; spec: unknown }[];
  return specSchema.parse(objects.find((object) => object.kind === 'IstioVaultCA')?.spec);
}

/** The Vault policy that the operator needs for a sample, as a file with comments. */
async function policy(sample: string, about: string, make: ToMake, over: Partial<Spec> = {}): Promise<string> {
  return `${note(sample)}# ${about}\n\n${operatorPolicy({ ...(await specOf(sample)), ...over }, make)}`;
}

const leastRights = 'deploy/samples/least-rights.yaml';

/** The policy that istiod's Vault Agent needs for a sample, for an administrator who writes it. */
async function istiodPolicy(sample: string): Promise<string> {
  const identity = { cluster: '', namespace: '', name: '', uid: '' };
  const text = policyText(
    desire(identity, await specOf(sample), {}),
    "For istiod's Vault Agent, with default names and KV version 2.",
  );
  return `${note(sample)}${text}`;
}

/** A patch of the ConfigMap in which Argo CD has its health checks, with the check as text. */
async function argoPatch(): Promise<string> {
  const lua = await readFile(join(top, 'deploy/argocd/health.lua'), 'utf8');
  const about = '# kubectl -n argocd patch configmap argocd-cm --patch-file deploy/argocd/argocd-cm-patch.yaml\n';
  return (
    note('deploy/argocd/health.lua') +
    about +
    dumpYaml({ data: { [`resource.customizations.health.${group}_${kind}`]: lua } })
  );
}

const generated: Record<string, string> = {
  'crds/istiovaultcas.yaml': note('src/api/schema.ts') + dumpYaml(customResourceDefinition()),
  'deploy/argocd/argocd-cm-patch.yaml': await argoPatch(),
  'deploy/vault/operator-policy.hcl': await policy(
    'deploy/samples/minimal.yaml',
    'For default names, KV version 2, and a Kubernetes auth mount that exists.',
    { authMount: false, authConfig: false, auditDevice: false },
  ),
  'deploy/vault/operator-policy-delete.hcl': await policy(
    'deploy/samples/minimal.yaml',
    'The same with deletionPolicy: Delete, and the root mount removed too (annotation confirm-delete-root).',
    { authMount: false, authConfig: false, auditDevice: false, rootGoes: true },
    { deletionPolicy: 'Delete' },
  ),
  'deploy/vault/operator-policy-crl.hcl': await policy(
    'deploy/samples/minimal.yaml',
    'The same with delivery.crl: true, also configures and renews the revocation lists of both PKI mounts.',
    { authMount: false, authConfig: false, auditDevice: false },
    { delivery: { ...(await specOf('deploy/samples/minimal.yaml')).delivery, crl: true } },
  ),
  'deploy/vault/operator-policy-existing.hcl': await policy(
    'deploy/samples/minimal.yaml',
    'The same with root.source: Existing: of mount pki, which others own, it may only have intermediates signed. They can permit one issuer: its id in place of +.',
    { authMount: false, authConfig: false, auditDevice: false, signerId: '+' },
    { root: { ...(await specOf('deploy/samples/minimal.yaml')).root, source: 'Existing' } },
  ),
  'deploy/vault/operator-policy-external.hcl': await policy(
    'deploy/samples/minimal.yaml',
    'The same with root.source: External: there is no root mount.',
    { authMount: false, authConfig: false, auditDevice: false },
    { root: { ...(await specOf('deploy/samples/minimal.yaml')).root, source: 'External' } },
  ),
  'deploy/vault/operator-policy-import.hcl': await policy(
    'deploy/samples/minimal.yaml',
    'The same with intermediate.source: Import: there is no PKI mount.',
    { authMount: false, authConfig: false, auditDevice: false },
    { intermediate: { ...(await specOf('deploy/samples/minimal.yaml')).intermediate, source: 'Import' } },
  ),
  'deploy/vault/operator-policy-least.hcl': await policy(
    leastRights,
    "The same with policy.manage and kubernetesAuth.manage: false: writes neither policies nor roles, and can do without 'read' on both.",
    { authMount: false, authConfig: false, auditDevice: false },
  ),
  'deploy/vault/operator-policy-checks.hcl': await policy(
    'deploy/samples/checks.yaml',
    "With manage: false of everything: only reads. It can do without 'read' on policy, role and configuration of the auth mount.",
    { authMount: false, authConfig: false, auditDevice: false },
  ),
  'deploy/vault/istiod-policy.hcl': await istiodPolicy(leastRights),
  'deploy/vault/operator-policy-procedure.hcl': await policy(
    'deploy/samples/procedure.yaml',
    'For the procedure: also makes the audit device and the Kubernetes auth mount, and configures it; KV version 1.',
    { authMount: true, authConfig: true, auditDevice: true },
  ),
};

const stale: string[] = [];
for (const [name, content] of Object.entries(generated)) {
  const path = join(top, name);
  if (!process.argv.includes('--check')) await writeFile(path, content);
  else if ((await readFile(path, 'utf8').catch(() => '')) !== content) stale.push(name);
}
if (stale.length > 0) {
  process.stderr.write(`Out of date: ${stale.join(', ')}. Run "npm run generate".\n`);
  process.exitCode = 1;
}
