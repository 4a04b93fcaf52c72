/**
 * Reads Vault like the Vault Agent of istiod, with exactly istiod's policy and without a cache, and checks whether the files match.
 * With `Bundle` one read returns all four files. With `PKI` there are four reads, and the files can mismatch between two writes of
 * the operator.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { defects, type CaFiles } from '../support/certificates.ts';
import type { Json } from '../support/cluster.ts';
import type { Stage } from './stage.ts';
import type { Write } from './proxy.ts';

export interface Mismatch {
  /** When its first read was sent and its last one answered, milliseconds since the epoch. */
  from: number;
  to: number;
  defects: string[];
}

/** The result of a reader. */
export interface Seen {
  snapshots: number;
  mismatches: Mismatch[];
  /** Defects of the last snapshot; undefined: there was none. */
  last: string[] | undefined;
}

/** Creates a token with istiod's policy and nothing else. The policy can be created later. */
async function istiodToken({ vault, policy }: Stage): Promise<string> {
  const body = { policies: [policy], no_default_policy: true, no_parent: true, ttl: '6h' };
  const answer = await vault.request('POST', 'auth/token/create', body);
  return (answer.body as { auth: { client_token: string } }).auth.client_token;
}

/** The four files as the templates of a stage render them; undefined: one of them does not exist yet. */
async function readFiles(stage: Stage, token: string): Promise<CaFiles | undefined> {
  const read = async (path: string): Promise<Json | undefined> => {
    const { status, body } = await stage.vault.request('GET', path, undefined, token);
    return status === 200 ? (body as { data: Json }).data : undefined;
  };
  const entry = async () => {
    const found = await read(stage.entryPath());
    return stage.configuration.version === 1 ? found : (found?.['data'] as Json | undefined);
  };
  if (stage.configuration.source === 'Bundle') {
    const found = await entry();
    const files = ['ca-cert.pem', 'ca-key.pem', 'cert-chain.pem', 'root-cert.pem'].map((name) => found?.[name]);
    const [cert, key, chain, root] = files as (string | undefined)[];
    return cert && key && chain && root ? { cert, key, chain, root } : undefined;
  }
  const { root: rootMount, intermediate } = stage.mounts;
  // one after another, like four templates with separate timers
  const cert = (await read(`${intermediate}/cert/ca`))?.['certificate'];
  const chain = (await read(`${intermediate}/cert/ca_chain`))?.['certificate'];
  const root = (await read(`${rootMount}/cert/ca`))?.['certificate'];
  const key = (await entry())?.['ca-key.pem'];
  // the templates end each file in a newline
  const line = (pem: unknown): string | undefined => (typeof pem === 'string' && pem !== '' ? `${pem}\n` : undefined);
  const files = { cert: line(cert), chain: line(chain), root: line(root), key: typeof key === 'string' ? key : '' };
  return files.cert && files.chain && files.root && files.key !== '' ? (files as CaFiles) : undefined;
}

/** A reader of one stage. */
export class Reader {
  readonly #stage: Stage;
  readonly #pauseMs: () => number;
  #token: Promise<string> | undefined;
  /** Defects by content: most snapshots equal the previous one. */
  readonly #verdicts = new Map<string, string[]>();
  #seen: Seen = { snapshots: 0, mismatches: [], last: undefined };
  #stopping = new AbortController();
  #loop: Promise<void> = Promise.resolve();

  /** @param pauseMs between two snapshots */
  constructor(stage: Stage, pauseMs: () => number) {
    this.#stage = stage;
    this.#pauseMs = pauseMs;
  }

  /** Starts to read, and restarts the count. */
  start(): void {
    this.#seen = { snapshots: 0, mismatches: [], last: undefined };
    this.#stopping = new AbortController();
    this.#loop = this.#run(this.#stopping.signal);
    this.#loop.catch(() => undefined); // `stop` reports the error
  }

  /** The result so far. */
  get seen(): Readonly<Seen> {
    return this.#seen;
  }

  /** Takes a last snapshot and ends. */
  async stop(): Promise<Seen> {
    this.#stopping.abort();
    await this.#loop;
    await this.#snapshot();
    return this.#seen;
  }

  /** Revokes the token of the reader. */
  async dispose(): Promise<void> {
    if (this.#token) await this.#stage.vault.request('POST', 'auth/token/revoke', { token: await this.#token });
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#snapshot();
      await pause(this.#pauseMs(), undefined, { signal }).catch(() => undefined);
    }
  }

  async #snapshot(): Promise<void> {
    this.#token ??= istiodToken(this.#stage);
    const from = Date.now();
    const files = await readFiles(this.#stage, await this.#token);
    const to = Date.now();
    this.#seen.last = files && this.#judge(files);
    if (!this.#seen.last) return;
    this.#seen.snapshots += 1;
    if (this.#seen.last.length > 0) this.#seen.mismatches.push({ from, to, defects: this.#seen.last });
  }

  #judge(files: CaFiles): string[] {
    const text = Object.values(files).join('');
    let verdict = this.#verdicts.get(text);
    if (!verdict) {
      verdict = defects(files);
      if (this.#verdicts.size > 50) this.#verdicts.clear();
      this.#verdicts.set(text, verdict);
    }
    return verdict;
  }
}

/**
 * The intervals from each write of the CA entry to the next write of the default issuer, in which certificate and key can mismatch with
 * `PKI`.
 */
function publications(stage: Stage): { from: number; to: number }[] {
  const { intermediate } = stage.mounts;
  const live = (write: Write) => write.path === stage.entryPath();
  const followed = (write: Write) => write.path === `${intermediate}/config/issuers`;
  return stage.writes.filter(live).map((write) => {
    const next = stage.writes.find((other) => followed(other) && other.sent >= write.sent);
    return { from: write.sent, to: next?.answered ?? Infinity };
  });
}

/** Mismatches without an excuse: any with `Bundle`; with `PKI` those outside of a publication. */
export function unexcused(stage: Stage, { mismatches }: Seen): Mismatch[] {
  if (stage.configuration.source === 'Bundle') return mismatches;
  const gaps = publications(stage);
  return mismatches.filter(({ from, to }) => !gaps.some((gap) => from <= gap.to && to >= gap.from));
}
