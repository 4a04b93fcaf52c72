import { expect, it } from '@jest/globals';
import { desiredOf } from '../../test/unit/model.ts';
import { controlPlaneKinds } from './control-plane/kinds.ts';
import { checkSpec } from './plan.ts';

const kinds = Object.keys(controlPlaneKinds) as (keyof typeof controlPlaneKinds)[];

it.each(kinds)('a revision of %s is refused where its operator names the revisions itself', (kind) => {
  const refused = checkSpec(desiredOf({ controlPlane: { kind, name: 'mesh', revision: 'canary' } }), true);
  const { namesRevisions, objectKind } = controlPlaneKinds[kind];
  if (namesRevisions === undefined) {
    expect(refused).toEqual([]);
    return;
  }
  expect(refused).toMatchObject([{ condition: 'ControlPlanePatched', reason: 'InvalidSpec', blocks: 'all' }]);
  expect(refused[0]?.message).toContain(`canary cannot be set with kind ${kind}: ${namesRevisions}`);
  expect(refused[0]?.message).toContain(`revisions of ${objectKind} mesh`);
});
