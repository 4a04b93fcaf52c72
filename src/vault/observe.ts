/** Reads what a plan needs from Vault, side by side. Never writes. Private keys are reduced to their public half here. */
import { requiredCapabilities } from '../plan/capabilities.ts';
import type { Desired } from '../plan/desired.ts';
import { isOwn } from '../plan/identity.ts';
import type { Mount, ObservedVault, Pki } from '../plan/observed.ts';
import type { Step } from '../plan/steps.ts';
import { readAuthConfig, readPolicy, readRole } from './access.ts';
import type { Health, VaultClient } from './client.ts';
import { parseLive, parseStaging, parseState } from './entries.ts';
import { VaultError } from './errors.ts';
import { readKv, type KvEntry, type KvPlace } from './kv.ts';
import { capabilities, missingCapabilities, readAuditDevice, readAuthMount, readSecretsMount } from './mounts.ts';
import { readPki } from './pki.ts';

/** The place of an entry in the key store. */
export function kvPlace({ spec }: Desired, suffix: '' | '-staging' | '-state'): KvPlace {
  const { mount, path, version } = spec.keyStore;
  return { mount, path: `${path}${suffix}`, version };
}

/** Vault's health as an error when it cannot serve; a standby forwards requests and serves. */
function assertServing(health: Health, address: string): void {
  const fail = (kind: 'Uninitialized' | 'Sealed', what: string) => {
    throw new VaultError(kind, 'health', 'sys/health', 0, `${health.product} at ${address} is ${what}`);
  };
  if (!health.initialized) fail('Uninitialized', 'not initialized');
  if (health.sealed) fail('Sealed', 'sealed');
}

const nothing: KvEntry = { casVersion: 0, data: undefined };

/** A read that is under way. Whether its failure matters is known only when others have answered. */
interface Pending<T> {
  /** The value. @throws what the read failed with */
  take(): Promise<T>;
  /** The value; undefined when the read is forbidden: the capabilities say more precisely what is missing. */
  takeUnlessForbidden(): Promise<T | undefined>;
}

function start<T>(read: Promise<T>): Pending<T> {
  read.catch(() => undefined); // taken later, or of no consequence because its mount is not there
  return {
    take: () => read,
    takeUnlessForbidden: () =>
      read.catch((error: unknown) => {
        if (error instanceof VaultError && error.kind === 'Forbidden') return undefined;
        throw error;
      }),
  };
}

const everything = { authMount: true, authConfig: true, auditDevice: true };

/** Every read there is, by the name of what it reads; `authMount` stands before `authConfig`, which waits for it. */
function readers(client: VaultClient, d: Desired) {
  const { root, intermediate, keyStore, kubernetesAuth, policy, audit } = d.spec;
  let authMount: Promise<Mount | undefined> = Promise.resolve(undefined);
  return {
    health: () => client.health(),
    authMount: () => (authMount = readAuthMount(client, kubernetesAuth.mount)),
    auditDevice: async () => audit && (await readAuditDevice(client, audit.path)),
    capabilities: () => capabilities(client, [...requiredCapabilities(d.spec, everything).keys()]),
    kvMount: () => readSecretsMount(client, keyStore.mount),
    rootMount: () => readSecretsMount(client, root.mount),
    intermediateMount: () => readSecretsMount(client, intermediate.mount),
    policy: () => readPolicy(client, policy.name),
    role: () => readRole(client, kubernetesAuth.mount, kubernetesAuth.role),
    // the configuration of a mount that is not ours is none of our business, and the token may not read it
    authConfig: async () =>
      isOwn(d.identity, (await authMount)?.description)
        ? await readAuthConfig(client, kubernetesAuth.mount)
        : undefined,
    live: () => readKv(client, kvPlace(d, '')),
    staging: () => readKv(client, kvPlace(d, '-staging')),
    state: () => readKv(client, kvPlace(d, '-state')),
    rootPki: () => readPki(client, root.mount),
    intermediatePki: () => readPki(client, intermediate.mount),
  };
}

type Readers = ReturnType<typeof readers>;
type ReadName = keyof Readers;
type Reads = { [K in ReadName]: Pending<Awaited<ReturnType<Readers[K]>>> };

const pkiMounts = ['rootMount', 'intermediateMount', 'rootPki', 'intermediatePki'] as const;

/** What must be read again after a step. */
const touched: Record<Step['kind'], readonly ReadName[]> = {
  ClaimControlPlane: [],
  EnableAudit: ['auditDevice'],
  MountKV: ['kvMount', 'live', 'staging', 'state'],
  WriteState: ['state'],
  MountPKI: pkiMounts,
  TuneMount: pkiMounts,
  EnableAuth: ['authMount', 'role', 'authConfig'],
  WriteAuthConfig: ['authConfig'],
  WritePolicy: ['policy'],
  WriteRole: ['role'],
  GenerateRoot: ['rootPki'],
  StageKey: ['staging'],
  RemoveStaging: ['staging'],
  ImportKey: ['intermediatePki'],
  SignIntermediate: ['intermediatePki'],
  InstallCertificate: ['intermediatePki'],
  PublishLive: ['live', 'intermediatePki'],
  SetDefaultIssuer: ['rootPki', 'intermediatePki'],
  CollectGeneration: ['intermediatePki'],
  PatchControlPlane: [],
};

/** The observations of one reconcile: all of Vault first, then what the steps since have touched. */
export class VaultObserver {
  readonly #readers: Readers;
  readonly #desired: Desired;
  #reads: Reads | undefined;

  constructor(client: VaultClient, desired: Desired) {
    this.#readers = readers(client, desired);
    this.#desired = desired;
  }

  /**
   * @param since the steps carried out since the last call; undefined reads everything
   * @throws VaultError of the first read that failed: then nothing is known, and nothing is planned
   */
  async observe(since: readonly Step[] | undefined): Promise<ObservedVault> {
    const names =
      since && this.#reads
        ? [...new Set(since.flatMap((step) => touched[step.kind]))]
        : (Object.keys(this.#readers) as ReadName[]);
    const started = Object.fromEntries(names.map((name) => [name, start<unknown>(this.#readers[name]())]));
    const reads = { ...this.#reads, ...started } as Reads;
    this.#reads = reads;
    return await assemble(reads, this.#desired);
  }
}

/** Puts the observation together. What belongs to a mount that is absent or foreign is never looked at. */
async function assemble(reads: Reads, d: Desired): Promise<ObservedVault> {
  const health = await reads.health.take();
  assertServing(health, d.spec.vault.address);
  const authMount = await reads.authMount.takeUnlessForbidden();
  const auditDevice = await reads.auditDevice.takeUnlessForbidden();
  const writesAuthConfig = isOwn(d.identity, authMount?.description);
  const needed = requiredCapabilities(d.spec, {
    authMount: authMount === undefined,
    authConfig: authMount === undefined || writesAuthConfig,
    auditDevice: auditDevice === undefined && health.product === 'Vault',
  });
  const missing = missingCapabilities(needed, await reads.capabilities.take());
  const base = {
    product: health.product,
    version: health.version,
    missingCapabilities: missing,
    auditDevice,
    authMount,
  };
  if (missing.length > 0) return { ...base, ...unread };

  const kvMount = await reads.kvMount.take();
  const rootMount = await reads.rootMount.take();
  const intermediateMount = await reads.intermediateMount.take();
  const entry = async (read: Pending<KvEntry>) =>
    kvMount?.kvVersion === d.spec.keyStore.version ? await read.take() : nothing;
  // a mount of somebody else is not looked into: its issuers are none of our business
  const pki = async (mount: Mount | undefined, read: Pending<Pki>) =>
    mount?.type === 'pki' && isOwn(d.identity, mount.description) ? await read.take() : undefined;
  return {
    ...base,
    kvMount,
    rootMount,
    intermediateMount,
    rootPki: await pki(rootMount, reads.rootPki),
    intermediatePki: await pki(intermediateMount, reads.intermediatePki),
    policy: await reads.policy.take(),
    role: authMount?.type === 'kubernetes' ? await reads.role.take() : undefined,
    authConfig: writesAuthConfig ? await reads.authConfig.take() : undefined,
    live: parseLive(d.identity, await entry(reads.live)),
    staging: parseStaging(d.identity, await entry(reads.staging)),
    state: parseState(d.identity, await entry(reads.state)),
  };
}

/** What stays unread while capabilities are missing; the plan stops at them before it looks here. */
const unread = {
  kvMount: undefined,
  rootMount: undefined,
  intermediateMount: undefined,
  rootPki: undefined,
  intermediatePki: undefined,
  policy: undefined,
  role: undefined,
  authConfig: undefined,
  live: { casVersion: 0, entry: undefined },
  staging: { casVersion: 0, entry: undefined },
  state: { casVersion: 0, entry: undefined },
} satisfies Partial<ObservedVault>;
