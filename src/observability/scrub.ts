/** The last fence: finds by their looks secrets that got into a text all the same. */

/**
 * A PEM private key, with real line breaks or with JSON's; one that was cut off reaches to the end of its JSON string.
 */
const privateKey =
  /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:[^"]*?-----END [A-Z0-9 ]*PRIVATE KEY-----|[A-Za-z0-9+/=:,\s-]*(?:\\[nr][A-Za-z0-9+/=:,\s-]*)*)/g;

/** A token of Vault or OpenBao: service, batch or recovery, in the new and in the old form. */
const vaultToken = /(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf]))(?:hv[sbr]|[sbr])\.[A-Za-z0-9_-]{20,}/g;

/** A JSON web token; also one whose signature was cut off. */
const jwt = /eyJ[A-Za-z0-9_-]{5,}\.(?:eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?|[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*)/g;

/** Replaces private keys, Vault tokens and JWTs; the text may be JSON, and stays it. */
export function scrub(text: string): string {
  return text
    .replaceAll(privateKey, '[redacted private key]')
    .replaceAll(jwt, '[redacted JWT]')
    .replaceAll(vaultToken, '[redacted token]');
}
