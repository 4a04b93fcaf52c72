import { expect, test } from '@jest/globals';
import { createMetrics } from './metrics.ts';

const lines = async (metrics: ReturnType<typeof createMetrics>): Promise<string[]> =>
  (await metrics.expose()).body.split('\n').filter((line) => line !== '' && !line.startsWith('#'));

test('metrics appear under their names and labels', async () => {
  const metrics = createMetrics({ processMetrics: false });
  metrics.setRootNotAfter('ns', 'ca', 2_000_000_000);
  metrics.setIntermediateNotAfter('ns', 'ca', 1_900_000_000);
  metrics.setSignatureRequested('ns', 'ca', 1_800_000_000);
  metrics.setSelfSignedFallback('ns', 'ca', true);
  metrics.setIstiodReplicas('ns', 'ca', { Proven: 2, Pending: 1 });
  metrics.setIstiodReplicas('ns', 'ca', { Proven: 3 });
  metrics.setIstiodNotAfter('ns', 'ca', new Map([['istiod-1', 1], ['istiod-2', 2]])); // prettier-ignore
  metrics.setIstiodNotAfter('ns', 'ca', new Map([['istiod-2', 3]]));
  metrics.vaultRequest('sys/health', 200);
  metrics.vaultRequest('sys/health', 'ECONNREFUSED');
  metrics.vaultLogin();
  metrics.reconcileFinished('success', 0.2);
  metrics.reconcileError();
  metrics.queueHooks.onAdd();
  metrics.queueHooks.onRetry();
  metrics.queueHooks.onDepth(7);
  expect(await lines(metrics)).toEqual(
    expect.arrayContaining([
      'istio_vault_ca_root_not_after_seconds{namespace="ns",name="ca"} 2000000000',
      'istio_vault_ca_intermediate_not_after_seconds{namespace="ns",name="ca"} 1900000000',
      'istio_vault_ca_signature_requested_timestamp_seconds{namespace="ns",name="ca"} 1800000000',
      'istio_vault_ca_self_signed_fallback{namespace="ns",name="ca"} 1',
      'istio_vault_ca_istiod_replicas{namespace="ns",name="ca",phase="Proven"} 3',
      'istio_vault_ca_istiod_replicas{namespace="ns",name="ca",phase="Pending"} 0',
      'istio_vault_ca_istiod_not_after_seconds{namespace="ns",name="ca",pod="istiod-2"} 3',
      'istio_vault_ca_vault_requests_total{operation="sys/health",code="200"} 1',
      'istio_vault_ca_vault_requests_total{operation="sys/health",code="ECONNREFUSED"} 1',
      'istio_vault_ca_vault_logins_total 1',
      'istio_vault_ca_reconcile_total{result="success"} 1',
      'istio_vault_ca_reconcile_errors_total 1',
      'istio_vault_ca_reconcile_duration_seconds_count 1',
      'istio_vault_ca_workqueue_depth 7',
      'istio_vault_ca_workqueue_adds_total 1',
      'istio_vault_ca_workqueue_retries_total 1',
      'istio_vault_ca_leader 0',
      'istio_vault_ca_events_dropped_total 0',
    ]),
  );
  expect((await lines(metrics)).filter((line) => line.includes('pod="istiod-1"'))).toEqual([]);
});

test('a resource that is gone leaves no series, its neighbour stays', async () => {
  const metrics = createMetrics({ processMetrics: false });
  for (const name of ['gone', 'stays']) {
    metrics.setRootNotAfter('ns', name, 1);
    metrics.setIntermediateNotAfter('ns', name, 1);
    metrics.setSignatureRequested('ns', name, 1);
    metrics.setSelfSignedFallback('ns', name, false);
    metrics.setIstiodReplicas('ns', name, { Proven: 1 });
    metrics.setIstiodNotAfter('ns', name, new Map([['istiod-1', 1]]));
  }
  metrics.setRootNotAfter('ns', 'stays', undefined);
  metrics.forgetResource('ns', 'gone');
  metrics.forgetResource('ns', 'never-was');
  const left = (await lines(metrics)).filter((line) => line.includes('name='));
  expect(left).toHaveLength(5);
  expect(left.every((line) => line.includes('name="stays"'))).toBe(true);
});

test('two registries do not know each other; process metrics are there unless refused', async () => {
  expect((await createMetrics().expose()).body).toContain('process_resident_memory_bytes');
  expect((await createMetrics().expose()).body).toContain('nodejs_eventloop_lag_seconds');
});
