/**
 * Fields that are written and taken back, written and taken back: counted in memory, per resource. After three times in ten minutes the
 * operator stops; then it tries once after ten minutes, and each time that is in vain waits twice as long, up to an hour.
 */
import type { RepeatedConflict, ControlPlaneFacts, OtherManager } from '../plan/facts/observed.ts';

/** Milliseconds. */
const windowMs = 600_000;
const mostReverts = 3;

interface ConflictRecord {
  /** What a person asked for when it began: a change of it begins anew. */
  asked: string;
  /** What was written last, and when. */
  written?: { wanted: string; atMs: number };
  /** When it was found taken back. */
  reverted: number[];
  stopped?: { untilMs: number; pauseMs: number; by: OtherManager | undefined };
}

export class ConflictTracker {
  readonly #probeMs: number;
  readonly #records = new Map<string, ConflictRecord>();

  /** @param probeMs how long after it stopped the first time it tries again, milliseconds */
  constructor(probeMs: number) {
    this.#probeMs = probeMs;
  }

  /** The fields were written. @param wanted what was written, in a form that can be compared */
  wrote(key: string, wanted: string, now: number): void {
    const record = this.#records.get(key);
    if (record) record.written = { wanted, atMs: now };
  }

  /**
   * What follows from one look.
   * @param asked changes when a person asks for something else
   * @param wanted what would be written now
   * @returns a contest as long as nothing may be written
   */
  evaluate(
    key: string,
    asked: string,
    wanted: string,
    facts: ControlPlaneFacts | undefined,
    now: number,
  ): RepeatedConflict | undefined {
    const record = this.#recordOf(key, asked);
    const { written, stopped } = record;
    if (!facts) return undefined;
    if (facts.carriesFields) {
      const held = written === undefined || now - written.atMs >= windowMs;
      if (stopped && held) this.#records.delete(key);
      return undefined;
    }
    if (written?.wanted === wanted) {
      delete record.written;
      record.reverted = [...record.reverted, now].filter((at) => now - at < windowMs);
      const probed = stopped !== undefined;
      if (probed || record.reverted.length >= mostReverts) {
        const pauseMs = probed ? Math.min(stopped.pauseMs * 2, 6 * this.#probeMs) : this.#probeMs;
        const marked = facts.tool && { name: '', tool: facts.tool };
        record.stopped = { pauseMs, untilMs: now + pauseMs, by: facts.managedBy ?? marked };
      }
    }
    return record.stopped && now < record.stopped.untilMs ? record.stopped : undefined;
  }

  /** Forgets a resource that is gone. */
  forget(key: string): void {
    this.#records.delete(key);
  }

  #recordOf(key: string, asked: string): ConflictRecord {
    const found = this.#records.get(key);
    if (found?.asked === asked) return found;
    const record: ConflictRecord = { asked, reverted: [] };
    this.#records.set(key, record);
    return record;
  }
}
