/** The kinds of control plane, by the name the spec gives them. */
import type { Spec } from '../api/schema.ts';
import type { ControlPlaneAdapter } from './adapter.ts';
import { tetrate } from './tetrate.ts';

type Kind = Spec['controlPlane']['kind'];

const adapters: Partial<Record<Kind, ControlPlaneAdapter>> = { TetrateControlPlane: tetrate };

/** @throws Error for a kind that the spec check refuses before */
export function adapterFor(kind: Kind): ControlPlaneAdapter {
  const adapter = adapters[kind];
  if (!adapter) throw new Error(`no adapter for control plane kind ${kind}`);
  return adapter;
}
