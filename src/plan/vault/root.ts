/** Steps that generate the root and keep it the default issuer of its mount. Pure. */
import { currentRoot, ownIssuers } from '../facts/derived.ts';
import type { Desired } from '../facts/desired.ts';
import { generationName } from '../facts/identity.ts';
import { type Observed, ownEntry } from '../facts/observed.ts';
import type { RootSpec } from '../facts/state-entry.ts';
import type { Step } from '../steps.ts';

/** Steps for the root: generate it, or the next one of a rotation, and set the default issuer. */
export function rootSteps(d: Desired, o: Observed): Step[] {
  const { rootPki } = o.vault;
  const { mount } = d.spec.root;
  if (!rootPki) return [];
  const root = currentRoot(d, o);
  const state = ownEntry(o.vault.state);
  const generate = (generation: number, spec: RootSpec): Step => {
    const name = generationName(d.identity, 'root', generation);
    return { kind: 'GenerateRoot', mount, name, spec, existingKey: rootPki.keys.some((key) => key.name === name) };
  };
  if (!root) return [generate((state?.root?.generation ?? 0) + 1, d.root)];
  const steps: Step[] = [];
  // with PKI delivery istiod's root-cert.pem is the default issuer; in a mount that was taken over others may sign by it
  const fixed = d.spec.delivery.source === 'PKI' || !state?.adopted.includes(`mount:${mount}`);
  if (fixed && rootPki.defaultIssuerId !== root.id) steps.push({ kind: 'SetDefaultIssuer', mount, issuerId: root.id });
  const next = state?.rotation?.phase === 'Issuing' ? state.rotation.to : undefined;
  if (next && !ownIssuers(d, 'root', o.vault).some((issuer) => issuer.generation === next.generation))
    steps.push(generate(next.generation, next.spec));
  return steps;
}
