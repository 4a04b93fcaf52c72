/**
 * Status of a resource that the schema rejects. The API server accepts such a resource if an older CRD, or a CRD without validation, is
 * installed.
 */
import type { ZodError } from 'zod';
import { dig, type JsonObject } from '../api/json.ts';
import type { Condition, Status } from '../api/status-schema.ts';
import { rfc3339 } from '../api/time.ts';

/** Returns the status with `Ready` `False` and `Stalled`, naming at most five violations. @param now milliseconds since the epoch */
export function invalidSpecStatus(raw: JsonObject, error: ZodError, now: number): Status {
  const generation = Number(dig(raw, 'metadata', 'generation') ?? 0);
  const message = error.issues
    .slice(0, 5)
    .map((issue) => `${issue.path.join('.')}: ${issue.message}`)
    .join('; ');
  const before = dig(raw, 'status', 'conditions');
  const condition = (type: string, status: 'True' | 'False'): Condition => {
    const previous: unknown = Array.isArray(before)
      ? before.find((c) => dig(c, 'type') === type && dig(c, 'status') === status)
      : undefined;
    const since = dig(previous, 'lastTransitionTime');
    return {
      type,
      status,
      reason: 'InvalidSpec',
      message: `${message}; correct it, and see that the installed CRD is the one of this version`,
      observedGeneration: generation,
      lastTransitionTime: typeof since === 'string' ? since : rfc3339(now),
    };
  };
  return { observedGeneration: generation, conditions: [condition('Ready', 'False'), condition('Stalled', 'True')] };
}
