/** How the API server admits new Pods. It applies webhook configurations, quotas and namespace labels only some time after they were written. */
import { waitFor } from '../stack/index.ts';
import { injectorPrefix } from '../stack/injection.ts';
import type { Kube } from './cluster.ts';

const pod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    name: 'admitted',
    annotations: { [`${injectorPrefix}agent-inject`]: 'true', [`${injectorPrefix}role`]: 'nobody' },
  },
  spec: { containers: [{ name: 'discovery', image: 'none' }] },
};

/**
 * Waits until the API server would inject Vault Agent into a Pod that requests it, would not inject it, or would refuse the Pod with a given
 * message. Creates no Pod.
 * @param how the expected result
 */
export async function podsCome(
  kube: Kube,
  namespace: string,
  how: 'injected' | 'not injected' | RegExp,
): Promise<void> {
  let last = '';
  await waitFor(
    `pods of ${namespace} to come ${String(how)}`,
    async () => {
      const { status, body } = await kube.request('POST', `/api/v1/namespaces/${namespace}/pods?dryRun=All`, pod);
      const { metadata, message } = body as { metadata?: { annotations: Record<string, string> }; message?: string };
      if (status !== 201) {
        last = `HTTP ${status}: ${message ?? ''}`;
        return typeof how !== 'string' && how.test(last);
      }
      const isInjected = metadata?.annotations[`${injectorPrefix}agent-inject-status`] === 'injected';
      last = isInjected ? 'injected' : 'not injected';
      return last === how;
    },
    { timeoutMs: 60_000, log: () => last },
  );
}
