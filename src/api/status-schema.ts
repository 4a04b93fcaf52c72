/**
 * The zod schema of `status`. The status shows the last observation and is no storage. The operator reads from it only transition times, and
 * what is shown while nothing can be read.
 */
import { z } from 'zod';
import { text } from './fields.ts';
import { istiodPhases } from './istiod.ts';

const time = () => text(64);
const certificate = {
  serial: text(128).optional(),
  fingerprint: text(64).optional(),
  issuerId: text(64).optional(),
  generation: z.int().min(0).max(1_000_000).optional(),
  notBefore: time().optional(),
  notAfter: time().optional(),
  renewAt: time().optional(),
};

const condition = z.object({
  type: text(316),
  status: z.enum(['True', 'False', 'Unknown']),
  observedGeneration: z.int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
  lastTransitionTime: time(),
  reason: z.string().min(1).max(1024),
  message: text(32768),
});

/** The schema of `status`. */
export const statusSchema = z.object({
  observedGeneration: z.int().min(-1).max(Number.MAX_SAFE_INTEGER).optional(),
  lastHandledReconcileAt: text(256).optional(),
  conditions: z
    .array(condition)
    .max(32)
    .optional()
    .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] }),
  vault: z.object({ product: z.enum(['Vault', 'OpenBao']), version: text(64) }).optional(),
  root: z.object(certificate).optional(),
  intermediate: z.object({ ...certificate, keyId: text(64).optional() }).optional(),
  csr: text(16384).optional(),
  controlPlane: z
    .object({
      kind: text(64),
      name: text(253),
      revision: text(63).optional(),
      digest: text(64).optional(),
    })
    .optional(),
  istiodProven: text(32).optional(),
  istiod: z
    .array(
      z.object({
        pod: text(253),
        phase: z.enum(istiodPhases),
        reason: text(1024).optional(),
        container: text(253).optional(),
        message: text(4096).optional(),
      }),
    )
    .max(100)
    .optional()
    .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['pod'] }),
  plan: z
    .array(
      z.object({
        action: z.enum(['Create', 'Update', 'Delete', 'Sign', 'Publish']),
        target: text(512),
        message: text(1024),
      }),
    )
    .max(64)
    .optional()
    .meta({ 'x-kubernetes-list-type': 'atomic' }),
  rotation: z
    .object({
      kind: z.enum(['Root', 'Intermediate']),
      phase: z.enum(['Issuing', 'Distributing', 'Switching', 'Retiring', 'Paused']),
      startedAt: time().optional(),
      waitingFor: text(1024).optional(),
      earliestNext: time().optional(),
    })
    .optional(),
  history: z
    .array(
      z.object({
        time: time(),
        kind: text(64),
        serial: text(128),
        fingerprint: text(64),
        reason: text(256),
      }),
    )
    .max(10)
    .optional()
    .meta({ 'x-kubernetes-list-type': 'atomic' }),
});

export type Status = z.output<typeof statusSchema>;
export type Condition = z.output<typeof condition>;
