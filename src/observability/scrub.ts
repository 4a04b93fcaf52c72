/** Redaction by pattern: the last measure against secrets in log lines and other output. */

/** A PEM private key, with line breaks or with their JSON escapes. A truncated key is matched up to the end of its JSON string. */
const privateKey =
  /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:[^"]*?-----END [A-Z0-9 ]*PRIVATE KEY-----|[A-Za-z0-9+/=:,\s-]*(?:\\[nr][A-Za-z0-9+/=:,\s-]*)*)/g;

/** A token of Vault or OpenBao: service, batch or recovery, in the new form (`hvs.…`) and in the old form (`s.…`). */
const vaultToken = /(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf]))(?:hv[sbr]|[sbr])\.[A-Za-z0-9_-]{20,}/g;

/** A JSON Web Token, also without its signature. */
const jwt = /eyJ[A-Za-z0-9_-]{5,}\.(?:eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?|[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*)/g;

/** Replaces private keys, Vault tokens and JWTs. A JSON text stays valid JSON. */
export function scrub(text: string): string {
  return text
    .replaceAll(privateKey, '[redacted private key]')
    .replaceAll(jwt, '[redacted JWT]')
    .replaceAll(vaultToken, '[redacted token]');
}
