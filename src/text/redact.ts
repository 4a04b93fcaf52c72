/**
 * Redaction by pattern: the last measure against secrets in log lines, conditions and other output. The text can come from anywhere, so
 * the time is proportional to its length: no pattern reads the same part of it more than a few times.
 */

/** The first line of a PEM private key. */
const beginKey = /-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----/g;
/** The last line of a PEM private key. */
const endKey = /-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----/g;
/** What follows the first line of a truncated key, with line breaks or with their JSON escapes. */
const keyMaterial = /[A-Za-z0-9+/=:,\s-]*(?:\\[nr][A-Za-z0-9+/=:,\s-]*)*/y;

/** A token of Vault or OpenBao: service, batch or recovery, in the new form (`hvs.…`) and in the old form (`s.…`). */
const vaultToken = /(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf]))(?:hv[sbr]\.[A-Za-z0-9_-]{16,}|[sbr]\.[A-Za-z0-9_-]{20,})/g;

/** A private key of age, which is written in either case. */
const ageIdentity = /AGE-SECRET-KEY-[A-Z0-9-]{0,4000}/gi;

/** Words with dots between them, which contain every JSON Web Token whole. The pattern succeeds wherever a word begins, so it is linear. */
const dottedWords = /[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*/g;

/** Finds the next match of a pattern in a text for positions that only increase, so that no part of the text is searched twice. */
function finder(text: string, pattern: RegExp): (from: number) => { start: number; end: number } | undefined {
  let found: { start: number; end: number } | undefined = { start: -1, end: -1 };
  return (from) => {
    if (found && found.start < from) {
      const search = new RegExp(pattern);
      search.lastIndex = from;
      const match = search.exec(text);
      found = match ? { start: match.index, end: search.lastIndex } : undefined;
    }
    return found;
  };
}

/** Replaces PEM private keys. A truncated key is replaced up to the end of its JSON string. */
function withoutKeys(text: string): string {
  const nextBegin = finder(text, beginKey);
  const nextEnd = finder(text, endKey);
  const nextQuote = finder(text, /"/g);
  const parts: string[] = [];
  let at = 0;
  for (let begin = nextBegin(at); begin; begin = nextBegin(at)) {
    parts.push(text.slice(at, begin.start), '[redacted private key]');
    const end = nextEnd(begin.end);
    if (end && end.start < (nextQuote(begin.end)?.start ?? Infinity)) at = end.end;
    else {
      keyMaterial.lastIndex = begin.end;
      keyMaterial.test(text);
      at = Math.max(begin.end, keyMaterial.lastIndex);
    }
  }
  return at === 0 ? text : [...parts, text.slice(at)].join('');
}

/** Replaces JSON Web Tokens (header and payload as base64url of JSON, so that each begins with `eyJ`), also those without signature. */
function withoutJwts(text: string): string {
  return text.replace(dottedWords, (words) => {
    if (!words.includes('eyJ') || !words.includes('.')) return words;
    const segments = words.split('.');
    const kept: string[] = [];
    for (let i = 0; i < segments.length; i += 1) {
      const segment = segments[i] ?? '';
      const start = segment.indexOf('eyJ');
      const payload = segments[i + 1] ?? '';
      const isHeader = start >= 0 && segment.length - start >= 8;
      const isJson = payload.startsWith('eyJ') && payload.length >= 8;
      if (isHeader && (isJson || (payload.length >= 5 && i + 2 < segments.length))) {
        kept.push(`${segment.slice(0, start)}[redacted JWT]`);
        i += 2;
      } else kept.push(segment);
    }
    return kept.join('.');
  });
}

/** Replaces private keys, Vault tokens, JWTs and private keys of age. A JSON text stays valid JSON. */
export function redact(text: string): string {
  return withoutJwts(withoutKeys(text))
    .replaceAll(vaultToken, '[redacted token]')
    .replaceAll(ageIdentity, '[redacted age key]');
}
