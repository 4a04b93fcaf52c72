/**
 * Effects of the steps on an observed world, for the dry run: what Vault and the API server would hold afterwards, with certificates that do
 * not exist. End-to-end tests check against the real servers what is claimed of Vault here (a name is taken once, a check-and-set refuses
 * another version).
 */
import { rfc3339 } from '../api/time.ts';
import { pathTo } from './facts/certificate-path.ts';
import { bundleFacts, certificateFacts, plannedCertificate, type CertificateFacts } from './facts/certificate.ts';
import { DerivedVault } from './facts/derived-vault.ts';
import type { Desired } from './facts/desired.ts';
import { plannedAgain, plannedList, type RevocationList } from './facts/revocation-list.ts';
import {
  ownEntry,
  type Issuer,
  type ListSettings,
  type Observed,
  type ObservedVault,
  type Pki,
  type Slot,
} from './facts/observed.ts';
import { plannedRequest } from './facts/signature-request.ts';
import type { RootSpec } from './facts/state-entry.ts';
import type { StepOf } from './steps.ts';

/** A step that the real server would refuse. */
export class Refused extends Error {}

/** The world of one simulation: each step changes Vault's side of it. */
export interface SimulatedWorld {
  d: Desired;
  vault: ObservedVault;
  kubernetes: Observed['kubernetes'];
  /** Milliseconds since the epoch. */
  now: number;
}

export function set<T>(slot: Slot<T>, cas: number, entry: T, mark: string, kvVersion: 1 | 2): void {
  if (kvVersion === 2 && slot.casVersion !== cas) throw new Refused('check-and-set');
  if (kvVersion === 2) slot.casVersion += 1;
  slot.entry = entry;
  slot.mark = mark;
  delete slot.foreign;
  delete slot.lifetime;
}

export function unset(slot: Slot<unknown>, freed: boolean): void {
  slot.entry = undefined;
  slot.mark = '';
  delete slot.lifetime;
  if (freed) slot.casVersion = 0;
}

const caFacts = (spec: RootSpec, publicKey: string, now: number, end: number, selfIssued: boolean) => ({
  publicKey,
  notBefore: now,
  notAfter: Math.min(end, now + spec.ttl * 1000),
  subject: { commonName: spec.commonName, organization: spec.organization },
  selfIssued,
  isCa: true,
  maxPathLength: undefined,
  canSignCertificates: true,
  keyType: spec.keyType,
  keyBits: spec.keyBits,
});

/** Public half of a key that a simulated step would make. */
const plannedKey = (name: string): string => `planned key ${name}`;

export const pkiOf = ({ d, vault }: SimulatedWorld, mount: string): Pki => {
  const pki = mount === d.spec.root.mount ? vault.rootPki : vault.intermediatePki;
  if (!pki) throw new Refused(`no mount ${mount}`);
  return pki;
};

/** Named by its key, not by its certificate, which differs with the time: a plan that has not changed reads the same. */
function plannedIssuer(pki: Pki, keyName: string): string {
  const taken = new Set(pki.issuers.map(({ id }) => id));
  const first = `planned issuer ${keyName}`;
  let id = first;
  for (let n = 2; taken.has(id); n += 1) id = `${first} ${n}`;
  return id;
}

function addIssuer(
  { d, vault, now }: SimulatedWorld,
  pki: Pki,
  key: Pki['keys'][number],
  certificate: CertificateFacts,
): void {
  const issuer: Issuer = { id: plannedIssuer(pki, key.name), keyId: key.id, keyName: key.name, certificate };
  pki.issuers.push(issuer);
  pki.defaultIssuerId ||= issuer.id;
  // Vault signs a list as soon as it has the issuer
  if (!d.spec.delivery.crl) return;
  const tier = pki === vault.rootPki ? 'root' : 'intermediate';
  const list = plannedList(certificate, now, vault.listSettings[tier]?.lifeMs ?? defaultListSettings.lifeMs);
  vault.lists = { ...vault.lists, [certificate.fingerprint]: list };
}

/** Has Vault sign the lists of a mount again, with the same content. */
export function rotateLists(world: SimulatedWorld, mount: string): void {
  const { vault, now } = world;
  const again = pkiOf(world, mount).issuers.flatMap(({ certificate: { fingerprint } }) => {
    const list = vault.lists[fingerprint];
    return list ? [[fingerprint, plannedAgain(list, now)] as const] : [];
  });
  vault.lists = { ...vault.lists, ...Object.fromEntries(again) };
}

/** The lists of Vault, of the CA entry and of users with these PEM texts. */
function listsOf({ vault, kubernetes }: SimulatedWorld, pems: readonly string[]): RevocationList[] {
  const given = (kubernetes.givenLists ?? []).flatMap((one) => one.lists);
  const known = [...Object.values(vault.lists), ...(ownEntry(vault.live)?.lists ?? []), ...given];
  return pems.flatMap((pem) => known.find((list) => list.pem === pem) ?? []);
}

export function addKey(pki: Pki, name: string): void {
  if (pki.keys.some((key) => key.name === name)) throw new Refused('key name already in use');
  pki.keys.push({ id: `planned key ${name}`, name });
}

const hour = 3_600_000;

/** How a new PKI mount signs its lists. */
const defaultListSettings: ListSettings = {
  lifeMs: 72 * hour,
  disabled: false,
  autoRebuild: false,
  graceMs: 12 * hour,
};

export function mountPki({ d, vault }: SimulatedWorld, step: StepOf<'MountPKI'>): void {
  const mount = { type: 'pki', description: step.description, maxLeaseTtl: step.maxLeaseTtl };
  const content: Pki = { issuers: [], keys: [], defaultIssuerId: '' };
  const isRoot = step.mount === d.spec.root.mount;
  if (isRoot ? vault.rootMount : vault.intermediateMount) throw new Refused('path is already in use');
  if (d.spec.delivery.crl)
    vault.listSettings = { ...vault.listSettings, [isRoot ? 'root' : 'intermediate']: defaultListSettings };
  Object.assign(
    vault,
    isRoot ? { rootMount: mount, rootPki: content } : { intermediateMount: mount, intermediatePki: content },
  );
}

export function generateRoot(world: SimulatedWorld, step: StepOf<'GenerateRoot'>): void {
  const pki = pkiOf(world, step.mount);
  if (!step.existingKey) addKey(pki, step.name);
  const key = pki.keys.find((k) => k.name === step.name);
  if (!key) throw new Refused('no such key');
  const facts = caFacts(step.spec, plannedKey(step.name), world.now, Infinity, true);
  addIssuer(world, pki, key, plannedCertificate(facts, undefined));
}

export function signIntermediate(world: SimulatedWorld, step: StepOf<'SignIntermediate'>): void {
  const { vault, now } = world;
  const staged = ownEntry(vault.staging);
  const signers = vault.existing ? vault.existing.found : (vault.rootPki?.issuers ?? []);
  const root = signers.find((issuer) => issuer.id === step.rootIssuerId);
  const pki = vault.intermediatePki;
  const key = pki?.keys.find((k) => k.id === step.keyId);
  if (!staged?.publicKey || !root || !key || !pki) throw new Refused('nothing to sign');
  const facts = caFacts(step.spec, staged.publicKey, now, root.certificate.notAfter, false);
  addIssuer(world, pki, key, plannedCertificate(facts, root.certificate.fingerprint));
  const existing = vault.existing?.found.find(({ id }) => id === root.id);
  addAbove(pki, existing ? [existing.certificate, ...existing.above].filter(({ selfIssued }) => !selfIssued) : []);
}

/** Vault also takes the CAs above an installed certificate. */
function addAbove(pki: Pki, above: CertificateFacts[]): void {
  for (const certificate of above)
    if (!pki.issuers.some((issuer) => issuer.certificate.fingerprint === certificate.fingerprint))
      pki.issuers.push({
        id: `planned issuer ${certificate.fingerprint.slice(0, 8)}`,
        keyId: '',
        keyName: '',
        certificate,
      });
}

export function importCa({ d, vault, kubernetes }: SimulatedWorld, step: StepOf<'ImportCA'>): void {
  const { generation, spec, reason, publicKey, chain, root, secret } = step;
  const { given } = kubernetes;
  if (!given || 'unreadable' in given || given.publicKey !== publicKey) throw new Refused('changed meanwhile');
  const imported = { chain, root, secret };
  const entry = { generation, spec, reason, publicKey, before: [], request: undefined, keyRef: '', imported };
  set(vault.staging, step.cas, entry, d.mark, d.spec.keyStore.version);
}

export function recordCsr({ d, vault, now }: SimulatedWorld, step: StepOf<'RecordCSR'>): void {
  const staged = ownEntry(vault.staging);
  if (staged?.generation !== step.generation) throw new Refused('nothing staged');
  const csr = { pem: plannedRequest, madeAt: rfc3339(now) };
  set(vault.staging, step.cas, { ...staged, csr }, vault.staging.mark ?? '', d.spec.keyStore.version);
}

export function installSigned(world: SimulatedWorld, step: StepOf<'InstallSigned'>): void {
  const pki = pkiOf(world, step.mount);
  const staged = ownEntry(world.vault.staging);
  const [leaf, ...above] = step.chain.flatMap((pem) => certificateFacts(pem) ?? []);
  const keyId = staged && new DerivedVault(world.d, world.vault).keyIdOf(pki, staged);
  const key = pki.keys.find(({ id }) => id === keyId);
  if (!leaf || !key || leaf.publicKey !== staged?.publicKey) throw new Refused('not for the staged key');
  addIssuer(world, pki, key, leaf);
  addAbove(pki, above);
}

/** How many versions KV 2 keeps of an entry when nobody has said it. */
const defaultVersions = 10;

export function publishLive(world: SimulatedWorld, step: StepOf<'PublishLive'>): void {
  const { d, vault } = world;
  const imported = certificateFacts(step.chain?.[0] ?? '');
  const issuer = imported
    ? { id: '', certificate: imported }
    : vault.intermediatePki?.issuers.find((i) => i.id === step.issuerId);
  const publicKey = {
    staging: ownEntry(vault.staging)?.publicKey,
    live: ownEntry(vault.live)?.publicKey,
    adopted: vault.live.foreign?.publicKey,
  }[step.from];
  if (!issuer || publicKey !== issuer.certificate.publicKey) throw new Refused('changed meanwhile');
  const { certificate } = issuer;
  const { generation, keyRef } = step;
  const since = step.listsSince === undefined ? {} : { listsSince: Date.parse(step.listsSince) };
  const lists = step.lists.length === 0 ? {} : { lists: listsOf(world, step.lists), ...since };
  const root = step.roots.join('');
  const all = vault.intermediatePki?.issuers.map((one) => one.certificate) ?? [];
  const known = [...all, ...(vault.existing?.found ?? []).flatMap((one) => [one.certificate, ...one.above])];
  const path = pathTo(certificate, known, bundleFacts(root)) ?? [certificate];
  const signed = path.filter((one, at) => at === 0 || !one.selfIssued).map(({ pem }) => pem);
  const chain = (step.chain ?? signed).join('');
  const origin = imported ? { imported: true as const } : {};
  const entry = { generation, keyRef, certificate, chain, root, publicKey, ...lists, ...origin };
  if (d.spec.keyStore.version === 2 && vault.live.casVersion > 0) {
    const versions = [...vault.liveOlder, vault.live.casVersion, vault.live.casVersion + 1];
    vault.liveOlder = versions.slice(-(vault.liveVersions ?? defaultVersions)).slice(0, -1);
  }
  set(vault.live, step.cas, entry, step.mark, d.spec.keyStore.version);
  if (step.from === 'staging') vault.liveRevoked = false;
  if (d.spec.delivery.source === 'PKI' && vault.intermediatePki) vault.intermediatePki.defaultIssuerId = issuer.id;
}

export function installCertificate(world: SimulatedWorld, step: StepOf<'InstallCertificate'>): void {
  const live = ownEntry(world.vault.live);
  const pki = pkiOf(world, step.mount);
  const keyId = live && new DerivedVault(world.d, world.vault).keyIdOf(pki, live);
  const key = pki.keys.find((k) => k.id === keyId);
  if (!live?.certificate || !key) throw new Refused('nothing to install');
  addIssuer(world, pki, key, live.certificate);
}

export function collect(world: SimulatedWorld, step: StepOf<'Collect'>): void {
  const pki = pkiOf(world, step.mount);
  pki.issuers = pki.issuers.filter((issuer) => !step.issuerIds.includes(issuer.id));
  pki.keys = pki.keys.filter((key) => !step.keyIds.includes(key.id));
  if (step.issuerIds.includes(pki.defaultIssuerId)) pki.defaultIssuerId = '';
}

export function tune({ d, vault }: SimulatedWorld, step: StepOf<'TuneMount'>): void {
  const mount = step.mount === d.spec.root.mount ? vault.rootMount : vault.intermediateMount;
  if (!mount) throw new Refused('no such mount');
  Object.assign(mount, { maxLeaseTtl: step.maxLeaseTtl, description: step.description });
}

export function unmount({ d, vault }: SimulatedWorld, mount: string): void {
  const { root, intermediate, keyStore } = d.spec;
  if (mount === root.mount) Object.assign(vault, { rootMount: undefined, rootPki: undefined });
  if (mount === intermediate.mount) Object.assign(vault, { intermediateMount: undefined, intermediatePki: undefined });
  if (mount === keyStore.mount) vault.kvMount = undefined;
}

export function stageKey({ d, vault }: SimulatedWorld, step: StepOf<'StageKey'>): void {
  const { generation, spec, before, reason, request } = step;
  const live = ownEntry(vault.live)?.publicKey;
  const publicKey = step.reuse === undefined ? plannedKey(`${generation} ${vault.staging.casVersion}`) : live;
  const entry = { generation, spec, before, reason, request, publicKey, keyRef: step.reuse ?? '' };
  set(vault.staging, step.cas, entry, d.mark, d.spec.keyStore.version);
}

export function onKubernetes(
  { d, kubernetes }: SimulatedWorld,
  step: StepOf<'ClaimControlPlane' | 'PatchControlPlane' | 'ReleaseControlPlane'>,
) {
  const { controlPlane: target, controlPlaneUnfit: unfit } = kubernetes;
  if (step.kind === 'ReleaseControlPlane') {
    const carriesFields = target?.superfluous === true;
    if (target)
      Object.assign(target, { owner: undefined, carriesFields, writtenBefore: carriesFields, superfluous: false });
    // what was written while it was fit is given back all the same
    if (unfit) unfit.owner = undefined;
    kubernetes.istiodUses = [];
    return;
  }
  if (!target) throw new Refused('no control plane');
  target.owner = d.identity.name;
  if (step.kind === 'PatchControlPlane') Object.assign(target, { carriesFields: true, writtenBefore: true });
}
