/** Reads the trust bundles of many namespaces. Whoever may write ConfigMaps in a namespace chooses the text of its bundle. */
import { bundleFacts, bundleFingerprints, type CertificateFacts } from '../plan/facts/certificate.ts';

/** Maximum length of a bundle that is kept, in UTF-16 code units. istiod publishes a few roots, of some 2 KiB each. */
const longestBundle = 64 * 1024;
/** Maximum length of all different bundles together, in UTF-16 code units: namespaces of one mesh have equal bundles. */
const longestTogether = 16 * 1024 * 1024;

/** The roots in a trust bundle, read when they are asked for. */
export interface BundleRoots {
  /** SHA-256 of the DER of each, 64 lower-case hex digits. */
  readonly roots: string[];
  readonly certificates: CertificateFacts[];
}

/**
 * Returns a function that takes the text of a bundle and returns its roots. Equal texts are kept and read once. What is beyond the limits is
 * not read, as if the namespace did not have these roots.
 */
export function bundleReader(): (text: string) => BundleRoots {
  const byText = new Map<string, BundleRoots>();
  let left = longestTogether;
  return (whole) => {
    const text = whole.slice(0, Math.min(longestBundle, left));
    const known = byText.get(text);
    if (known) return known;
    left -= text.length;
    let roots: string[] | undefined;
    let certificates: CertificateFacts[] | undefined;
    const read: BundleRoots = {
      get roots() {
        return (roots ??= bundleFingerprints(text));
      },
      get certificates() {
        return (certificates ??= bundleFacts(text));
      },
    };
    byText.set(text, read);
    return read;
  };
}
