/**
 * The handshake with a real istiod under each of Istio's compliance policies, by the Node.js that the image has.
 * @servers istiod
 */
import { afterAll, beforeAll, expect, it, jest } from '@jest/globals';
import { join } from 'node:path';
import { probe } from '../../src/istiod/probe.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { createNamespace, makeTemporaryDir, removeTemporaryDir, sharedStack, startIstiod } from '../stack/index.ts';

jest.setTimeout(60_000);

const { kube } = sharedStack();
const namespace = 'compliance';
const dir = makeTemporaryDir('compliance');
beforeAll(() => createNamespace(kube, namespace));
afterAll(() => removeTemporaryDir(dir));

// https://istio.io/latest/docs/reference/commands/pilot-discovery/, COMPLIANCE_POLICY
it.each(['', 'fips-140-2', 'pqc'])('COMPLIANCE_POLICY=%s', async (policy) => {
  const extraEnv = { COMPLIANCE_POLICY: policy };
  const istiod = await startIstiod({ kube, rootCaDir: join(dir, 'none'), namespace, extraEnv });
  try {
    await istiod.ready();
    const target = { host: '127.0.0.1', port: istiod.securePort, servername: `istiod.${namespace}.svc` };
    const signal = new AbortController().signal;
    expect(await probe(target, { clock: systemClock, timeoutMs: 10_000, signal })).toMatchObject({
      issuer: 'O=cluster.local',
    });
  } finally {
    await istiod.stop();
  }
});
