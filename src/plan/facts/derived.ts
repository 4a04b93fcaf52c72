/**
 * Derived state: values that follow from the desired and the observed state before any decision, such as the certificates that this resource
 * owns, the current CA, and the root that signs. The first use of a value computes and caches it. Pure.
 */
import { annotations } from '../../api/annotations.ts';
import type { Spec } from '../../api/schema.ts';
import { caEntryDefect } from './ca-entry.ts';
import { bundleFacts, certificateFacts, isSignedBy, type CertificateFacts } from './certificate.ts';
import { leadsTo, pathTo } from './certificate-path.ts';
import { Memo } from './memo.ts';
import { pendingRequest, renewBeforeMs, type Desired } from './desired.ts';
import { generationName, generationOf, type Identity } from './identity.ts';
import {
  ownEntry,
  type CaEntry,
  type ExistingIssuer,
  type Issuer,
  type Observed,
  type ObservedKubernetes,
  type ObservedVault,
  type Pki,
  type StagingEntry,
} from './observed.ts';
import { sharedRootsOf, withShared, type SharedRoots } from './shared-roots.ts';
import type { IssuedRoot, Rotation, StateEntry } from './state-entry.ts';

export { caDigest, caEntryDefect } from './ca-entry.ts';

/** Level of the CA hierarchy. */
export type Tier = 'root' | 'intermediate';

/** An issuer that this resource owns, with its CA generation. */
export interface OwnIssuer extends Issuer {
  generation: number;
}

/** Which roots of this CA sign and are trusted. */
export interface RootRoles {
  /** The root that signs intermediates; undefined: no root exists, or the root is lost and nothing that is published is under it. */
  signer: OwnIssuer | undefined;
  /**
   * The roots that istiod is to distribute, in their order in root-cert.pem; undefined: the certificate of one of them is unknown, or no root
   * exists. A lost root stays trusted as long as the phase of the rotation requires: the CA entry contains its certificate.
   */
  trusted: CertificateFacts[] | undefined;
}

/** The issuer that signs intermediates. */
export interface SigningIssuer {
  /** In `root.mount`. */
  id: string;
  certificate: CertificateFacts;
  /** When it or a CA above it ends first, milliseconds since the epoch. */
  end: number;
}

/** Content of a CA entry that is valid and was issued by this CA. */
export type CurrentCa = CaEntry & { certificate: CertificateFacts };

/** A reference to an issued root, as the state entry records it. */
interface IssuedReference {
  fingerprint?: string;
  serial?: string;
}

/** Values that follow from the desired state and the observation of Vault alone. */
export class DerivedVault extends Memo {
  readonly desired: Desired;
  readonly vault: ObservedVault;

  constructor(desired: Desired, vault: ObservedVault) {
    super();
    this.desired = desired;
    this.vault = vault;
  }

  get spec(): Spec {
    return this.desired.spec;
  }

  get identity(): Identity {
    return this.desired.identity;
  }

  /** The state entry; undefined: there is none, it cannot be parsed, or this resource does not own it. */
  get stateEntry(): StateEntry | undefined {
    return ownEntry(this.vault.state);
  }

  /** The root rotation in progress; undefined: none. */
  get rotation(): Rotation | undefined {
    return this.stateEntry?.rotation;
  }

  /** The CA entry, which can be invalid; undefined: there is none, or it does not carry the marker of this resource. */
  get caEntry(): CaEntry | undefined {
    return ownEntry(this.vault.live);
  }

  /** The staging entry; undefined: there is none, or it does not carry the marker of this resource. */
  get stagingEntry(): StagingEntry | undefined {
    return ownEntry(this.vault.staging);
  }

  /** Whether the CA is brought along by the user (`intermediate.source: Import`). */
  get imports(): boolean {
    return this.spec.intermediate.source === 'Import';
  }

  /** Whether certificates of intermediates come from outside of Vault: signed there (`root.source: External`), or imported. */
  get signsOutside(): boolean {
    return this.spec.root.source === 'External' || this.imports;
  }

  /** Whether this resource issues its root, in a mount of its own. Otherwise the root is outside: it is known by its certificate alone. */
  get issuesRoot(): boolean {
    return this.spec.root.source === 'Generate' && !this.imports;
  }

  /**
   * Whether the CA in use was imported and the spec asks for one that is issued: that has another root, so it waits until a rotation of the root is
   * requested. Until then no PKI mount is needed. An issuer of others under the same root is recorded at that request, and signs.
   */
  get awaitsFirstIssue(): boolean {
    const asked = pendingRequest(this.desired, this.stateEntry?.handled, annotations.rotateRoot) !== undefined;
    const isKept = this.caEntry?.imported === true && this.stateEntry?.root?.issuerId === undefined;
    return !this.imports && isKept && this.rotation === undefined && !asked;
  }

  /** Whether certificates are signed, or about to be, so that the PKI mounts of this resource are needed. */
  get usesPki(): boolean {
    return this.imports
      ? this.rotation !== undefined && this.vault.intermediateMount !== undefined
      : !this.awaitsFirstIssue;
  }

  /**
   * Roots of this CA, newest CA generation first. With `root.source: Generate` these are the roots that this resource owns, including retired and
   * rolled-back roots; `keyId` of a root outside is empty, and so is `id` unless an issuer of others signs for it.
   */
  get ownRoots(): OwnIssuer[] {
    return this.once('ownRoots', () => {
      const inMount = this.spec.root.source === 'Generate' ? this.#ownIssuers('root') : [];
      const known = new Set(inMount.map(({ certificate }) => certificate.fingerprint));
      const outside = this.#outsideRoots().filter(({ certificate }) => !known.has(certificate.fingerprint));
      return [...inMount, ...outside].sort((a, b) => b.generation - a.generation);
    });
  }

  /** CAs that can stand between a root and an intermediate: those of the CA entry, of the intermediate mount, and above an issuer of others. */
  get knownCas(): CertificateFacts[] {
    return this.once('knownCas', () => [
      ...bundleFacts(this.caEntry?.chain ?? ''),
      ...(this.vault.intermediatePki?.issuers ?? []).map(({ certificate }) => certificate),
      ...(this.vault.existing?.found ?? []).flatMap(({ certificate, above }) => [certificate, ...above]),
    ]);
  }

  /** Whether a root signed a certificate, directly or through CAs that are known. */
  leads(certificate: CertificateFacts, root: CertificateFacts): boolean {
    return leadsTo(certificate, this.knownCas, root);
  }

  /** With `root.source: Existing`: the issuer that the spec names; undefined: it does not exist, or another source. */
  get wantedIssuer(): ExistingIssuer | undefined {
    const { found, wantedId } = this.vault.existing ?? {};
    return found?.find(({ id }) => id === wantedId);
  }

  /** With `root.source: Existing`: whether the issuer of others that signs under a root does not exist any more. */
  lacksIssuer(root: { id: string } | undefined): boolean {
    const { existing } = this.vault;
    return !this.imports && existing !== undefined && !existing.found.some(({ id }) => id === root?.id);
  }

  /** Intermediates that this resource owns, newest CA generation first. */
  get ownIntermediates(): OwnIssuer[] {
    return this.once('ownIntermediates', () => this.#ownIssuers('intermediate'));
  }

  /** Issuers of one tier that this resource owns, newest CA generation first. */
  ownIssuers(tier: Tier): OwnIssuer[] {
    return tier === 'root' ? this.ownRoots : this.ownIntermediates;
  }

  /** The highest CA generation of any root or root key of this resource; 0: none. Keys of removed roots count: no number is used twice. */
  get highestRootGeneration(): number {
    const keys = (this.vault.rootPki?.keys ?? []).map((key) => generationOf(this.identity, 'root', key.name) ?? 0);
    return Math.max(0, ...this.ownRoots.map((issuer) => issuer.generation), ...keys);
  }

  /** The highest CA generation of an intermediate in any entry or key name of this resource; 0: none. */
  get highestGeneration(): number {
    const names = (this.vault.intermediatePki?.keys ?? []).map(
      (key) => generationOf(this.identity, 'intermediate', key.name) ?? 0,
    );
    return Math.max(
      0,
      this.stateEntry?.highestGeneration ?? 0,
      this.caEntry?.generation ?? 0,
      this.stagingEntry?.generation ?? 0,
      ...names,
    );
  }

  /** The root with the fingerprint of a reference; undefined: the root mount does not contain it. */
  findRoot(issued: IssuedReference | undefined): OwnIssuer | undefined {
    return this.ownRoots.find(({ certificate }) => certificate.fingerprint === issued?.fingerprint);
  }

  /**
   * The root that the state entry records; undefined: none is recorded, or the root mount does not contain it. During a rotation it is the
   * root that the rotation replaces.
   */
  get recordedRoot(): OwnIssuer | undefined {
    return this.findRoot(this.stateEntry?.root);
  }

  /**
   * A recorded root that this resource issued and that the root mount does not contain any more, while the current intermediate is under it: the
   * CA entry has its certificate. It signs nothing, and stays trusted as long as the intermediate goes on. undefined: the root exists, nothing
   * that is published is under it, or annotation `allow-reissue` gives it up.
   */
  lostRoot(issued: IssuedReference | undefined): OwnIssuer | undefined {
    const entry = this.caEntry;
    if (!this.issuesRoot || issued?.fingerprint === undefined || this.findRoot(issued)) return undefined;
    if (!entry?.certificate || caEntryDefect(entry) !== undefined) return undefined;
    const certificate = bundleFacts(entry.root).find(({ fingerprint }) => fingerprint === issued.fingerprint);
    if (!certificate || !leadsTo(entry.certificate, bundleFacts(entry.chain), certificate)) return undefined;
    if (this.desired.annotations[annotations.allowReissue]?.toLowerCase() === certificate.serial) return undefined;
    const { root, rotation } = this.stateEntry ?? {};
    const record = [root, rotation?.to].find((one) => one?.fingerprint === issued.fingerprint);
    return record && { id: '', keyId: '', keyName: '', certificate, generation: record.generation };
  }

  /**
   * The current root outside a rotation: the recorded root or, if only the intent to create one is recorded, the root created since. If the
   * state entry is lost: the root that signed the current or, failing that, the newest intermediate. The mount can also contain retired and
   * rolled-back roots, which do not count. undefined: there is no such root, or it is lost and nothing that is published is under it.
   */
  get rootOutsideRotation(): OwnIssuer | undefined {
    const recorded = this.stateEntry?.root;
    if (recorded?.fingerprint !== undefined) return this.recordedRoot ?? this.lostRoot(recorded);
    if (recorded) return this.ownRoots.find((issuer) => issuer.generation > recorded.generation);
    const signed = this.caEntry?.certificate ?? this.ownIntermediates[0]?.certificate;
    if (!signed) return this.ownRoots[0];
    // a root that is lost is in the CA entry and not in its mount: it signs nothing
    const signing = this.ownRoots.filter(({ id }) => id !== '' || this.#isOutside);
    return signing.find((issuer) => this.leads(signed, issuer.certificate));
  }

  /**
   * The content of the CA entry; undefined: it is not valid, or not issued by this CA. The operator did not write content that is consistent
   * in itself but signed by the root of another CA.
   */
  get currentCa(): CurrentCa | undefined {
    return this.once('currentCa', () => {
      const entry = this.caEntry;
      if (!entry?.certificate || caEntryDefect(entry) !== undefined) return undefined;
      const { certificate } = entry;
      const chain = bundleFacts(entry.chain);
      const { root: recorded, rotation } = this.stateEntry ?? {};
      const ofThisCa =
        this.ownRoots.length === 0 ||
        this.ownRoots.some((root) => leadsTo(certificate, chain, root.certificate)) ||
        [recorded, rotation?.to].some((root) => this.lostRoot(root) !== undefined);
      return ofThisCa ? { ...entry, certificate } : undefined;
    });
  }

  /** The issuer with the certificate of the current CA; undefined: the intermediate mount does not contain it. */
  get currentIssuer(): Issuer | undefined {
    const fingerprint = this.currentCa?.certificate.fingerprint;
    return this.vault.intermediatePki?.issuers.find((issuer) => issuer.certificate.fingerprint === fingerprint);
  }

  /** Whether the certificate of the current CA is revoked, in the intermediate mount or in the root mount. */
  get isRevoked(): boolean {
    return this.currentIssuer?.revoked === true || (this.currentCa !== undefined && this.vault.liveRevoked);
  }

  /**
   * The root that was issued last, as recorded in the state entry or, if that is lost, contained in the CA entry. The root mount can have lost
   * it. undefined: neither entry names a root.
   */
  get lastKnownRoot(): IssuedReference | undefined {
    const recorded = this.stateEntry?.root;
    if (recorded?.fingerprint ?? recorded?.serial) return recorded;
    const entry = this.caEntry;
    const roots = bundleFacts(entry?.root ?? '');
    return roots.find((root) => entry?.certificate && this.leads(entry.certificate, root)) ?? roots[0];
  }

  /**
   * Id of the key of a CA or staging entry in the intermediate mount: found by a certificate for the key, else by the recorded or generated
   * name, or the recorded id. undefined: the mount does not contain the key.
   */
  keyIdOf(pki: Pki, entry: { publicKey: string | undefined; keyRef: string; generation: number }): string | undefined {
    const issuer = pki.issuers.find((i) => i.keyId !== '' && i.certificate.publicKey === entry.publicKey);
    const generated = generationName(this.identity, 'intermediate', entry.generation);
    const ref = entry.keyRef || generated;
    return issuer?.keyId ?? pki.keys.find(({ id, name }) => id === ref || name === ref || name === generated)?.id;
  }

  /** Whether the root of the current CA is outside of this resource. That of an imported CA is not in Vault either. */
  get #isOutside(): boolean {
    return this.spec.root.source !== 'Generate' || this.caEntry?.imported === true;
  }

  /** Roots outside, as the state entry records them; before that, and if the state entry is lost, those in the CA entry. */
  #outsideRoots(): OwnIssuer[] {
    const { root, rotation } = this.stateEntry ?? {};
    const outside = (certificate: CertificateFacts | undefined, id: string, generation: number): OwnIssuer[] =>
      certificate ? [{ id, keyId: '', keyName: '', certificate, generation }] : [];
    const ofRecord = (one: IssuedRoot | undefined): OwnIssuer[] =>
      outside(certificateFacts(one?.certificate ?? ''), one?.issuerId ?? '', one?.generation ?? 1);
    const recorded = [...ofRecord(rotation?.to), ...ofRecord(root)];
    if (recorded.length > 0 || this.stateEntry?.root?.fingerprint !== undefined) return recorded;
    // if the state entry is lost, a root in the CA entry can be that of an imported CA, trusted beside the one in the mount
    if (!this.#isOutside && (this.stateEntry || this.#ownIssuers('root').length === 0)) return [];
    const { wantedIssuer: wanted } = this;
    const { found = [] } = this.vault.existing ?? {};
    const idOf = (certificate: CertificateFacts): string => {
      const itself = found.find((issuer) => issuer.certificate.fingerprint === certificate.fingerprint);
      return itself?.id ?? (wanted && this.leads(wanted.certificate, certificate) ? wanted.id : '');
    };
    return bundleFacts(this.caEntry?.root ?? '').flatMap((certificate) => outside(certificate, idOf(certificate), 1));
  }

  #ownIssuers(tier: Tier): OwnIssuer[] {
    const pki = tier === 'root' ? this.vault.rootPki : this.vault.intermediatePki;
    const recorded = this.#recordedIssuers(tier);
    return (pki?.issuers ?? [])
      .flatMap((issuer) => {
        const generation =
          generationOf(this.identity, tier, issuer.keyName) ??
          (recorded.fingerprints.has(issuer.certificate.fingerprint) ? recorded.generation : undefined);
        return generation === undefined ? [] : [{ ...issuer, generation }];
      })
      .sort((a, b) => b.generation - a.generation || b.certificate.notBefore - a.certificate.notBefore);
  }

  /**
   * Issuers that this resource owns although their key has another name, for example adopted issuers: those that the state entry records, and
   * the certificates in the CA entry. `generation` is the CA generation that counts for them.
   */
  #recordedIssuers(tier: Tier): { fingerprints: Set<string>; generation: number } {
    const state = this.stateEntry;
    const entry = this.caEntry;
    const kind = tier === 'root' ? 'Root' : 'Intermediate';
    const history = (state?.history ?? []).filter((one) => one.kind === kind).map((one) => one.fingerprint);
    const recorded = [state?.[tier], tier === 'root' ? state?.rotation?.to : undefined].map(
      (one) => one?.fingerprint ?? '',
    );
    const published = tier === 'root' ? bundleFacts(entry?.root ?? '') : entry?.certificate ? [entry.certificate] : [];
    return {
      fingerprints: new Set([...recorded, ...history, ...published.map((c) => c.fingerprint)]),
      generation: state?.[tier]?.generation ?? (tier === 'root' ? 1 : (entry?.generation ?? 1)),
    };
  }
}

/** Values that follow from the desired state and the whole observation, at one point in time. */
export class DerivedState extends DerivedVault {
  readonly observed: Observed;
  /** Milliseconds since the epoch. */
  readonly now: number;

  constructor(desired: Desired, observed: Observed, now: number) {
    super(desired, observed.vault);
    this.observed = observed;
    this.now = now;
  }

  get kubernetes(): ObservedKubernetes {
    return this.observed.kubernetes;
  }

  /** The root that signs and the trusted roots, which depend on the phase of a rotation in progress and on the roots of an owner. */
  get rootRoles(): RootRoles {
    return this.once('rootRoles', () => {
      const { signer, trusted } = this.phaseRoles;
      const { existing } = this.vault;
      const isMember = this.spec.root.source === 'Existing' && !this.imports && this.spec.delivery.source !== 'PKI';
      if (!trusted || !isMember || !existing) return { signer, trusted };
      const published = bundleFacts(this.caEntry?.root ?? '');
      const isUnknown = existing.found.length === 0;
      return {
        signer,
        trusted: withShared(trusted, this.sharedRoots, published, this.kubernetes.meshRoots, isUnknown),
      };
    });
  }

  /** The roots that the phase of a rotation needs: as `rootRoles`, without the other roots of an owner. */
  get phaseRoles(): RootRoles {
    return this.once('phaseRoles', () => this.#rootRoles());
  }

  /**
   * With `root.source: Existing`: the roots of the IstioVaultCA that owns the mount, all of which are handed out, except with `delivery.source: PKI`,
   * which can hand out one only. undefined: another source, or the mount is not that of an IstioVaultCA.
   */
  get sharedRoots(): SharedRoots | undefined {
    return this.once('sharedRoots', () => {
      if (this.spec.root.source !== 'Existing' || this.imports) return undefined;
      return sharedRootsOf(this.vault.existing, this.kubernetes.givenRoots, this.now);
    });
  }

  /** The root that signs intermediates; undefined: no root exists, or the root is lost and nothing that is published is under it. */
  get signer(): OwnIssuer | undefined {
    return this.rootRoles.signer;
  }

  /** The root of the current intermediate, if it is lost: nothing can be signed, and the intermediate goes on. See {@link DerivedVault.lostRoot}. */
  get lostSigner(): OwnIssuer | undefined {
    return this.lostRoot(this.signer?.certificate);
  }

  /**
   * The issuer in Vault that signs intermediates; undefined: there is no root, the issuer does not exist any more, or the root signs outside of Vault.
   */
  get signingIssuer(): SigningIssuer | undefined {
    return this.once('signingIssuer', () => this.#signingIssuer());
  }

  /** Whether what signs now signed a certificate: an issuer of others itself, any other root also through CAs that are known. */
  isUnderSigner(certificate: CertificateFacts): boolean {
    const { signer, signingIssuer } = this;
    if (!signer) return false;
    return signingIssuer && this.spec.root.source === 'Existing'
      ? isSignedBy(certificate, signingIssuer.certificate)
      : this.leads(certificate, signer.certificate);
  }

  /**
   * When what signs intermediates ends, so that a renewed one would end with it: milliseconds since the epoch; undefined: there is no root. Outside of
   * Vault the CA that signs the next one is not known, so there it is the end of the root.
   */
  get signingEnd(): number | undefined {
    return this.signingIssuer?.end ?? this.signer?.certificate.notAfter;
  }

  /** Whether no mount of this resource has the root that would sign: it came with an imported CA, or it is lost. */
  get hasKeylessRoot(): boolean {
    return this.spec.root.source === 'Generate' && this.signer?.id === '';
  }

  /** The desired content of root-cert.pem: PEM blocks; undefined as in {@link RootRoles.trusted}. */
  get trustBundle(): string | undefined {
    return this.rootRoles.trusted?.map(({ pem }) => pem).join('');
  }

  /**
   * When the intermediate is to be renewed, milliseconds since the epoch; undefined: there is no current CA or no root, or the intermediate does
   * not expire before what signs. Outside of Vault another CA can sign the next one, so that one is always asked for in time.
   */
  get renewAt(): number | undefined {
    const { currentCa, signer } = this;
    if (!currentCa || !signer) return undefined;
    if (!this.signsOutside && currentCa.certificate.notAfter >= (this.signingEnd ?? Infinity)) return undefined;
    const lifetime = currentCa.certificate.notAfter - currentCa.certificate.notBefore;
    return currentCa.certificate.notAfter - renewBeforeMs(this.spec, lifetime, this.kubernetes.maxWorkloadCertTtlMs);
  }

  #signingIssuer(): SigningIssuer | undefined {
    const { signer } = this;
    // a root that was imported with a CA, or is lost, signs nothing
    if (!signer || this.hasKeylessRoot) return undefined;
    if (this.spec.root.source === 'Generate')
      return { id: signer.id, certificate: signer.certificate, end: signer.certificate.notAfter };
    const issuer = this.vault.existing?.found.find(({ id }) => id === signer.id);
    const path = issuer && pathTo(issuer.certificate, issuer.above, [signer.certificate]);
    if (!issuer || !path) return undefined;
    return { id: issuer.id, certificate: issuer.certificate, end: Math.min(...path.map(({ notAfter }) => notAfter)) };
  }

  #rootRoles(): RootRoles {
    const from = this.rootOutsideRotation;
    const state = this.stateEntry;
    const rotation = state?.rotation;
    if (!rotation) return { signer: from, trusted: from && [from.certificate] };
    const to = this.findRoot(rotation.to) ?? this.lostRoot(rotation.to);
    const [signer, last] = rotation.back ? [from, state.root] : [to, rotation.to];
    const certificates = (...roots: (IssuedReference | undefined)[]) => this.#certificatesOf(roots);
    switch (rotation.phase) {
      case 'Issuing':
        return { signer: from, trusted: certificates(state.root) };
      case 'Distributing':
        return { signer: from, trusted: certificates(state.root, rotation.to) };
      case 'Switching':
        // a root cannot be distributed if no mount, entry or ConfigMap contains its certificate
        return { signer, trusted: certificates(state.root, rotation.to) ?? certificates(last) };
      case 'Retiring':
        return { signer, trusted: certificates(last) };
    }
  }

  /**
   * Certificates of recorded roots, from the CA entry (including one that is about to be adopted), the root mount, or the mesh. Those in the
   * CA entry keep their order. undefined: the certificate of one of them is unknown.
   */
  #certificatesOf(roots: (IssuedReference | undefined)[]): CertificateFacts[] | undefined {
    const published = bundleFacts(this.caEntry?.root ?? this.vault.live.foreign?.root ?? '');
    const issued = this.ownRoots.map(({ certificate }) => certificate);
    const known = [...published, ...issued, ...(this.kubernetes.meshRoots ?? [])];
    const certificates = roots
      .map((root) => known.find(({ fingerprint }) => fingerprint === root?.fingerprint))
      .filter((certificate) => certificate !== undefined);
    if (certificates.length < roots.length) return undefined;
    const index = ({ fingerprint }: CertificateFacts) => published.findIndex((one) => one.fingerprint === fingerprint);
    // a new root goes last: istiod before 1.30 compares the bytes of the roots that it had
    return certificates.sort((a, b) => (index(a) + 1 || Infinity) - (index(b) + 1 || Infinity) || 0);
  }
}

/** Wraps a function of derived state, so that it runs once for each derived state. */
export function derivedOnce<S extends DerivedVault, T>(compute: (s: S) => T): (s: S) => T {
  return (s) => s.once(compute, () => compute(s));
}
