/**
 * Reduces the log of a container to the lines that tell what is wrong: pure. They are foreign text that ends up in status, so they are
 * redacted, cut, and freed of whatever differs from one attempt to the next: the same trouble gives the same lines at each look.
 */
import { scrub } from '../observability/scrub.ts';

/** A line of a message, at most. */
const longestLine = 400;
/** So many lines of a log are kept. */
const mostLines = 3;

export type LogOf = 'agent' | 'discovery' | 'other';

/** By container: the most telling first. A line that fits none is not kept. */
const telling: Record<LogOf, readonly RegExp[]> = {
  // vault agent: https://developer.hashicorp.com/vault/docs/agent-and-proxy/agent
  agent: [/\[ERROR\]/, /\[WARN\] .*(retry|denied|error)/i, /\b(error|panic|denied|refused|fatal)\b/i],
  // istiod: pilot/pkg/bootstrap/istio_ca.go
  discovery: [
    /incomplete signing CA bundle|does not match (private|public)? ?key|cannot verify the cert|failed to create.* CA\b/,
    /Use self-signed certificate as the CA certificate|Use local CA certificate/,
    /Failed to update new Plug-in CA certs|updating new ROOT-CA|Multi root is disabled/,
    /failed to create discovery service|\bpanic\b|\bfatal\b/i,
    /\terror\t|^Error:/,
  ],
  other: [/\b(error|panic|denied|refused|fatal|failed)\b/i],
};

/** What changes from attempt to attempt, and what it becomes. */
const variable: readonly (readonly [RegExp, string])[] = [
  // colours, after control characters have become spaces
  [/ ?\[\d{1,3}(?:;\d{1,3})*m/g, ''],
  // times at the beginning of a line, and anywhere
  [/^\s*\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\s*/, ''],
  [/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?/g, '…'],
  // Vault agent's attempts and pauses
  [/\s*\(retry attempt \d+ after "[^"]*"\)/g, ''],
  [/\s*\b(?:next_)?backoff=\S+/g, ''],
  [/\b\d+(?:\.\d+)?(?:ns|µs|us|ms|s|m|h)(?:\d+(?:\.\d+)?(?:ms|s|m))*\b/g, '…'],
  // ports of our own side of a connection
  [/\b([\d.]+|\[[0-9a-f:]+\]):\d{4,5}->/gi, '$1->'],
  [/\b(request_id|accessor)[=:]\s*\S+/g, '$1=…'],
  [/[\t ]+/g, ' '],
];

/**
 * Foreign text as it may be shown: one line, redacted, cut.
 * @param most characters
 */
export function cleaned(text: string, most = longestLine): string {
  const line = scrub(text.toWellFormed()).replace(/\p{Cc}/gu, ' ');
  const stable = variable.reduce((now, [pattern, by]) => now.replace(pattern, by), line).trim();
  // what the cutting of a longer text has left of a secret is looked for once more
  const short = scrub(stable);
  return short.length <= most ? short : `${short.slice(0, most - 1).toWellFormed()}…`;
}

/** hclog writes values of several lines below their line, indented and behind bars; errors of Vault come so. */
function joined(text: string): string[] {
  const lines: string[] = [];
  for (const raw of text.split(/\r?\n/)) {
    const more = /^(?:\s+\S|\s*\|)/.test(raw) && lines.length > 0;
    if (more) lines.push(`${lines.pop() ?? ''} ${raw.replace(/^\s*\|?\s*/, '')}`);
    else if (raw.trim() !== '') lines.push(raw);
  }
  return lines;
}

/** With this line of the agent the troubles of its logins before are over. */
const loggedIn = /authentication successful/;

/** Words at the beginning of a line that do not tell it from the same text under another head. */
const head = /^(?:\[?(?:error|warn|info|fatal)\]?:?) /i;

/** Telling lines with their ranks, each once. */
function ranked(lines: readonly string[], of: LogOf): [string, number][] {
  const found = new Map<string, number>();
  for (const line of lines) {
    const rank = telling[of].findIndex((pattern) => pattern.test(line));
    const clean = rank >= 0 ? cleaned(line) : '';
    if (clean !== '') found.set(clean, rank);
  }
  return [...found].sort(([a, i], [b, j]) => i - j || (a < b ? -1 : 1));
}

/**
 * The telling lines of a log, the most telling first, each once; in an order that does not depend on which came last.
 * @param text may begin or end in the middle of a line
 */
export function tellingLines(text: string, of: LogOf): string[] {
  // a private key has line ends: it is looked for before the text is taken apart
  const lines = joined(scrub(text));
  const since = of === 'agent' ? lines.slice(lines.findLastIndex((line) => loggedIn.test(line)) + 1) : lines;
  const now = ranked(since, of);
  // just logged in anew, it has said nothing yet: what was wrong before is still the best guess
  const found = now.length > 0 ? now : ranked(lines, of);
  const kept: string[] = [];
  // istiod says the same on two ways, and a line at the edge of what was read is the end of another one
  for (const [line] of found) {
    const text = line.replace(head, '');
    if (!kept.some((other) => other.includes(text))) kept.push(line);
  }
  return kept.slice(0, mostLines);
}
