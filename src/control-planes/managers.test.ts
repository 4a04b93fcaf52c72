import { describe, expect, it } from '@jest/globals';
import { managerOf } from './managers.ts';

const path = ['spec', 'values', 'pilot'];
const fieldsV1 = { 'f:spec': { 'f:values': { 'f:pilot': { 'f:env': { 'f:A': {} } } } } };
const entry = (manager: string, over: Record<string, unknown> = {}) => ({
  manager,
  operation: 'Update',
  time: '2030-01-01T00:00:00Z',
  fieldsV1,
  ...over,
});
const object = (entries: unknown[], metadata: Record<string, unknown> = {}) => ({
  metadata: { managedFields: entries, ...metadata },
});

describe('who else manages a field', () => {
  const cases: [string, ReturnType<typeof object>, ReturnType<typeof managerOf>][] = [
    ['nobody', object([]), undefined],
    ['only this operator', object([entry('istio-vault-ca')]), undefined],
    ['Argo CD by its name', object([entry('argocd-controller')]), { name: 'argocd-controller', tool: 'Argo CD' }],
    [
      'Argo CD by its mark',
      object([entry('custom')], { annotations: { 'argocd.argoproj.io/tracking-id': 'x' } }),
      { name: 'custom', tool: 'Argo CD' },
    ],
    ['Flux by its name', object([entry('kustomize-controller')]), { name: 'kustomize-controller', tool: 'Flux' }],
    [
      'Flux by its mark',
      object([entry('custom')], { labels: { 'kustomize.toolkit.fluxcd.io/name': 'mesh' } }),
      { name: 'custom', tool: 'Flux' },
    ],
    ['a HelmRelease', object([entry('helm-controller')]), { name: 'helm-controller', tool: 'Flux Helm' }],
    [
      'Helm by its mark',
      object([entry('custom')], { labels: { 'app.kubernetes.io/managed-by': 'Helm' } }),
      { name: 'custom', tool: 'Helm' },
    ],
    ['a person', object([entry('kubectl-edit')]), { name: 'kubectl-edit' }],
    [
      'the one that wrote last',
      object([entry('first'), entry('last', { time: '2030-01-02T00:00:00Z' }), entry('istio-vault-ca')]),
      { name: 'last' },
    ],
    ['the status only', object([entry('controller', { subresource: 'status' })]), undefined],
    ['another field', object([entry('other', { fieldsV1: { 'f:spec': { 'f:hub': {} } } })]), undefined],
    [
      'a map above it, of which others hold what is in it',
      object([entry('other', { fieldsV1: { 'f:spec': { 'f:values': {} } } })]),
      undefined,
    ],
  ];
  it.each(cases)('%s', (_, given, expected) => expect(managerOf(given, path)).toEqual(expected));
});
