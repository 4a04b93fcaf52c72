/**
 * Repeated field conflicts and fields that the user commits (`write: Render`): the messages, and that the operator writes nothing
 * meanwhile.
 */
import { describe, expect, it } from '@jest/globals';
import { noInjector } from '../../src/plan/facts/observed-injector.ts';
import { expectedConflict } from '../../src/plan/control-plane/field-ownership.ts';
import type { Observed, OtherManager } from '../../src/plan/facts/observed.ts';
import { plan } from '../../src/plan/plan.ts';
import { converge, desiredOf, emptyWorld, identity, someCa, start, derived } from './model.ts';

type Kind = 'TetrateControlPlane' | 'IstioOperator' | 'Sail' | 'HelmValues';
const of = (kind: Kind, write: 'Patch' | 'Render' = 'Patch') =>
  desiredOf({ controlPlane: { kind, name: 'plane', write } });

/** A provisioned world whose control plane lost the fields afterwards. */
function withoutFields(d: ReturnType<typeof of>): Observed {
  const { world } = converge(d, emptyWorld());
  Object.assign(world.kubernetes.controlPlane!, { carriesFields: false });
  return world;
}

describe('a contest', () => {
  const said = (kind: Kind, by: OtherManager | undefined, retried = false) => {
    const d = of(kind);
    const world = withoutFields(d);
    world.kubernetes.contest = { untilMs: start + 600_000, retried, by };
    const { problems, steps } = plan(d, world, start);
    expect(steps).toEqual([]);
    const problem = problems.find(({ reason }) => reason === 'ContestedField');
    expect(problem?.retryAfterMs).toBe(600_000);
    return problem?.message;
  };
  const argo = { name: 'argocd-controller', tool: 'Argo CD' } as const;

  it.each<[string, Kind, OtherManager | undefined, string]>([
    [
      'Argo CD and a list',
      'TetrateControlPlane',
      argo,
      '`ignoreDifferences: [{group: install.tetrate.io, kind: ControlPlane, name: plane, jsonPointers: [/spec/components/istio/kubeSpec/overlays]}]` and `syncPolicy: {syncOptions: [RespectIgnoreDifferences=true]}`',
    ],
    [
      'Argo CD and maps',
      'Sail',
      argo,
      '`ignoreDifferences: [{group: sailoperator.io, kind: Istio, name: plane, managedFieldsManagers: [istio-vault-ca]}]`',
    ],
    [
      'Argo CD and a core object',
      'HelmValues',
      argo,
      '`ignoreDifferences: [{kind: ConfigMap, name: plane, managedFieldsManagers: [istio-vault-ca]}]`',
    ],
    [
      'Flux',
      'TetrateControlPlane',
      { name: 'kustomize-controller', tool: 'Flux' },
      '`metadata: {annotations: {kustomize.toolkit.fluxcd.io/ssa: IfNotPresent}}`',
    ],
    [
      'a HelmRelease',
      'TetrateControlPlane',
      { name: 'helm-controller', tool: 'Flux Helm' },
      '`driftDetection: {ignore: [{paths: [/spec/components/istio/kubeSpec/overlays], target: {kind: ControlPlane, name: plane}}]}`',
    ],
    [
      'a person',
      'IstioOperator',
      { name: 'kubectl-edit' },
      'field manager kubectl-edit reverted the fields of the operator three times within 10m',
    ],
    [
      'a tool that only the object tells of',
      'Sail',
      { name: '', tool: 'Argo CD' },
      'probably Argo CD, whose mark the object bears, reverted the fields',
    ],
    [
      'a HelmRelease and maps',
      'Sail',
      { name: 'helm-controller', tool: 'Flux Helm' },
      'ignore: [{paths: [/spec/values/pilot/env, /spec/values/pilot/podAnnotations], target: {kind: Istio, name: plane}}]',
    ],
    [
      'a release and maps',
      'IstioOperator',
      { name: 'helm', tool: 'Helm' },
      "have the chart's release leave spec.values.pilot.env and spec.components.pilot.k8s.podAnnotations alone",
    ],
    ['nobody known', 'IstioOperator', undefined, 'somebody reverted the fields of the operator three times within 10m'],
  ])('with %s says what makes peace', (_, kind, by, expected) => {
    const message = said(kind, by);
    expect(message).toContain(expected);
    expect(message).toContain('spec.controlPlane.write: Render');
  });

  it('after a retry that was reverted says that, since one revert is then enough', () => {
    const message = said('Sail', argo, true);
    expect(message).toContain(
      'Argo CD (field manager argocd-controller) reverted the fields of the operator again at its last retry',
    );
    expect(message).not.toContain('three times');
  });
});

describe('while a contest goes on', () => {
  it('a changed root of the mesh stops neither repair nor the next try', () => {
    const d = of('TetrateControlPlane');
    const world = withoutFields(d);
    // istiod has restarted without the CA files and distributes the root of its self-signed CA
    Object.assign(world.kubernetes.controlPlane!, { writtenBefore: false });
    world.kubernetes.meshRoots = [someCa('of istiod itself', undefined)];
    expect(plan(d, world, start).steps.map(({ kind }) => kind)).toEqual(['PatchControlPlane']);
  });

  it('what was taken away with the owner annotation is not claimed again and again', () => {
    const d = of('TetrateControlPlane');
    const world = withoutFields(d);
    Object.assign(world.kubernetes.controlPlane!, { owner: undefined, writtenBefore: false });
    world.kubernetes.contest = { untilMs: start + 600_000, retried: false, by: undefined };
    expect(plan(d, world, start).steps).toEqual([]);
  });
});

describe('before the first write', () => {
  const managedBy = { name: 'kustomize-controller', tool: 'Flux' } as const;
  it('a tool that manages the field is warned of, and only then', () => {
    const d = of('TetrateControlPlane');
    const world = emptyWorld();
    expect(expectedConflict(derived(d, world))).toBeUndefined();
    Object.assign(world.kubernetes.controlPlane!, { managedBy });
    expect(expectedConflict(derived(d, world))).toMatch(
      /Flux \(field manager kustomize-controller\) manages the field/,
    );
    Object.assign(world.kubernetes.controlPlane!, { writtenBefore: true });
    expect(expectedConflict(derived(d, world))).toBeUndefined();
  });
});

describe.each<Kind>(['TetrateControlPlane', 'IstioOperator', 'Sail', 'HelmValues'])('%s with write: Render', (kind) => {
  const d = of(kind, 'Render');

  it('makes the CA, shows what to commit, and never writes to the control plane', () => {
    const { done, last, world } = converge(d, emptyWorld());
    expect(done.map((step) => step.kind).filter((step) => step.endsWith('ControlPlane'))).toEqual([]);
    expect(done.filter((step) => step.kind === 'PublishRender')).toHaveLength(1);
    expect(last.problems.map(({ reason }) => reason)).toEqual(['AwaitingCommit']);
    Object.assign(world.kubernetes.controlPlane!, { carriesFields: true });
    const arrived = converge(d, world);
    expect(arrived.done.map((step) => step.kind)).toEqual(['WriteState']);
    expect(arrived.last).toEqual({ problems: [], steps: [] });
  });

  it('makes a CA also where the lines stand already, and shows them where there is no target yet', () => {
    const world = emptyWorld();
    Object.assign(world.kubernetes.controlPlane!, { carriesFields: true });
    expect(converge(d, world).done.map((step) => step.kind)).toContain('GenerateRoot');
    const without = emptyWorld();
    without.kubernetes.controlPlane = undefined;
    const { done, last } = converge(d, without);
    expect(done.map((step) => step.kind)).toContain('PublishRender');
    expect(last.problems.map(({ reason }) => reason)).toEqual(['ControlPlaneNotFound']);
  });

  it('gives back what it wrote before as soon as others hold it, and not before', () => {
    const { world } = converge(d, emptyWorld());
    const marks = { owner: identity.name, writtenBefore: true };
    Object.assign(world.kubernetes.controlPlane!, marks);
    expect(plan(d, world, start).steps).toEqual([]);
    Object.assign(world.kubernetes.controlPlane!, { carriesFields: true, superfluous: true });
    const { done, last } = converge(d, world);
    expect(done.map((step) => step.kind)).toContain('ReleaseControlPlane');
    expect(last.problems).toEqual([]);
  });

  it('shows nothing before istiod could use it', () => {
    const world = emptyWorld();
    world.kubernetes.injector = noInjector;
    expect(converge(d, world).done.map((step) => step.kind)).not.toContain('PublishRender');
  });

  it("takes no ConfigMap of somebody else's", () => {
    const world = emptyWorld();
    world.kubernetes.rendered = 'foreign';
    const { done, last } = converge(d, world);
    expect(done.map((step) => step.kind)).not.toContain('PublishRender');
    expect(last.problems.map(({ reason }) => reason)).toContain('FieldConflict');
  });

  it('takes down what it showed when it is to write itself', () => {
    const { world } = converge(d, emptyWorld());
    const patch = of(kind);
    const { done, last } = converge(patch, world);
    expect(done.map((step) => step.kind)).toContain('RemoveRender');
    expect(last.problems).toEqual([]);
    expect(world.kubernetes.controlPlane?.owner ?? identity.name).toBe(identity.name);
  });
});
