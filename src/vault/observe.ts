/**
 * Reads in parallel what a plan needs of Vault, and never writes. Each entry of the key store is reduced to the hash of the public half of its
 * key as it is read: no key is kept.
 */
import { annotations } from '../api/annotations.ts';
import { optionalCapabilities, requiredCapabilities } from '../plan/vault/capabilities.ts';
import { DerivedVault } from '../plan/facts/derived-vault.ts';
import { rootSourceOf, type Desired } from '../plan/facts/desired.ts';
import { isOwnMarker } from '../plan/facts/identity.ts';
import { ownables, owns, ownsAuthMount, type Ownable } from '../plan/ownership/ownership.ts';
import {
  ownEntry,
  type ExistingIssuers,
  type Mount,
  type ObservedVault,
  type Pki,
  type PkiRoles,
  type Remains,
} from '../plan/facts/observed.ts';
import type { VaultPart } from '../plan/step-row.ts';
import { rereadsOf } from '../plan/step-table.ts';
import type { Step } from '../plan/steps.ts';
import { listRoles, readAuthConfig, readPolicy, readRole } from './access.ts';
import { assertServing, type VaultClient } from './client.ts';
import { parseLive, parseStaging, parseState } from './entries.ts';
import { readExisting, signerIdOf } from './existing-issuers.ts';
import { mostListed, readLists } from './lists.ts';
import { listKv, readKv, readVersions, type KvPlace, type KvVersions } from './kv.ts';
import { capabilities, missingCapabilities, readAuditDevice, readAuthMount, readSecretsMount } from './mounts.ts';
import { optional, optionalUnless, start, type Pending } from './pending-reads.ts';
import { isRevoked, listPkiRoles, readPki, readSigned } from './pki.ts';
import { readListSettings } from './pki-lists.ts';
import { withField } from './refused-mount.ts';

/** The place of an entry in the key store. */
export function kvPlace({ spec }: Desired, suffix: '' | '-staging' | '-state'): KvPlace {
  const { mount, path, version } = spec.keyStore;
  return { mount, path: `${path}${suffix}`, version };
}

const noVersions: KvVersions = { limit: undefined, older: [] };

const everything = { authMount: true, authConfig: true, auditDevice: true, rootGoes: true };

/** Whether the spec and the annotations ask that the root mount goes with the resource. */
const rootGoes = (d: Desired): boolean =>
  rootSourceOf(d.spec) === 'Generate' && annotations.confirmDeleteRoot in d.annotations;

/** What the entries and PKI mounts hold, as far as it shows which certificates are of this resource. */
type Content = Pick<ObservedVault, 'live' | 'state' | 'rootPki' | 'intermediatePki'>;

/** Serial numbers of the intermediates of this resource, as far as its entries record them or its mount has them. */
function intermediateSerials(d: Desired, content: Content): string[] {
  const derived = new DerivedVault(d, { ...unread, ...content });
  const history = derived.stateEntry?.history.filter(({ kind }) => kind === 'Intermediate') ?? [];
  const inMount = derived.ownIntermediates.slice(0, mostListed).map(({ certificate }) => certificate);
  const serials = [derived.caEntry?.certificate, ...inMount, ...history].map((one) => one?.serial ?? '');
  return [...new Set(serials)].filter((serial) => serial !== '');
}

/**
 * Every read there is, by the name of what it reads. A read that waits for others stands after them: `authConfig` after `authMount`, all that depends on
 * what is recorded after `state`, and the last ones after the entries and the PKI mounts.
 */
function readers(client: VaultClient, d: Desired, now: () => number, deleting: boolean) {
  const { root, intermediate, keyStore, kubernetesAuth, policy, audit, delivery } = d.spec;
  let authMount: Promise<Mount | undefined> = Promise.resolve(undefined);
  const { manage } = intermediate;
  const readLive = async () => parseLive(d.identity, await readKv(client, kvPlace(d, '')), !manage);
  const readState = async () => parseState(d.identity, await readKv(client, kvPlace(d, '-state')));
  const empty = Promise.resolve({ casVersion: 0, entry: undefined });
  let live: ReturnType<typeof readLive> = empty;
  let state: ReturnType<typeof readState> = empty;
  const noPki: Promise<Pki> = Promise.resolve({ issuers: [], keys: [], defaultIssuerId: '' });
  let rootPki = noPki;
  let intermediatePki = noPki;
  const content = async (): Promise<Content> => ({
    live: await live,
    state: await state,
    // of a mount that is not there, nothing is read; any other failure is that of the read of its issuers
    rootPki: await rootPki.catch(() => noPki),
    intermediatePki: await intermediatePki.catch(() => noPki),
  });
  const issuesRoot = rootSourceOf(d.spec) === 'Generate';
  // of an imported CA nothing is in the PKI mounts, unless they were made before, or a rotation is going on
  const usesPki = async (): Promise<boolean> => {
    if (intermediate.source === 'Issue') return true;
    const recorded = ownEntry(await state.catch(() => empty));
    return (
      recorded?.rotation !== undefined || recorded?.made.some((name) => name === `mount:${intermediate.mount}`) === true
    );
  };
  let existing: Promise<ExistingIssuers | undefined> = Promise.resolve(undefined);
  /** The CA that istiod gets: with `manage: false` its certificate can be that of a mount. */
  const publishedCa = async () =>
    new DerivedVault(d, { ...unread, ...(await content()), ...existingPart(await existing) }).caEntry;
  const granted = async () => {
    // which of the issuers signs can change with the state entry: all are asked for
    const found = (await existing.catch(() => undefined))?.found ?? [];
    const signerIds = found.length > 0 ? found.map(({ id }) => id) : [undefined];
    const needed = signerIds.flatMap((signerId) => [
      ...requiredCapabilities(d.spec, { ...everything, signerId }).keys(),
    ]);
    return await capabilities(client, [...new Set([...needed, ...optionalCapabilities(d.spec).keys()])]);
  };
  // deletion needs no lists
  const readsLists = delivery.crl && !deleting;
  // mounts from before a CA was imported keep theirs, and the right to read them can be gone
  const readsSettings = readsLists && intermediate.source === 'Issue';
  const listSettings = async (mount: string) => (readsSettings ? await readListSettings(client, mount) : undefined);
  return {
    health: () => client.health(),
    state: () => (state = keyStore.manage ? readState() : state),
    authMount: () => (authMount = kubernetesAuth.manage ? readAuthMount(client, kubernetesAuth.mount) : authMount),
    auditDevice: async () => audit && (await readAuditDevice(client, audit.path)),
    kvMount: () => readSecretsMount(client, keyStore.mount),
    rootMount: async () => (issuesRoot && (await usesPki()) ? await readSecretsMount(client, root.mount) : undefined),
    intermediateMount: async () => ((await usesPki()) ? await readSecretsMount(client, intermediate.mount) : undefined),
    policy: () => optionalUnless(policy.manage, readPolicy(client, policy.name)),
    role: () => optionalUnless(kubernetesAuth.manage, readRole(client, kubernetesAuth.mount, kubernetesAuth.role)),
    // the configuration of a mount that is not ours is only evaluated, and the token may not read it
    authConfig: async () => {
      const read = start(readAuthConfig(client, kubernetesAuth.mount));
      const ours = kubernetesAuth.config.manage || isOwnMarker(d.identity, (await authMount)?.description);
      return await optionalUnless(ours, read.take());
    },
    // reduced at once: an entry holds a private key, and what is kept of it for the reconcile must not
    live: () => (live = readLive()),
    staging: async () =>
      keyStore.manage ? parseStaging(d.identity, await readKv(client, kvPlace(d, '-staging'))) : empty,
    existing: () => (existing = readExisting(client, d, deleting, () => state)),
    capabilities: granted,
    liveVersions: async () =>
      keyStore.version === 2 && manage ? await readVersions(client, kvPlace(d, '')) : noVersions,
    rootPkiRoles: async () => (issuesRoot ? await optional(listPkiRoles(client, root.mount)) : []),
    intermediatePkiRoles: async () => (manage ? await optional(listPkiRoles(client, intermediate.mount)) : []),
    liveRevoked: async () => {
      const serial = (await publishedCa())?.certificate?.serial;
      // Vault serves certificates to everybody, so this needs no right
      const isOutside = rootSourceOf(d.spec) === 'External' || intermediate.source === 'Import';
      return serial === undefined || isOutside ? false : await isRevoked(client, root.mount, serial);
    },
    rootPki: () =>
      (rootPki = issuesRoot ? usesPki().then((uses) => (uses ? readPki(client, root.mount) : noPki)) : noPki),
    intermediatePki: () =>
      (intermediatePki = usesPki().then((uses) => (uses ? readPki(client, intermediate.mount) : noPki))),
    // Vault serves lists and certificates to everybody
    lists: async () =>
      readsLists
        ? await readLists(
            client,
            new DerivedVault(d, { ...unread, ...(await content()) }),
            await existing.catch(() => undefined),
          )
        : {},
    rootListSettings: async () => (issuesRoot ? await listSettings(root.mount) : undefined),
    intermediateListSettings: () => listSettings(intermediate.mount),
    revokedIntermediates: async () => {
      if (!readsLists || root.source === 'External') return [];
      const serials = intermediateSerials(d, await content());
      const revoked = await Promise.all(serials.map((serial) => isRevoked(client, root.mount, serial)));
      return serials.filter((_, i) => revoked[i]);
    },
    keyStoreEntries: async () =>
      deleting && keyStore.manage ? await listKv(client, keyStore.mount, keyStore.version) : [],
    authRoles: async () => (deleting && kubernetesAuth.manage ? await listRoles(client, kubernetesAuth.mount) : []),
    rootMountRoles: async () => (deleting && rootGoes(d) ? await listPkiRoles(client, root.mount) : undefined),
    signed: async () => (deleting && rootGoes(d) ? await readSigned(client, root.mount, now()) : undefined),
  } satisfies Record<VaultPart, () => Promise<unknown>>;
}

type Readers = ReturnType<typeof readers>;
type Reads = { [K in VaultPart]: Pending<Awaited<ReturnType<Readers[K]>>> };

/** What shows which issuers are of this resource. */
const listSources: readonly VaultPart[] = ['rootPki', 'intermediatePki', 'live', 'state'];

/** Adds the lists to what is read again if the issuers of this resource can be others: Vault signs a list for each. They are read last. */
const withLists = (names: VaultPart[]): VaultPart[] =>
  listSources.some((source) => names.includes(source)) ? [...names.filter((name) => name !== 'lists'), 'lists'] : names;

/** The observations of one reconcile: all of Vault first, then what the steps since have touched. */
export class VaultObserver {
  readonly #readers: Readers;
  readonly #desired: Desired;
  readonly #deleting: boolean;
  #reads: Reads | undefined;
  /** Vault does not show the token of the token reviewer: what this reconcile wrote is remembered until it is recorded. */
  #reviewerWritten: string | undefined;

  /** @param deleting also reads what decides whether shared mounts and the root may go */
  constructor(client: VaultClient, desired: Desired, now: () => number, deleting = false) {
    this.#readers = readers(client, desired, now, deleting);
    this.#deleting = deleting;
    this.#desired = desired;
  }

  /**
   * @param since the steps carried out since the last call; undefined reads everything
   * @throws VaultError of the first read that failed, ProblemError if nothing can be mounted at a path of the spec: then nothing is known, and
   * nothing is planned
   */
  async observe(since: readonly Step[] | undefined): Promise<ObservedVault> {
    const names =
      since && this.#reads
        ? withLists([...new Set(since.flatMap(rereadsOf))])
        : (Object.keys(this.#readers) as VaultPart[]);
    const started = Object.fromEntries(names.map((name) => [name, start<unknown>(this.#readers[name]())]));
    const reads = { ...this.#reads, ...started } as Reads;
    this.#reads = reads;
    for (const step of since ?? []) if (step.kind === 'WriteAuthConfig') this.#reviewerWritten = step.reviewer;
    const observed = await assemble(reads, this.#desired, this.#deleting).catch((error: unknown) => {
      throw withField(error, this.#desired.spec);
    });
    return { ...observed, reviewerWritten: this.#reviewerWritten };
  }
}

/** Puts the observation together. What belongs to a mount that is absent or owned by somebody else is not taken. */
async function assemble(reads: Reads, d: Desired, deleting: boolean): Promise<ObservedVault> {
  const base = await assembleBase(reads, d);
  if (base.missingCapabilities.length > 0) return base;
  const mounts = await assembleMounts(reads, d, base);
  const derived = new DerivedVault(d, mounts);
  const { rootMount, intermediateMount } = ownables(derived);
  // the content of a mount that this resource does not own is read only for adoption
  const pki = async (mount: Mount | undefined, object: Ownable | undefined, read: Pending<Pki>, isOthers = false) =>
    mount?.type === 'pki' && (isOthers || (object && (d.spec.adopt || owns(derived, object))))
      ? await read.take()
      : undefined;
  const roles = async (mount: string, object: Ownable | undefined, read: Pending<PkiRoles['names']>) =>
    object && owns(derived, object) ? [{ mount, names: await read.take() }] : [];
  const { root, intermediate } = d.spec;
  const { existing } = mounts;
  const rootPki = await pki(mounts.rootMount, rootMount, reads.rootPki);
  const { checksOnly } = derived;
  const intermediatePki = await pki(mounts.intermediateMount, intermediateMount, reads.intermediatePki, checksOnly);
  const ofRoot = rootPki && (await reads.rootListSettings.take());
  const ofIntermediate = intermediatePki && (await reads.intermediateListSettings.take());
  return {
    ...mounts,
    rootPki,
    intermediatePki,
    lists: rootPki || intermediatePki || existing ? await reads.lists.take() : {},
    listSettings: {
      ...(ofRoot ? { root: ofRoot } : {}),
      ...(ofIntermediate ? { intermediate: ofIntermediate } : {}),
    },
    revokedIntermediates: rootPki || existing?.found.length ? await reads.revokedIntermediates.take() : [],
    pkiRoles: [
      ...(await roles(root.mount, mounts.rootMount?.type === 'pki' ? rootMount : undefined, reads.rootPkiRoles)),
      ...(await roles(
        intermediate.mount,
        mounts.intermediateMount?.type === 'pki' ? intermediateMount : undefined,
        reads.intermediatePkiRoles,
      )),
    ],
    liveRevoked:
      existing?.wantedId !== undefined || (rootMount && mounts.rootMount?.type === 'pki' && owns(derived, rootMount))
        ? await reads.liveRevoked.take()
        : false,
    remains: deleting ? await remains(reads, mounts, d) : undefined,
  };
}

/** Whether the configuration of the auth mount is the operator's to write, as far as it is known. */
const writesAuthConfig = (d: Desired, vault: ObservedVault): boolean => ownsAuthMount(new DerivedVault(d, vault));

/** Whether the KV mount is of the version that the spec asks for: only then its entries mean what the operator takes them for. */
const kvFits = (d: Desired, kvMount: Mount | undefined): boolean => kvMount?.kvVersion === d.spec.keyStore.version;

/**
 * The server, and which capabilities are missing. To know what is needed, mounts and the state entry are taken as far as the token may read
 * them; if capabilities are missing, everything else stays unread.
 */
async function assembleBase(reads: Reads, d: Desired): Promise<ObservedVault> {
  const health = await reads.health.take();
  assertServing(health, d.spec.vault.address);
  const { product, version, time, standby } = health;
  const authMount = await reads.authMount.takeUnlessForbidden();
  const auditDevice = await reads.auditDevice.takeUnlessForbidden();
  const kvMount = await reads.kvMount.takeUnlessForbidden();
  const seen: ObservedVault = { ...unread, product, version, time, standby, auditDevice, authMount };
  const state = kvFits(d, kvMount) ? await reads.state.takeUnlessForbidden() : undefined;
  const needed = requiredCapabilities(d.spec, {
    authMount: authMount === undefined,
    authConfig: authMount === undefined || writesAuthConfig(d, { ...seen, kvMount, state: state ?? unread.state }),
    auditDevice: auditDevice === undefined && product === 'Vault',
    rootGoes: rootGoes(d),
    signerId: await signerIdOf(reads.existing.take(), state ?? unread.state),
  });
  const granted = await reads.capabilities.take();
  return {
    ...seen,
    missingCapabilities: missingCapabilities(needed, granted),
    missingOptional: missingCapabilities(optionalCapabilities(d.spec), granted),
  };
}

/** Mounts, entries, policy and role; what was forbidden in the base fails here. */
async function assembleMounts(reads: Reads, d: Desired, base: ObservedVault): Promise<ObservedVault> {
  const kvMount = await reads.kvMount.take();
  const fits = kvFits(d, kvMount);
  const versions = kvMount?.kvVersion === 2 ? await reads.liveVersions.take() : noVersions;
  const mounts: ObservedVault = {
    ...base,
    kvMount,
    authMount: await reads.authMount.take(),
    auditDevice: await reads.auditDevice.take(),
    state: fits ? await reads.state.take() : unread.state,
    live: fits ? await reads.live.take() : unread.live,
    staging: fits ? await reads.staging.take() : unread.staging,
    ...existingPart(await reads.existing.take()),
    rootMount: await reads.rootMount.take(),
    intermediateMount: await reads.intermediateMount.take(),
    liveVersions: versions.limit,
    liveOlder: versions.older,
  };
  const policy = await reads.policy.take();
  const { manage } = d.spec.kubernetesAuth;
  const isKubernetesAuth = !manage || mounts.authMount?.type === 'kubernetes';
  const authConfig = isKubernetesAuth ? await reads.authConfig.take() : undefined;
  const role = isKubernetesAuth ? await reads.role.take() : undefined;
  return {
    ...mounts,
    policy: policy === 'unreadable' ? undefined : policy.value,
    role: role === 'unreadable' ? undefined : role?.value,
    unreadable: [
      ...(policy === 'unreadable' ? ['policy' as const] : []),
      ...(role === 'unreadable' ? ['role' as const] : []),
    ],
    authConfig: authConfig === 'unreadable' ? undefined : authConfig?.value,
  };
}

const existingPart = (existing: ExistingIssuers | undefined): Pick<ObservedVault, 'existing'> =>
  existing ? { existing } : {};

/** What else lies in the shared mounts, and what the root has signed. */
async function remains(reads: Reads, { kvMount, authMount, rootMount }: ObservedVault, d: Desired): Promise<Remains> {
  const { keyStore, kubernetesAuth } = d.spec;
  const ours = ['', '-staging', '-state'].map((suffix) => `${keyStore.path}${suffix}`);
  const entries = kvMount?.kvVersion === keyStore.version ? await reads.keyStoreEntries.take() : [];
  const roles = authMount?.type === 'kubernetes' ? await reads.authRoles.take() : [];
  return {
    otherEntries: entries.filter((name) => !ours.includes(name)),
    otherRoles: roles.filter((name) => name !== kubernetesAuth.role),
    rootMountRoles: rootMount?.type === 'pki' ? await reads.rootMountRoles.take() : undefined,
    signed: rootMount?.type === 'pki' ? await reads.signed.take() : undefined,
  };
}

/** What stays unread while capabilities are missing; the plan stops at them before it looks here. */
const unread: ObservedVault = {
  product: 'Vault',
  standby: false,
  version: '',
  time: 0,
  missingCapabilities: [],
  missingOptional: [],
  auditDevice: undefined,
  authMount: undefined,
  kvMount: undefined,
  rootMount: undefined,
  intermediateMount: undefined,
  rootPki: undefined,
  intermediatePki: undefined,
  pkiRoles: [],
  liveRevoked: false,
  lists: {},
  listSettings: {},
  revokedIntermediates: [],
  policy: undefined,
  role: undefined,
  unreadable: [],
  authConfig: undefined,
  reviewerWritten: undefined,
  liveVersions: undefined,
  liveOlder: [],
  live: { casVersion: 0, entry: undefined },
  staging: { casVersion: 0, entry: undefined },
  state: { casVersion: 0, entry: undefined },
  remains: undefined,
};
