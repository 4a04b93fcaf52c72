/**
 * Derived state: values that follow from the desired and the whole observed state before any decision, such as the root that signs. The first use of
 * a value computes and caches it. Pure.
 */
import { bundleFacts, isSignedBy, type CertificateFacts } from './certificate.ts';
import { pathTo } from './certificate-path.ts';
import { renewBeforeMs, type Desired } from './desired.ts';
import type { Observed, ObservedKubernetes } from './observed.ts';
import { comingAmong, sharedRootsOf, withShared, type SharedRoots } from './shared-roots.ts';
import { DerivedVault, type IssuedReference, type OwnIssuer } from './derived-vault.ts';

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
      const isUnderOthers = this.rootSource === 'Existing' && !this.imports && this.spec.delivery.source !== 'PKI';
      // what others publish is all that istiod distributes
      if (!trusted || !isUnderOthers || !existing || this.checksOnly) return { signer, trusted };
      const { sharedRoots: shared, kubernetes, caEntry } = this;
      const isShared = ({ fingerprint }: CertificateFacts) =>
        shared?.roots.some(({ certificate }) => certificate.fingerprint === fingerprint) === true;
      // of an entry that is about to be adopted only roots of the owner count, for their order
      const published = caEntry
        ? bundleFacts(caEntry.root)
        : bundleFacts(this.vault.live.foreign?.root ?? '').filter(isShared);
      const isUnknown = existing.found.length === 0;
      const coming = shared && signer ? comingAmong(shared, signer.certificate, existing.defaultId) : [];
      return {
        signer,
        trusted: withShared(trusted, shared, published, coming, kubernetes.meshRoots, isUnknown),
      };
    });
  }

  /** The roots that the phase of a rotation needs: as `rootRoles`, without the other roots of an owner. */
  get phaseRoles(): RootRoles {
    return this.once('phaseRoles', () => this.#rootRoles());
  }

  /**
   * With `root.source: Existing`: the roots of the IstioVaultCA that owns the mount, all of which are handed out, except with `delivery.source: PKI`,
   * which can hand out one only. undefined: another source, the mount is not that of an IstioVaultCA, or others make the intermediate.
   */
  get sharedRoots(): SharedRoots | undefined {
    return this.once('sharedRoots', () => {
      // in a mount that was handed over (`root.manage: false`) are roots from before, which nobody trusts any more
      if (this.spec.root.source !== 'Existing' || this.imports || this.checksOnly) return undefined;
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
   * The issuer in Vault that signs intermediates; undefined: there is no root, the issuer does not exist any more, the root signs outside of Vault, or
   * others have the intermediate signed.
   */
  get signingIssuer(): SigningIssuer | undefined {
    return this.once('signingIssuer', () => this.#signingIssuer());
  }

  /** Whether what signs now signed a certificate: an issuer of others itself, any other root also through CAs that are known. */
  isUnderSigner(certificate: CertificateFacts): boolean {
    const { signer, signingIssuer } = this;
    if (!signer) return false;
    return signingIssuer && this.rootSource === 'Existing'
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
    return this.rootSource === 'Generate' && this.signer?.id === '';
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
    // others can have the next one signed under another root
    if (!this.signsOutside && !this.checksOnly && currentCa.certificate.notAfter >= (this.signingEnd ?? Infinity))
      return undefined;
    const lifetime = currentCa.certificate.notAfter - currentCa.certificate.notBefore;
    return currentCa.certificate.notAfter - renewBeforeMs(this.spec, lifetime, this.kubernetes.maxWorkloadCertTtlMs);
  }

  #signingIssuer(): SigningIssuer | undefined {
    const { signer } = this;
    // a root that was imported with a CA, or is lost, signs nothing
    if (!signer || this.hasKeylessRoot || this.checksOnly) return undefined;
    if (this.rootSource === 'Generate')
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
    // what others published is what istiod distributes
    if (this.checksOnly && this.currentCa) return { signer: from, trusted: bundleFacts(this.currentCa.root) };
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
