/** The CEL rules of the CRD for a manifest that no API server has seen: a command must not promise what the API server would refuse. */
import { brokenRulesOf, brokenTransitionsOf, type BrokenRule } from './cel.ts';
import { resourceStructure } from './crd.ts';
import type { Spec } from './schema.ts';

const schema = resourceStructure();

/** The rules that a spec breaks, all but those that compare with the spec before. Paths begin with `spec`. */
export const brokenRules = (spec: Spec): BrokenRule[] => brokenRulesOf(schema, { spec });

/** What of a spec that stands would be changed although it cannot be. */
export const immutableChanges = (before: Spec, after: Spec): BrokenRule[] =>
  brokenTransitionsOf(schema, { spec: before }, { spec: after });
