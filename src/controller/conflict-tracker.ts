/**
 * Detects repeated field conflicts, in memory and per resource. If another field manager reverts the fields three times within 10 minutes,
 * the operator stops writing them. It retries once after a pause (10 minutes by default, `--contest-probe`). After each failed retry the
 * pause doubles, up to six times its initial length.
 */
import type { RepeatedConflict, ControlPlaneFacts } from '../plan/facts/observed.ts';

/** Time within which reverts are counted, and after which a write that persists ends the conflict. Milliseconds. */
const windowMs = 600_000;
/** Number of reverts within the window after which the operator stops. */
const mostReverts = 3;

/** Record of one resource. */
interface ConflictRecord {
  /** The user's request at the beginning of the record; another request starts a new record. */
  request: string;
  /** The last write that was not found reverted. */
  written?: { fields: string; atMs: number };
  /** When reverts were observed, milliseconds since the epoch. */
  reverted: number[];
  /** Set while the operator pauses its writes or is about to retry. */
  stopped?: RepeatedConflict & { pauseMs: number };
}

export class ConflictTracker {
  readonly #probeMs: number;
  readonly #records = new Map<string, ConflictRecord>();

  /** @param probeMs the initial pause before a retry, milliseconds */
  constructor(probeMs: number) {
    this.#probeMs = probeMs;
  }

  /**
   * Records a write.
   * @param key the resource, `namespace/name`
   * @param fields the written fields, serialized for comparison
   * @param now milliseconds since the epoch
   */
  wrote(key: string, fields: string, now: number): void {
    const record = this.#records.get(key);
    if (record) record.written = { fields, atMs: now };
  }

  /**
   * Evaluates one observation.
   * @param key the resource, `namespace/name`
   * @param request changes when the user changes the spec or requests a reconcile
   * @param desired the fields that the operator would write now, serialized for comparison
   * @param facts the observed control plane; `undefined`: it does not exist
   * @param now milliseconds since the epoch
   * @returns the conflict while the operator must not write; `undefined`: it can write
   */
  evaluate(
    key: string,
    request: string,
    desired: string,
    facts: ControlPlaneFacts | undefined,
    now: number,
  ): RepeatedConflict | undefined {
    const record = this.#recordOf(key, request);
    const { written, stopped } = record;
    if (!facts) return undefined;
    if (facts.carriesFields) {
      const persisted = written === undefined || now - written.atMs >= windowMs;
      if (stopped && persisted) this.#records.delete(key);
      return undefined;
    }
    if (written?.fields === desired) {
      delete record.written;
      record.reverted = [...record.reverted, now].filter((at) => now - at < windowMs);
      const retried = stopped !== undefined;
      if (retried || record.reverted.length >= mostReverts) {
        const pauseMs = retried ? Math.min(stopped.pauseMs * 2, 6 * this.#probeMs) : this.#probeMs;
        const byMetadata = facts.tool && { name: '', tool: facts.tool };
        record.stopped = { pauseMs, untilMs: now + pauseMs, retried, by: facts.managedBy ?? byMetadata };
      }
    }
    return record.stopped && now < record.stopped.untilMs ? record.stopped : undefined;
  }

  /** Removes the record of a deleted resource. */
  forget(key: string): void {
    this.#records.delete(key);
  }

  /** Returns the record of a resource: a new one if there is none, or if the user's request changed. */
  #recordOf(key: string, request: string): ConflictRecord {
    const existing = this.#records.get(key);
    if (existing?.request === request) return existing;
    const record: ConflictRecord = { request, reverted: [] };
    this.#records.set(key, record);
    return record;
  }
}
