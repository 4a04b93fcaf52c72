/** Rows of the steps on the control plane and on the ConfigMap that shows what to commit. Pure. */
import * as effects from './simulated-effects.ts';
import type { StepRows } from './step-row.ts';

export const controlPlaneRows: StepRows<
  'ClaimControlPlane' | 'PatchControlPlane' | 'PublishRender' | 'RemoveRender' | 'ReleaseControlPlane'
> = {
  ClaimControlPlane: {
    condition: 'ControlPlanePatched',
    action: 'Update',
    target: 'controlPlane:owner',
    event: 'ControlPlaneClaimed',
    planned: (step) => `Set the owner annotation on ${step.target}`,
    done: (step) => `Set the owner annotation on ${step.target}`,
    rereads: [],
    simulate: effects.onKubernetes,
  },
  PatchControlPlane: {
    condition: 'ControlPlanePatched',
    action: 'Update',
    target: 'controlPlane:fields',
    event: 'ControlPlanePatched',
    planned: (step) => `Write the fields of istiod to ${step.target}`,
    done: (step) => `Wrote the fields of istiod to ${step.target}`,
    rereads: [],
    simulate: effects.onKubernetes,
  },
  PublishRender: {
    condition: 'ControlPlanePatched',
    action: (step) => (step.again ? 'Update' : 'Create'),
    target: (step) => `configmap:${step.name}`,
    event: 'Rendered',
    planned: (step) => `Write what to commit to ConfigMap ${step.name}`,
    done: (step) => `Wrote what to commit to ConfigMap ${step.name}`,
    rereads: [],
    simulate: ({ kubernetes }) => {
      kubernetes.rendered = 'current';
    },
  },
  RemoveRender: {
    condition: 'ControlPlanePatched',
    action: 'Delete',
    target: (step) => `configmap:${step.name}`,
    event: 'RenderRemoved',
    planned: (step) => `Delete ConfigMap ${step.name}: there is nothing to commit`,
    done: (step) => `Deleted ConfigMap ${step.name}: there is nothing to commit`,
    rereads: [],
    simulate: ({ kubernetes }) => {
      kubernetes.rendered = 'none';
    },
  },
  ReleaseControlPlane: {
    condition: 'ControlPlanePatched',
    action: 'Update',
    target: 'controlPlane:fields',
    event: 'ControlPlaneReleased',
    planned: (step) => `Release the fields of istiod on ${step.target}`,
    done: (step) => `Released the fields of istiod on ${step.target}`,
    rereads: [],
    simulate: effects.onKubernetes,
  },
};
