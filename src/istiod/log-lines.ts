/**
 * Reduces the log of a container to the lines that explain a failure. The lines appear in the status, so secrets are redacted, long lines are
 * truncated, and parts that differ between attempts are removed. The same failure therefore gives the same lines at each observation. Pure.
 */
import { cut, head, printable } from '../text/bounded.ts';
import { redact } from '../text/redact.ts';

/** Maximum length of a line that is shown, in UTF-16 code units. */
const longestLine = 400;
/** Maximum number of lines from one log. */
const mostLines = 3;
/** Maximum length of the part of a log that is looked at, in UTF-16 code units. The observer asks for less (`src/istiod/observe.ts`). */
const longestLog = 256 * 1024;
/** Maximum length of a line that is looked at, with its continuation lines, in UTF-16 code units. */
const longestRead = 4096;

/** The program that wrote a log. */
export type LogOf = 'agent' | 'discovery' | 'other';

/** Patterns of relevant lines by program, the most specific first. A line that matches none is dropped. */
const relevant: Record<LogOf, readonly RegExp[]> = {
  // Vault Agent: https://developer.hashicorp.com/vault/docs/agent-and-proxy/agent
  agent: [/\[ERROR\]/, /^.{0,100}\[WARN\] .*(retry|denied|error)/i, /\b(error|panic|denied|refused|fatal)\b/i],
  // istiod: https://github.com/istio/istio, pilot/pkg/bootstrap/istio_ca.go
  discovery: [
    /incomplete signing CA bundle|does not match (private|public)? ?key|cannot verify the cert|failed to create.{0,200} CA\b/,
    /Use self-signed certificate as the CA certificate|Use local CA certificate/,
    /Failed to update new Plug-in CA certs|updating new ROOT-CA|Multi root is disabled/,
    /failed to create discovery service|\bpanic\b|\bfatal\b/i,
    /\terror\t|^Error:/,
  ],
  other: [/\b(error|panic|denied|refused|fatal|failed)\b/i],
};

/**
 * Parts of a line that differ between attempts, with their replacements. Every repetition in a pattern is bounded or cannot overlap with
 * another match, so that the time is proportional to the length of the line.
 */
const variable: readonly (readonly [RegExp, string])[] = [
  [/[\t ]+/g, ' '],
  // ANSI colours, whose escape character was replaced with a space before
  [/ ?\[\d{1,3}(?:;\d{1,3}){0,10}m/g, ''],
  // times at the beginning of a line, and elsewhere
  [/^ ?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)? ?/, ''],
  [/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?/g, '…'],
  // attempts and retry delays of Vault Agent
  [/ ?\(retry attempt \d{1,9} after "[^"]{0,40}"\)/g, ''],
  [/ ?\b(?:next_)?backoff=\S+/g, ''],
  [/\b\d{1,9}(?:\.\d{1,9})?(?:ns|µs|us|ms|s|m|h)(?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m)){0,5}\b/g, '…'],
  // the client port of a connection
  [/\b([\d.]{7,15}|\[[0-9a-f:]{2,45}\]):\d{4,5}->/gi, '$1->'],
  [/\b(request_id|accessor)[=:] ?\S+/g, '$1=…'],
  [/ +/g, ' '],
];

/**
 * Returns foreign text in a form that can be shown: one line, redacted, without variable parts, truncated.
 * @param most maximum length, in UTF-16 code units
 */
export function cleaned(text: string, most = longestLine): string {
  const line = printable(redact(head(text, Math.max(longestRead, 4 * most))));
  const stable = variable.reduce((now, [pattern, by]) => now.replace(pattern, by), line).trim();
  // a second redaction: the replacements can join fragments of a secret that the first redaction did not recognize
  return cut(redact(stable), most);
}

/** The beginning of an entry of an agent's log: a time, JSON, a heading, or the message of a program that ends. */
const entryStart =
  /^(?:\d{4}-\d\d-\d\dT|\{|==>|\[(?:ERROR|WARN|INFO|DEBUG|TRACE)\]|(?:error|panic|fatal|goroutine)\b)/i;

/**
 * Splits a log into entries and joins continuation lines. hclog writes a multi-line value, such as a Vault error, below its line, indented or
 * after a bar. In a warning of the template engine, the lines of a Vault error (`Code: 403. Errors:`, `* permission denied`) begin like any
 * other, so in an agent's log only what begins like an entry is one.
 */
function joinContinuations(text: string, of: LogOf): string[] {
  const lines: string[] = [];
  for (const raw of text.split(/\r?\n/)) {
    const content = raw.trim();
    const continues = /^\s/.test(raw) || raw.startsWith('|') || (of === 'agent' && !entryStart.test(raw));
    const more = content !== '' && continues && lines.length > 0;
    if (!more && content !== '') lines.push(raw.slice(0, longestRead));
    const last = lines.at(-1) ?? '';
    if (more && last.length < longestRead)
      lines[lines.length - 1] = `${last} ${content.replace(/^\|\s*/, '').slice(0, longestRead)}`;
  }
  return lines;
}

/** Vault Agent logs this after a login. Earlier errors do not count any more. */
const loggedIn = /authentication successful/;

/** A level at the beginning of a line. Lines that differ only in the level count as the same. */
const levelPrefix = /^(?:\[?(?:error|warn|info|fatal)\]?:?) /i;

/** Returns the relevant lines with the rank of their pattern, sorted by rank and text, without duplicates. */
function ranked(lines: readonly string[], of: LogOf): [string, number][] {
  const ranks = new Map<string, number>();
  for (const line of lines) {
    const rank = relevant[of].findIndex((pattern) => pattern.test(line));
    const clean = rank >= 0 ? cleaned(line) : '';
    if (clean !== '') ranks.set(clean, rank);
  }
  return [...ranks].sort(([a, i], [b, j]) => i - j || (a < b ? -1 : 1));
}

/**
 * Returns the lines of a log that explain a failure: the most specific first, without duplicates, at most three. Their order does not
 * depend on their order in the log.
 * @param text a part of a log; it can begin or end within a line
 */
export function relevantLines(text: string, of: LogOf): string[] {
  // a private key spans several lines, so secrets are redacted before the text is split
  const lines = joinContinuations(redact(head(text, longestLog)), of);
  const since = of === 'agent' ? lines.slice(lines.findLastIndex((line) => loggedIn.test(line)) + 1) : lines;
  const current = ranked(since, of);
  // directly after a login there are no newer lines yet, so the earlier errors are still the best explanation
  const candidates = current.length > 0 ? current : ranked(lines, of);
  const kept: string[] = [];
  // istiod logs some errors twice in different forms, and a truncated line can be the end of another line
  for (const [line] of candidates) {
    const text = line.replace(levelPrefix, '');
    if (!kept.some((other) => other.includes(text))) kept.push(line);
    if (kept.length === mostLines) break;
  }
  return kept;
}
