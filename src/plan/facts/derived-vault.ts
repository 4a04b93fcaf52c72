/**
 * Derived state: values that follow from the desired state and the observation of Vault, such as the certificates that this resource owns, and the
 * current CA. The first use of a value computes and caches it. Pure.
 */
import { annotations } from '../../api/annotations.ts';
import type { Spec } from '../../api/schema.ts';
import { caEntryDefect } from './ca-entry.ts';
import { bundleFacts, certificateFacts, isSignedBy, type CertificateFacts } from './certificate.ts';
import { leadsTo } from './certificate-path.ts';
import { certificateOfHandedOver, deliveredCa } from './delivered-ca.ts';
import { pendingRequest, rootSourceOf, type Desired } from './desired.ts';
import { generationName, generationOf, type Identity } from './identity.ts';
import { Memo } from './memo.ts';
import {
  ownEntry,
  type CaEntry,
  type ExistingIssuer,
  type Issuer,
  type ObservedVault,
  type Pki,
  type StagingEntry,
} from './observed.ts';
import { withoutCa, type IssuedRoot, type Rotation, type StateEntry } from './state-entry.ts';

/** Level of the CA hierarchy. */
export type Tier = 'root' | 'intermediate';

/** An issuer that this resource owns, with its CA generation. */
export interface OwnIssuer extends Issuer {
  generation: number;
}

/** Content of a CA entry that is valid and was issued by this CA. */
export type CurrentCa = CaEntry & { certificate: CertificateFacts };

/** A reference to an issued root, as the state entry records it. */
export interface IssuedReference {
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

  /** Whether others make the intermediate, its mount and the CA entry (`intermediate.manage: false`), so that they are only checked. */
  get checksOnly(): boolean {
    return !this.spec.intermediate.manage;
  }

  /**
   * The state entry as it is written; undefined: there is none, it cannot be parsed, or this resource does not own it. With `keyStore.manage: false`
   * there is none.
   */
  get writtenState(): StateEntry | undefined {
    return this.spec.keyStore.manage ? ownEntry(this.vault.state) : undefined;
  }

  /**
   * The state entry as far as it counts: what it records of a CA that this resource managed before does not, while others manage the CA. undefined as of
   * `writtenState`.
   */
  get stateEntry(): StateEntry | undefined {
    const { writtenState: state } = this;
    if (!state || !this.checksOnly) return state;
    return this.once('stateEntry', () => withoutCa(state, this.issuesRoot));
  }

  /** The root rotation in progress; undefined: none. */
  get rotation(): Rotation | undefined {
    return this.stateEntry?.rotation;
  }

  /**
   * The CA entry, which can be invalid; undefined: there is none, or it does not carry the marker of this resource. If others manage the CA: the files
   * that istiod gets, whoever wrote them.
   */
  get caEntry(): CaEntry | undefined {
    const entry = ownEntry(this.vault.live);
    return this.checksOnly ? this.once('delivered', () => deliveredCa(this.spec, this.vault, entry)) : entry;
  }

  /** The staging entry; undefined: there is none, it does not carry the marker of this resource, or others manage the CA. */
  get stagingEntry(): StagingEntry | undefined {
    return this.checksOnly ? undefined : ownEntry(this.vault.staging);
  }

  /** Whether others generate the root in the mount of the spec (`source: Generate` with `manage: false`). */
  get rootIsOthers(): boolean {
    return this.spec.root.source === 'Generate' && !this.spec.root.manage;
  }

  /** Where the root comes from, as of `rootSourceOf`. */
  get rootSource(): Spec['root']['source'] {
    return rootSourceOf(this.spec);
  }

  /** Whether the CA is brought along by the user (`intermediate.source: Import`). */
  get imports(): boolean {
    return this.spec.intermediate.source === 'Import';
  }

  /** Whether certificates of intermediates come from outside of Vault: signed there (`root.source: External`), or imported. */
  get signsOutside(): boolean {
    return this.rootSource === 'External' || this.imports;
  }

  /** Whether this resource issues its root, in a mount of its own. Otherwise the root is outside: it is known by its certificate alone. */
  get issuesRoot(): boolean {
    return this.rootSource === 'Generate' && !this.imports;
  }

  /**
   * Whether the CA in use was imported and the spec asks for one that is issued: that has another root, so it waits until a rotation of the root is
   * requested. Until then no PKI mount is needed. An issuer of others under the same root is recorded at that request, and signs.
   */
  get awaitsFirstIssue(): boolean {
    const asked = pendingRequest(this.desired, this.stateEntry?.handled, annotations.rotateRoot) !== undefined;
    const isKept = this.caEntry?.imported === true && this.stateEntry?.root?.issuerId === undefined;
    return !this.imports && isKept && this.rotation === undefined && (this.checksOnly || !asked);
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
      const inMount = this.rootSource === 'Generate' ? this.#ownIssuers('root') : [];
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
    // others decide which root of this resource is above theirs, and can have done so in the middle of a rotation
    const chosen = this.checksOnly && this.issuesRoot ? this.#rootAbove(this.caEntry?.certificate) : undefined;
    if (chosen) return chosen;
    const recorded = this.stateEntry?.root;
    if (recorded?.fingerprint !== undefined) return this.recordedRoot ?? this.lostRoot(recorded);
    if (recorded) return this.ownRoots.find((issuer) => issuer.generation > recorded.generation);
    const signed = this.caEntry?.certificate ?? this.ownIntermediates[0]?.certificate;
    if (!signed) return this.ownRoots[0];
    // others sign, and can do so under another root: that is no reason to generate a second one
    return this.#rootAbove(signed) ?? (this.checksOnly && this.issuesRoot ? this.#signingRoots[0] : undefined);
  }

  /** Roots that can sign: one that is lost is in the CA entry and not in its mount. */
  get #signingRoots(): OwnIssuer[] {
    return this.ownRoots.filter(({ id }) => id !== '' || this.#isOutside);
  }

  /** The root that signed a certificate; undefined: none that can sign did. */
  #rootAbove(signed: CertificateFacts | undefined): OwnIssuer | undefined {
    return signed && this.#signingRoots.find((issuer) => this.leads(signed, issuer.certificate));
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
    const isImported = this.caEntry?.imported === true || (this.checksOnly && this.imports);
    return this.rootSource !== 'Generate' || isImported;
  }

  /** Roots outside, as the state entry records them; before that, and if the state entry is lost, those in the CA entry. */
  #outsideRoots(): OwnIssuer[] {
    const { root, rotation } = this.stateEntry ?? {};
    const outside = (certificate: CertificateFacts | undefined, id: string, generation: number): OwnIssuer[] =>
      certificate ? [{ id, keyId: '', keyName: '', certificate, generation }] : [];
    const ofRecord = (one: IssuedRoot | undefined): OwnIssuer[] =>
      outside(
        certificateFacts(one?.certificate ?? '') ?? certificateOfHandedOver(this.spec, this.vault, this.caEntry, one),
        one?.issuerId ?? '',
        one?.generation ?? 1,
      );
    const recorded = [...ofRecord(rotation?.to), ...ofRecord(root)];
    if (recorded.length > 0 || this.stateEntry?.root?.fingerprint !== undefined) return recorded;
    // if the state entry is lost, a root in the CA entry can be that of an imported CA, trusted beside the one in the mount
    if (!this.#isOutside && (this.checksOnly || this.stateEntry || this.#ownIssuers('root').length === 0)) return [];
    return bundleFacts(this.caEntry?.root ?? '').flatMap((root) => outside(root, this.#issuerUnder(root), 1));
  }

  /**
   * Id of the issuer of others that signs under a root of the CA entry, the root itself or the one that the spec names; empty: none is known. Above the
   * published intermediate only the issuer that signed it counts, because another one under the same root signs only when asked for.
   */
  #issuerUnder(root: CertificateFacts): string {
    const published = this.caEntry?.certificate;
    const isAbove = published !== undefined && this.leads(published, root);
    const itself = this.vault.existing?.found.find(({ certificate }) => certificate.fingerprint === root.fingerprint);
    const issuers = [itself, this.wantedIssuer].filter((issuer) => issuer !== undefined);
    const signs = ({ certificate }: ExistingIssuer) =>
      isAbove ? this.leads(certificate, root) && isSignedBy(published, certificate) : this.leads(certificate, root);
    return issuers.find(signs)?.id ?? '';
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
