/**
 * Every write to Vault failing once while a root outside of Vault is taken into use, and every write of the request in the cluster: see
 * `test/faults/each-write.ts`. The other sources, which have fewer steps: `npm run test:faults`.
 */
import { testEachWrite, useWorld } from '../faults/each-write.ts';
import { isKubernetesWrite, type Counted } from '../faults/point.ts';
import { certManager, external } from '../faults/scenarios/index.ts';

const { runner } = useWorld();
const configuration = { product: 'OpenBao', source: 'Bundle', version: 2 } as const;

/** The ConfigMap with the request, created and deleted, and the CertificateRequest. */
const isRequestWrite = (request: Counted): boolean =>
  isKubernetesWrite(request) && /\/(certificaterequests|configmaps)(\/|\?|$)/.test(request.path);

testEachWrite(runner, [external], configuration);
testEachWrite(runner, [certManager], configuration, { side: 'Kubernetes', counts: isRequestWrite, least: 3 });
