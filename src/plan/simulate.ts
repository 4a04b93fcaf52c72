/**
 * Looking ahead: what a step would make of the observed world, with certificates that do not exist. `mode: Plan` shows the whole way
 * so, deletion tells what it would still have done, and the properties of the planner are tested on it. What it claims of
 * Vault (a name is taken once, a check-and-set refuses another version) the end-to-end tests check against the real servers.
 */
import { plannedCertificate, type CertificateFacts } from './facts/certificate.ts';
import type { Desired } from './facts/desired.ts';
import type { RootSpec } from './facts/state-entry.ts';
import { DerivedVault } from './facts/derived.ts';
import { ownEntry, type Issuer, type Observed, type ObservedVault, type Pki, type Slot } from './facts/observed.ts';
import type { Plan, Step } from './steps.ts';

type StepOf<K extends Step['kind']> = Extract<Step, { kind: K }>;

/** structuredClone makes objects of another realm under Jest, which no deep comparison takes for equal. */
function clone<T>(value: T): T {
  if (Array.isArray(value)) return value.map((item: unknown) => clone(item)) as T;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, clone<unknown>(item)])) as T;
}

/** A step that the real server would refuse. */
class Refused extends Error {}

/** The world of one rehearsal: Vault's side is changed by each step. */
interface SimulatedWorld {
  d: Desired;
  vault: ObservedVault;
  kubernetes: Observed['kubernetes'];
  /** Milliseconds since the epoch. */
  now: number;
}

function set<T>(slot: Slot<T>, cas: number, entry: T, mark: string, kvVersion: 1 | 2): void {
  if (kvVersion === 2 && slot.casVersion !== cas) throw new Refused('check-and-set');
  if (kvVersion === 2) slot.casVersion += 1;
  slot.entry = entry;
  slot.mark = mark;
  delete slot.foreign;
  delete slot.lifetime;
}

function unset(slot: Slot<unknown>, freed: boolean): void {
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

/** Public half of a key that a rehearsal would make. */
const plannedKey = (name: string): string => `planned key ${name}`;

const pkiOf = ({ d, vault }: SimulatedWorld, mount: string): Pki => {
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

function addIssuer(pki: Pki, keyId: string, keyName: string, certificate: CertificateFacts): void {
  const issuer: Issuer = { id: plannedIssuer(pki, keyName), keyId, keyName, certificate };
  pki.issuers.push(issuer);
  pki.defaultIssuerId ||= issuer.id;
}

function addKey(pki: Pki, name: string): void {
  if (pki.keys.some((key) => key.name === name)) throw new Refused('key name already in use');
  pki.keys.push({ id: `planned key ${name}`, name });
}

function mountPki({ d, vault }: SimulatedWorld, step: StepOf<'MountPKI'>): void {
  const mount = { type: 'pki', description: step.description, maxLeaseTtl: step.maxLeaseTtl };
  const content: Pki = { issuers: [], keys: [], defaultIssuerId: '' };
  const isRoot = step.mount === d.spec.root.mount;
  if (isRoot ? vault.rootMount : vault.intermediateMount) throw new Refused('path is already in use');
  Object.assign(
    vault,
    isRoot ? { rootMount: mount, rootPki: content } : { intermediateMount: mount, intermediatePki: content },
  );
}

function generateRoot(stage: SimulatedWorld, step: StepOf<'GenerateRoot'>): void {
  const pki = pkiOf(stage, step.mount);
  if (!step.existingKey) addKey(pki, step.name);
  const key = pki.keys.find((k) => k.name === step.name);
  if (!key) throw new Refused('no such key');
  const facts = caFacts(step.spec, plannedKey(step.name), stage.now, Infinity, true);
  addIssuer(pki, key.id, key.name, plannedCertificate(facts, undefined));
}

function signIntermediate(stage: SimulatedWorld, step: StepOf<'SignIntermediate'>): void {
  const { vault, now } = stage;
  const staged = ownEntry(vault.staging);
  const root = vault.rootPki?.issuers.find((issuer) => issuer.id === step.rootIssuerId);
  const pki = vault.intermediatePki;
  const key = pki?.keys.find((k) => k.id === step.keyId);
  if (!staged?.publicKey || !root || !key || !pki) throw new Refused('nothing to sign');
  const facts = caFacts(step.spec, staged.publicKey, now, root.certificate.notAfter, false);
  addIssuer(pki, key.id, key.name, plannedCertificate(facts, root.certificate.fingerprint));
}

/** How many versions KV 2 keeps of an entry when nobody has said it. */
const defaultVersions = 10;

function publishLive({ d, vault }: SimulatedWorld, step: StepOf<'PublishLive'>): void {
  const issuer = vault.intermediatePki?.issuers.find((i) => i.id === step.issuerId);
  const publicKey = {
    staging: ownEntry(vault.staging)?.publicKey,
    live: ownEntry(vault.live)?.publicKey,
    adopted: vault.live.foreign?.publicKey,
  }[step.from];
  if (!issuer || publicKey !== issuer.certificate.publicKey) throw new Refused('changed meanwhile');
  const { certificate } = issuer;
  const { generation, keyRef } = step;
  const entry = { generation, keyRef, certificate, chain: certificate.pem, root: step.roots.join(''), publicKey };
  if (d.spec.keyStore.version === 2 && vault.live.casVersion > 0) {
    const all = [...vault.liveOlder, vault.live.casVersion, vault.live.casVersion + 1];
    vault.liveOlder = all.slice(-(vault.liveVersions ?? defaultVersions)).slice(0, -1);
  }
  set(vault.live, step.cas, entry, step.mark, d.spec.keyStore.version);
  if (d.spec.delivery.source === 'PKI' && vault.intermediatePki) vault.intermediatePki.defaultIssuerId = issuer.id;
}

function installCertificate(stage: SimulatedWorld, step: StepOf<'InstallCertificate'>): void {
  const live = ownEntry(stage.vault.live);
  const pki = pkiOf(stage, step.mount);
  const keyId = live && new DerivedVault(stage.d, stage.vault).keyIdOf(pki, live);
  const key = pki.keys.find((k) => k.id === keyId);
  if (!live?.certificate || !key) throw new Refused('nothing to install');
  addIssuer(pki, key.id, key.name, live.certificate);
}

function collect(stage: SimulatedWorld, step: StepOf<'Collect'>): void {
  const pki = pkiOf(stage, step.mount);
  pki.issuers = pki.issuers.filter((issuer) => !step.issuerIds.includes(issuer.id));
  pki.keys = pki.keys.filter((key) => !step.keyIds.includes(key.id));
  if (step.issuerIds.includes(pki.defaultIssuerId)) pki.defaultIssuerId = '';
}

function tune({ d, vault }: SimulatedWorld, step: StepOf<'TuneMount'>): void {
  const mount = step.mount === d.spec.root.mount ? vault.rootMount : vault.intermediateMount;
  if (!mount) throw new Refused('no such mount');
  Object.assign(mount, { maxLeaseTtl: step.maxLeaseTtl, description: step.description });
}

function unmount({ d, vault }: SimulatedWorld, mount: string): void {
  const { root, intermediate, keyStore } = d.spec;
  if (mount === root.mount) Object.assign(vault, { rootMount: undefined, rootPki: undefined });
  if (mount === intermediate.mount) Object.assign(vault, { intermediateMount: undefined, intermediatePki: undefined });
  if (mount === keyStore.mount) vault.kvMount = undefined;
}

function stageKey({ d, vault }: SimulatedWorld, step: StepOf<'StageKey'>): void {
  const { generation, spec, before, reason, request } = step;
  const live = ownEntry(vault.live)?.publicKey;
  const publicKey = step.reuse === undefined ? plannedKey(`${generation} ${vault.staging.casVersion}`) : live;
  const entry = { generation, spec, before, reason, request, publicKey, keyRef: step.reuse ?? '' };
  set(vault.staging, step.cas, entry, d.mark, d.spec.keyStore.version);
}

function onKubernetes(
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

function perform(stage: SimulatedWorld, step: Step): void {
  const { d, vault } = stage;
  const { version } = d.spec.keyStore;
  switch (step.kind) {
    case 'PublishRender':
      return void (stage.kubernetes.rendered = 'current');
    case 'RemoveRender':
      return void (stage.kubernetes.rendered = 'none');
    case 'ClaimControlPlane':
    case 'PatchControlPlane':
    case 'ReleaseControlPlane':
      return onKubernetes(stage, step);
    case 'EnableAudit':
      return void (vault.auditDevice = { type: step.type, options: step.options });
    case 'MountKV':
      if (vault.kvMount) throw new Refused('path is already in use');
      return void (vault.kvMount = {
        type: 'kv',
        description: step.description,
        maxLeaseTtl: 0,
        kvVersion: step.version,
      });
    case 'WriteState':
      return set(vault.state, step.cas, step.state, d.mark, version);
    case 'MountPKI':
      return mountPki(stage, step);
    case 'TuneMount':
      return tune(stage, step);
    case 'EnableAuth':
      return void (vault.authMount = { type: 'kubernetes', description: step.description, maxLeaseTtl: 0 });
    case 'WriteAuthConfig':
      return void (vault.authConfig = step.config);
    case 'WritePolicy':
      return void (vault.policy = step.text);
    case 'WriteRole':
      return void (vault.role = step.fields);
    case 'GenerateRoot':
      return generateRoot(stage, step);
    case 'DestroyVersions':
      return void (vault.liveOlder = vault.liveOlder.filter((number) => !step.versions.includes(number)));
    case 'LimitVersions':
      return void (vault.liveVersions = step.versions);
    case 'StageKey':
      return stageKey(stage, step);
    case 'RemoveStaging':
      if (version === 2 && vault.staging.casVersion !== step.version) return;
      return unset(vault.staging, false);
    case 'ImportKey':
      return addKey(pkiOf(stage, step.mount), step.name);
    case 'SignIntermediate':
      return signIntermediate(stage, step);
    case 'InstallCertificate':
      return installCertificate(stage, step);
    case 'PublishLive':
      return publishLive(stage, step);
    case 'SetDefaultIssuer':
      return void (pkiOf(stage, step.mount).defaultIssuerId = step.issuerId);
    case 'Collect':
      return collect(stage, step);
    case 'DeleteRole':
      return void (vault.role = undefined);
    case 'DeletePolicy':
      return void (vault.policy = undefined);
    case 'DeleteEntry':
      return unset(vault[step.entry], step.after === undefined);
    case 'Unmount':
      return unmount(stage, step.mount);
    case 'DisableAuth':
      return void (vault.authMount = undefined);
  }
}

/**
 * The world after a step; the given one stays as it is.
 * @param now milliseconds since the epoch
 * @throws Error where the real server would refuse
 */
export function simulateStep(d: Desired, world: Observed, step: Step, now: number): Observed {
  const after = clone(world);
  perform({ d, now, ...after }, step);
  return after;
}

/** More rounds than any way needs. */
const mostRounds = 40;

/** All steps that would follow from here, round by round, as long as nothing else happens. */
export function simulate(d: Desired, world: Observed, next: (o: Observed) => Plan, now: number): Step[] {
  const steps: Step[] = [];
  let at = world;
  for (let round = 0; round < mostRounds; round += 1) {
    const following = next(at).steps;
    if (following.length === 0) return steps;
    steps.push(...following);
    try {
      for (const step of following) at = simulateStep(d, at, step, now);
    } catch (error) {
      if (error instanceof Refused) return steps; // further ahead nothing can be told
      throw error;
    }
  }
  return steps;
}
