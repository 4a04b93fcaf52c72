/**
 * A pure model of what a step does to the world, for properties of the planner. What it claims of Vault (a name is taken
 * once, a check-and-set refuses another version) the end-to-end tests check against the real servers.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { specSchema, type Spec } from '../../src/api/schema.ts';
import { certificateFacts, publicKeyOfPrivate, type CertificateFacts } from '../../src/plan/certificate.ts';
import { desire, type Desired } from '../../src/plan/desired.ts';
import { generationName } from '../../src/plan/identity.ts';
import type { Observed } from '../../src/plan/observed.ts';
import type { Step } from '../../src/plan/steps.ts';

/** Certificates made once at run time: a root, and one intermediate under it for each generation. */
export interface Pool {
  root: CertificateFacts;
  intermediates: { certificate: CertificateFacts; publicKey: string }[];
}

const config =
  '[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n';

export function makePool(generations: number): Pool {
  const dir = mkdtempSync(join(tmpdir(), 'pool-'));
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' });
  const read = (name: string) => readFileSync(join(dir, name), 'utf8');
  try {
    writeFileSync(join(dir, 'c.cnf'), config);
    const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-config', 'c.cnf'];
    openssl(
      'req',
      '-x509',
      ...newKey,
      '-keyout',
      'root.key',
      '-out',
      'root.pem',
      '-subj',
      '/CN=root',
      '-days',
      '3650',
      '-extensions',
      'ca',
    );
    const intermediates = Array.from({ length: generations }, (_, i) => {
      openssl('req', ...newKey, '-keyout', 'i.key', '-out', 'i.csr', '-subj', `/CN=intermediate ${i}`);
      const ca = [
        '-CA',
        'root.pem',
        '-CAkey',
        'root.key',
        '-set_serial',
        String(100 + i),
        '-extfile',
        'c.cnf',
        '-extensions',
        'ca',
      ];
      openssl('x509', '-req', '-in', 'i.csr', '-out', 'i.pem', '-days', '1825', ...ca);
      return { certificate: certificateFacts(read('i.pem'))!, publicKey: publicKeyOfPrivate(read('i.key'))! };
    });
    return { root: certificateFacts(read('root.pem'))!, intermediates };
  } finally {
    rmSync(dir, { recursive: true });
  }
}

export const minimalSpec = (over: Record<string, unknown> = {}): Spec =>
  specSchema.parse({
    vault: { address: 'https://vault.vault.svc:8200', auth: { kubernetes: { role: 'istio-vault-ca' } } },
    controlPlane: { kind: 'TetrateControlPlane', name: 'controlplane' },
    ...over,
  });

export const identity = { cluster: 'c-1', namespace: 'istio-system', name: 'istioca', uid: 'u-1' };
export const desiredOf = (over: Record<string, unknown> = {}, annotations: Record<string, string> = {}): Desired =>
  desire(identity, minimalSpec(over), annotations);

const emptySlot = () => ({ casVersion: 0, entry: undefined });

/** A Vault with nothing of ours, and a control plane that nobody configured. */
export function emptyWorld(): Observed {
  return {
    vault: {
      product: 'OpenBao',
      version: '2.7.2',
      missingCapabilities: [],
      auditDevice: undefined,
      kvMount: undefined,
      rootMount: undefined,
      intermediateMount: undefined,
      authMount: { type: 'kubernetes', description: '', maxLeaseTtl: 0 },
      rootPki: undefined,
      intermediatePki: undefined,
      live: emptySlot(),
      staging: emptySlot(),
      state: emptySlot(),
      policy: undefined,
      role: undefined,
      authConfig: undefined,
    },
    kubernetes: {
      controlPlane: { owner: undefined, carriesFields: false, writtenBefore: false, conflicts: [] },
      controlPlaneServed: true,
      ownerIs: 'us',
      istiodServiceAccounts: [],
      maxWorkloadCertTtlMs: undefined,
      meshRoots: undefined,
      injector: { found: true, selectsNamespace: true, name: 'vault.hashicorp.com' },
      kubernetesCa: undefined,
    },
  };
}

/** structuredClone makes objects of another realm under Jest, which no deep comparison takes for equal. */
function clone<T>(value: T): T {
  if (Array.isArray(value)) return value.map((item: unknown) => clone(item)) as T;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, clone<unknown>(item)])) as T;
}

class Refused extends Error {}

/** The world after a step. @throws Refused where the real server would refuse */
export function applyStep(d: Desired, world: Observed, step: Step, pool: Pool): Observed {
  const w = clone(world);
  const { vault, kubernetes } = w;
  const pki = (mount: string) => (mount === d.spec.root.mount ? vault.rootPki : vault.intermediatePki);
  const set = <T>(slot: { casVersion: number; entry: T | 'foreign' | undefined }, cas: number, entry: T) => {
    if (slot.casVersion !== cas) throw new Refused('check-and-set');
    slot.casVersion += 1;
    slot.entry = entry;
  };
  const issued = (generation: number) => pool.intermediates[generation - 1]!;
  switch (step.kind) {
    case 'ClaimControlPlane':
      if (kubernetes.controlPlane) kubernetes.controlPlane.owner = d.identity.name;
      break;
    case 'EnableAudit':
      vault.auditDevice = { type: step.type, options: step.options };
      break;
    case 'MountKV':
      if (vault.kvMount) throw new Refused('path is already in use');
      vault.kvMount = { type: 'kv', description: step.description, maxLeaseTtl: 0, kvVersion: step.version };
      break;
    case 'WriteState':
      set(vault.state, step.cas, step.state);
      break;
    case 'MountPKI': {
      const mount = { type: 'pki', description: step.description, maxLeaseTtl: step.maxLeaseTtl };
      const content = { issuers: [], keys: [], defaultIssuerId: '' };
      if (pki(step.mount)) throw new Refused('path is already in use');
      if (step.mount === d.spec.root.mount) Object.assign(vault, { rootMount: mount, rootPki: content });
      else Object.assign(vault, { intermediateMount: mount, intermediatePki: content });
      break;
    }
    case 'TuneMount': {
      const mount = step.mount === d.spec.root.mount ? vault.rootMount! : vault.intermediateMount!;
      Object.assign(mount, { maxLeaseTtl: step.maxLeaseTtl, description: step.description });
      break;
    }
    case 'EnableAuth':
      vault.authMount = { type: 'kubernetes', description: step.description, maxLeaseTtl: 0 };
      break;
    case 'WriteAuthConfig':
      vault.authConfig = step.config;
      break;
    case 'WritePolicy':
      vault.policy = step.text;
      break;
    case 'WriteRole':
      vault.role = step.fields;
      break;
    case 'GenerateRoot': {
      const root = vault.rootPki!;
      const taken = root.keys.some((k) => k.name === step.name);
      if (taken !== step.existingKey) throw new Refused('key name already in use');
      if (!taken) root.keys.push({ id: `key-${step.name}`, name: step.name });
      root.issuers.push({
        id: `issuer-${step.name}`,
        keyId: `key-${step.name}`,
        keyName: step.name,
        certificate: pool.root,
      });
      root.defaultIssuerId ||= `issuer-${step.name}`;
      break;
    }
    case 'StageKey':
      set(vault.staging, step.cas, {
        generation: step.generation,
        spec: step.spec,
        publicKey: issued(step.generation).publicKey,
      });
      break;
    case 'RemoveStaging':
      if (vault.staging.casVersion === step.version) vault.staging.entry = undefined;
      break;
    case 'ImportKey': {
      const keys = pki(step.mount)!.keys;
      if (keys.some((k) => k.name === step.name)) throw new Refused('key name already in use');
      keys.push({ id: `key-${step.name}`, name: step.name });
      break;
    }
    case 'SignIntermediate':
    case 'InstallCertificate': {
      const name = generationName(d.identity, 'intermediate', step.generation);
      const mount = vault.intermediatePki!;
      mount.issuers.push({
        id: `issuer-${name}`,
        keyId: `key-${name}`,
        keyName: name,
        certificate: issued(step.generation).certificate,
      });
      mount.defaultIssuerId ||= `issuer-${name}`;
      break;
    }
    case 'PublishLive': {
      const { certificate, publicKey } = issued(step.generation);
      set(vault.live, step.cas, {
        generation: step.generation,
        certificate,
        chain: certificate.pem,
        root: pool.root.pem,
        publicKey,
      });
      break;
    }
    case 'SetDefaultIssuer':
      pki(step.mount)!.defaultIssuerId = step.issuerId;
      break;
    case 'CollectGeneration': {
      const mount = pki(step.mount)!;
      mount.issuers = mount.issuers.filter((i) => !step.issuerIds.includes(i.id));
      mount.keys = mount.keys.filter((k) => k.id !== step.keyId);
      break;
    }
    case 'PatchControlPlane':
      kubernetes.controlPlane = { owner: d.identity.name, carriesFields: true, writtenBefore: true, conflicts: [] };
      break;
  }
  return w;
}
