/** Reads the trust bundles of many namespaces. Whoever may write ConfigMaps in a namespace chooses the text of its bundle. */
import { bundleFingerprints } from '../plan/facts/certificate.ts';

/** Maximum length of a bundle that is kept, in UTF-16 code units. istiod publishes a few roots, of some 2 KiB each. */
const longestBundle = 64 * 1024;
/** Maximum length of all different bundles together, in UTF-16 code units: namespaces of one mesh have equal bundles. */
const longestTogether = 16 * 1024 * 1024;

/**
 * Returns a function that takes the text of a bundle and returns its roots as fingerprints, when they are asked for. Equal texts are kept
 * and read once. What is beyond the limits is not read, as if the namespace did not have these roots.
 */
export function bundleReader(): (text: string) => () => string[] {
  const byText = new Map<string, () => string[]>();
  let left = longestTogether;
  return (whole) => {
    const text = whole.slice(0, Math.min(longestBundle, left));
    const known = byText.get(text);
    if (known) return known;
    left -= text.length;
    let roots: string[] | undefined;
    const read = () => (roots ??= bundleFingerprints(text));
    byText.set(text, read);
    return read;
  };
}
