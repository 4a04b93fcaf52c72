/**
 * Derived state: what follows from the desired and the observed state before anything is decided, such as which certificates this resource
 * owns, which CA is current, and which root signs. Each value is computed when it is first asked for, and kept. Pure.
 */
import { createHash } from 'node:crypto';
import type { Spec } from '../../api/schema.ts';
import { bundleFacts, isSignedBy, type CertificateFacts } from './certificate.ts';
import { renewBeforeMs, type Desired } from './desired.ts';
import { generationName, generationOf, type Identity } from './identity.ts';
import {
  ownEntry,
  type CaEntry,
  type Issuer,
  type Observed,
  type ObservedKubernetes,
  type ObservedVault,
  type Pki,
  type StagingEntry,
} from './observed.ts';
import type { Rotation, StateEntry } from './state-entry.ts';

export type Tier = 'root' | 'intermediate';

/** An issuer that this resource owns, with its CA generation. */
export interface OwnIssuer extends Issuer {
  generation: number;
}

/** Which roots of this CA sign and are trusted. */
export interface RootRoles {
  /** The root that signs intermediates; undefined: there is none, or it is lost. */
  signer: OwnIssuer | undefined;
  /**
   * The roots that istiod distributes, in their order in root-cert.pem; undefined while the certificate of one is unknown. A lost root stays
   * trusted as long as the phase of the rotation requires it: the CA entry holds its certificate.
   */
  trusted: CertificateFacts[] | undefined;
}

/** The content of a CA entry that is valid and of this CA. */
export type CurrentCa = CaEntry & { certificate: CertificateFacts };

/** A reference to an issued root, as the state entry records it. */
interface IssuedReference {
  fingerprint?: string;
  serial?: string;
}

/** Base of the two kinds of derived state: keeps each value once it is computed. */
class Memo {
  readonly #values = new Map<unknown, unknown>();

  /**
   * The value under a key, computed at the first call. The key is a name, or the function itself.
   * @param compute must depend on nothing that can change
   */
  once<T>(key: unknown, compute: () => T): T {
    if (!this.#values.has(key)) this.#values.set(key, compute());
    return this.#values.get(key) as T;
  }
}

/** What follows from the desired state and from what was read of Vault alone. */
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

  /** The state entry, if this resource owns it. */
  get stateEntry(): StateEntry | undefined {
    return ownEntry(this.vault.state);
  }

  /** The root rotation in progress. */
  get rotation(): Rotation | undefined {
    return this.stateEntry?.rotation;
  }

  /** The CA entry, if this resource owns it; it need not be valid. */
  get caEntry(): CaEntry | undefined {
    return ownEntry(this.vault.live);
  }

  get stagingEntry(): StagingEntry | undefined {
    return ownEntry(this.vault.staging);
  }

  /** Roots that this resource owns, also retired and rolled-back ones; newest CA generation first. */
  get ownRoots(): OwnIssuer[] {
    return this.once('ownRoots', () => this.#ownIssuers('root'));
  }

  /** Intermediates that this resource owns, newest CA generation first. */
  get ownIntermediates(): OwnIssuer[] {
    return this.once('ownIntermediates', () => this.#ownIssuers('intermediate'));
  }

  ownIssuers(tier: Tier): OwnIssuer[] {
    return tier === 'root' ? this.ownRoots : this.ownIntermediates;
  }

  /** The highest CA generation of any root or root key of this resource, including keys of removed roots: no number is given out twice. */
  get highestRootGeneration(): number {
    const keys = (this.vault.rootPki?.keys ?? []).map((key) => generationOf(this.identity, 'root', key.name) ?? 0);
    return Math.max(0, ...this.ownRoots.map((issuer) => issuer.generation), ...keys);
  }

  /** The highest CA generation of an intermediate that any entry or key name of this resource shows. */
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

  /** An issued root of this resource in the root mount, by its fingerprint. */
  findRoot(issued: IssuedReference | undefined): OwnIssuer | undefined {
    return this.ownRoots.find(({ certificate }) => certificate.fingerprint === issued?.fingerprint);
  }

  /** The root that the state entry records, if the root mount holds it. During a rotation it is the root that the rotation replaces. */
  get recordedRoot(): OwnIssuer | undefined {
    return this.findRoot(this.stateEntry?.root);
  }

  /**
   * The current root outside a rotation: the recorded root or, if only the intent to create one is recorded, the root created since. If the
   * state entry is lost: the root that signed the current or, failing that, the newest intermediate. The mount can also contain retired and
   * rolled-back roots.
   */
  get rootOutsideRotation(): OwnIssuer | undefined {
    const recorded = this.stateEntry?.root;
    if (recorded?.fingerprint !== undefined) return this.recordedRoot;
    if (recorded) return this.ownRoots.find((issuer) => issuer.generation > recorded.generation);
    const signed = this.caEntry?.certificate ?? this.ownIntermediates[0]?.certificate;
    return signed ? this.ownRoots.find((issuer) => isSignedBy(signed, issuer.certificate)) : this.ownRoots[0];
  }

  /**
   * The content of the CA entry, if it is valid and of this CA. Content that is only consistent in itself, under a root of somebody else,
   * was not written by the operator and does not count.
   */
  get currentCa(): CurrentCa | undefined {
    return this.once('currentCa', () => {
      const entry = this.caEntry;
      if (!entry?.certificate || caEntryDefect(entry) !== undefined) return undefined;
      const { certificate } = entry;
      const ofThisCa =
        this.ownRoots.length === 0 || this.ownRoots.some((root) => isSignedBy(certificate, root.certificate));
      return ofThisCa ? { ...entry, certificate } : undefined;
    });
  }

  /** The issuer of the intermediate mount that carries the certificate of the current CA. */
  get currentIssuer(): Issuer | undefined {
    const fingerprint = this.currentCa?.certificate.fingerprint;
    return this.vault.intermediatePki?.issuers.find((issuer) => issuer.certificate.fingerprint === fingerprint);
  }

  /** The root that was issued last, as the state entry or, if that is lost, the CA entry shows it. The root mount may not hold it any more. */
  get lastKnownRoot(): IssuedReference | undefined {
    const recorded = this.stateEntry?.root;
    if (recorded?.fingerprint ?? recorded?.serial) return recorded;
    const entry = this.caEntry;
    const roots = bundleFacts(entry?.root ?? '');
    return roots.find((root) => entry?.certificate && isSignedBy(entry.certificate, root)) ?? roots[0];
  }

  /** Id of the key of a CA or staging entry in the intermediate mount: by a certificate for the key, its given name, or its id. */
  keyIdOf(pki: Pki, entry: { publicKey: string | undefined; keyRef: string; generation: number }): string | undefined {
    const carried = pki.issuers.find((i) => i.keyId !== '' && i.certificate.publicKey === entry.publicKey);
    const generated = generationName(this.identity, 'intermediate', entry.generation);
    const ref = entry.keyRef || generated;
    return carried?.keyId ?? pki.keys.find(({ id, name }) => id === ref || name === ref || name === generated)?.id;
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
   * Issuers that this resource owns although their key has another name, such as adopted ones: those that the state entry records, and the
   * certificates of the CA entry.
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

/** What follows from the desired state and from everything that was observed, at one time. */
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

  /** Which roots sign and are trusted: by the phase of a rotation, if one is in progress. */
  get rootRoles(): RootRoles {
    return this.once('rootRoles', () => this.#rootRoles());
  }

  /** The root that signs intermediates. */
  get signer(): OwnIssuer | undefined {
    return this.rootRoles.signer;
  }

  /** The desired content of root-cert.pem: PEM blocks. */
  get trustBundle(): string | undefined {
    return this.rootRoles.trusted?.map(({ pem }) => pem).join('');
  }

  /** When the intermediate is to be renewed, milliseconds since the epoch; undefined: there is none, or it expires with its root. */
  get renewAt(): number | undefined {
    const { currentCa, signer } = this;
    if (!currentCa || !signer || currentCa.certificate.notAfter >= signer.certificate.notAfter) return undefined;
    const lifetime = currentCa.certificate.notAfter - currentCa.certificate.notBefore;
    return currentCa.certificate.notAfter - renewBeforeMs(this.spec, lifetime, this.kubernetes.maxWorkloadCertTtlMs);
  }

  #rootRoles(): RootRoles {
    const from = this.rootOutsideRotation;
    const state = this.stateEntry;
    const rotation = state?.rotation;
    if (!rotation) return { signer: from, trusted: from && [from.certificate] };
    const to = this.findRoot(rotation.to);
    const [signer, last] = rotation.back ? [from, state.root] : [to, rotation.to];
    const certificates = (...roots: (IssuedReference | undefined)[]) => this.#certificatesOf(roots);
    switch (rotation.phase) {
      case 'Issuing':
        return { signer: from, trusted: certificates(state.root) };
      case 'Distributing':
        return { signer: from, trusted: certificates(state.root, rotation.to) };
      case 'Switching':
        // nobody can distribute a root whose certificate no mount, entry or ConfigMap holds
        return { signer, trusted: certificates(state.root, rotation.to) ?? certificates(last) };
      case 'Retiring':
        return { signer, trusted: certificates(last) };
    }
  }

  /**
   * Certificates of recorded roots: from the CA entry (also one that is about to be adopted), the root mount, or the mesh; those of the CA
   * entry in its order. undefined: the certificate of one of them is unknown.
   */
  #certificatesOf(roots: (IssuedReference | undefined)[]): CertificateFacts[] | undefined {
    const published = bundleFacts(this.caEntry?.root ?? this.vault.live.foreign?.root ?? '');
    const issued = this.ownRoots.map(({ certificate }) => certificate);
    const known = [...published, ...issued, ...(this.kubernetes.meshRoots ?? [])];
    const found = roots
      .map((root) => known.find(({ fingerprint }) => fingerprint === root?.fingerprint))
      .filter((certificate) => certificate !== undefined);
    if (found.length < roots.length) return undefined;
    const place = ({ fingerprint }: CertificateFacts) => published.findIndex((one) => one.fingerprint === fingerprint);
    // a new root goes last: istiod before 1.30 compares the bytes of the roots that it had
    return found.sort((a, b) => (place(a) + 1 || Infinity) - (place(b) + 1 || Infinity) || 0);
  }
}

/** Makes a function of derived state compute its value once for each derived state. */
export function derivedOnce<S extends DerivedVault, T>(compute: (s: S) => T): (s: S) => T {
  return (s) => s.once(compute, () => compute(s));
}

/** Why the content of a CA entry is not valid; undefined: it is valid, or there is none. */
export function caEntryDefect(entry: CaEntry | undefined): string | undefined {
  if (!entry) return undefined;
  const { certificate } = entry;
  if (!certificate) return 'ca-cert.pem is not a certificate';
  if (entry.publicKey === undefined) return 'ca-key.pem is not a private key';
  if (entry.publicKey !== certificate.publicKey) return 'ca-key.pem is not the key of ca-cert.pem';
  const [first] = bundleFacts(entry.chain);
  if (first?.fingerprint !== certificate.fingerprint) return 'cert-chain.pem does not begin with ca-cert.pem';
  if (!bundleFacts(entry.root).some((root) => isSignedBy(certificate, root))) {
    return 'ca-cert.pem is not signed by a root of root-cert.pem';
  }
  return undefined;
}

/** Digest of what istiod serves: certificate, chain and roots; SHA-256, 64 hex digits. */
export function caDigest(entry: CaEntry): string {
  return createHash('sha256')
    .update([entry.certificate?.pem ?? '', entry.chain, entry.root].join('\n'))
    .digest('hex');
}
