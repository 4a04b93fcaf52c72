/**
 * A mesh that works with a CA outside of Vault moves to a root in Vault, and no workload may notice: what signs is imported, then the root is rotated.
 * Minutes: workload certificates must run out in between.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it, jest } from '@jest/globals';
import { OfflineCa } from '../../support/offline-ca.ts';
import { useRotatingMesh } from '../../support/rotating-mesh.ts';

jest.setTimeout(900_000);

const { annotate, bothRoots, inPhase, kill, meshRoots, meshWithout, ready, until, work } = useRotatingMesh();

/** Data of a Secret `cacerts`: an intermediate under a root of somebody else. */
function plugged(): Record<string, string> {
  const root = new OfflineCa('Corporate Root');
  const ca = new OfflineCa('Corporate Istio CA', root, { constraints: 'critical,CA:TRUE,pathlen:0', days: 1000 });
  return {
    'ca-cert.pem': ca.certificate,
    'ca-key.pem': readFileSync(ca.keyFile, 'utf8'),
    'cert-chain.pem': ca.certificate,
    'root-cert.pem': root.certificate,
  };
}

describe.each([
  ['istio-ca-secret', undefined],
  ['cacerts', plugged],
])('from %s', (secret, make) => {
  const imports = { source: 'Import', importRef: { secretRef: { name: secret } } };

  it('to a root in Vault', async () => {
    const namespace = `move-${secret}`;
    const apply = await meshWithout(namespace, make?.());
    const [before = ''] = await meshRoots(namespace);
    const workloads = await work(namespace);
    await apply(imports);
    const imported = await ready(namespace);
    expect(imported.status?.root?.fingerprint).toBe(before);
    expect(await meshRoots(namespace)).toEqual([before]);
    await apply({});
    await annotate(namespace, { 'istiovaultca.io/rotate-root': 'please' });
    await inPhase(namespace, 'Distributing');
    await bothRoots(namespace);
    await inPhase(namespace, 'Switching');
    await inPhase(namespace, 'Retiring');
    await inPhase(namespace, undefined);
    const end = await ready(namespace);
    expect(end.status?.root?.fingerprint).not.toBe(before);
    expect(await meshRoots(namespace)).toEqual([end.status?.root?.fingerprint]);
    await workloads.renewed();
    await workloads.stop();
    expect(workloads.failures).toEqual([]);
  });

  it('killed in each phase and rolled back from the second but last, it ends where it began', async () => {
    const namespace = `stay-${secret}`;
    const apply = await meshWithout(namespace, make?.());
    const [before = ''] = await meshRoots(namespace);
    const workloads = await work(namespace);
    await apply(imports);
    await ready(namespace);
    await apply({});
    await annotate(namespace, { 'istiovaultca.io/rotate-root': 'please' });
    await inPhase(namespace, 'Distributing');
    await kill();
    await inPhase(namespace, 'Switching');
    await kill();
    await apply(imports);
    await annotate(namespace, { 'istiovaultca.io/rollback-rotation': 'no' });
    await until('the way back', namespace, ({ status }) => status?.rotation?.phase !== 'Switching');
    await kill();
    await inPhase(namespace, undefined);
    const end = await ready(namespace);
    expect(end.status?.root?.fingerprint).toBe(before);
    expect(await meshRoots(namespace)).toEqual([before]);
    await workloads.renewed();
    await workloads.stop();
    expect(workloads.failures).toEqual([]);
  });
});
