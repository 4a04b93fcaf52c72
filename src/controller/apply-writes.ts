/** Executes the writes of a control plane adapter on the API server. */
import { fieldManager } from '../api/annotations.ts';
import { dig, isObject, type JsonObject } from '../api/json.ts';
import { type ControlPlaneAdapter, type Target, type Write } from '../control-planes/adapter.ts';
import type { KubeClient } from '../kube/client.ts';
import { plainJson } from './report.ts';

/**
 * Executes the writes one after another. Each is guarded by the UID or resourceVersion of the object after the previous write.
 * @throws KubeError with kind `Conflict` if the object changed meanwhile or another field manager owns a field; the causes then name the
 * manager
 */
export async function applyWrites(
  kube: Pick<KubeClient, 'deleteObject' | 'patchObject'>,
  gvr: ControlPlaneAdapter['gvr'],
  namespace: string | undefined,
  { object, spec }: Pick<Target, 'object' | 'spec'>,
  writes: Write[],
): Promise<void> {
  const uid = dig(object, 'metadata', 'uid');
  let resourceVersion = dig(object, 'metadata', 'resourceVersion');
  const guarded = (body: JsonObject, guard: JsonObject) => {
    const metadata = dig(body, 'metadata');
    return plainJson({ ...body, metadata: { ...(isObject(metadata) ? metadata : {}), ...guard } });
  };
  for (const write of writes) {
    switch (write.kind) {
      case 'delete':
        await kube.deleteObject(gvr, namespace, spec.name, {
          uid: String(uid),
          resourceVersion: String(resourceVersion),
        });
        break;
      case 'merge':
      case 'apply': {
        const [body, guard, type] =
          write.kind === 'merge'
            ? ([write.patch, { resourceVersion }, 'merge'] as const)
            : ([write.object, write.exact ? { uid, resourceVersion } : { uid }, 'apply'] as const);
        const patch = { type, fieldManager };
        const after = await kube.patchObject(gvr, namespace, spec.name, guarded(body, guard), patch);
        resourceVersion = dig(after, 'metadata', 'resourceVersion');
      }
    }
  }
}
