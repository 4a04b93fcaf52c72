/** Steps that generate the root and keep it the default issuer of its mount. Pure. */
import type { DerivedState } from '../facts/derived.ts';
import { generationName } from '../facts/identity.ts';
import type { RootSpec } from '../facts/state-entry.ts';
import { restoreUsage } from './issuer-usage.ts';
import type { Step } from '../steps.ts';

/** Steps for the root: generate it, or the next root of a rotation, and set the default issuer. */
export function rootSteps(s: DerivedState): Step[] {
  const { rootPki } = s.vault;
  const { mount } = s.spec.root;
  // a root outside is not this resource's to issue, nor its mount
  if (!rootPki || !s.issuesRoot) return [];
  const root = s.signer;
  const state = s.stateEntry;
  const generate = (generation: number, spec: RootSpec): Step => {
    const name = generationName(s.identity, 'root', generation);
    return { kind: 'GenerateRoot', mount, name, spec, existingKey: rootPki.keys.some((key) => key.name === name) };
  };
  if (!root) return [generate((state?.root?.generation ?? 0) + 1, s.desired.root)];
  const steps: Step[] = [];
  // with `delivery.source: PKI`, root-cert.pem is the default issuer; otherwise, others can rely on the default issuer of an adopted mount
  // a root that came with an imported CA is not in the mount
  const inMount = root.id !== '';
  const { delivery, root: spec } = s.spec;
  const setsDefault = delivery.source === 'PKI' || spec.shared || !state?.adopted.includes(`mount:${mount}`);
  // members follow the default issuer, so that comes after what this resource signs with it
  const isPublished = !spec.shared || !s.currentCa || s.isUnderSigner(s.currentCa.certificate);
  if (inMount && setsDefault && isPublished && (rootPki.defaultIssuerId !== root.id || rootPki.followsLatest))
    steps.push({ kind: 'SetDefaultIssuer', mount, issuerId: root.id });
  if (inMount) steps.push(...restoreUsage(s, mount, root));
  const next = state?.rotation?.phase === 'Issuing' ? state.rotation.to : undefined;
  if (next && next.fingerprint === undefined && !s.ownRoots.some((issuer) => issuer.generation === next.generation))
    steps.push(generate(next.generation, next.spec));
  return steps;
}
