/** Evaluates the CEL rules of the CRD for a manifest, so that commands reject what the API server would reject. */
import { brokenRulesOf, brokenTransitionsOf, type BrokenRule } from './cel.ts';
import { resourceStructure } from './crd.ts';
import type { Spec } from './schema.ts';

const schema = resourceStructure();

/** Returns the rules that a spec violates, except transition rules. Paths start with `spec`. */
export const brokenRules = (spec: Spec): BrokenRule[] => brokenRulesOf(schema, { spec });

/** Returns the transition rules that the change of a spec violates: its changes of immutable fields. */
export const immutableChanges = (before: Spec, after: Spec): BrokenRule[] =>
  brokenTransitionsOf(schema, { spec: before }, { spec: after });
