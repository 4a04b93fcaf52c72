/**
 * Vault fails, in every way it can, and comes back. Each outage has a reason of its own; what was made stays as it is; the
 * operator goes on by itself, and logs in anew only where its token is gone. Servers of this file's own, one of each product.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { products, sharedStack, startVault, waitFor, type VaultServer } from '../stack/index.ts';
import {
  applyOk,
  conditionOf,
  getResource,
  requestReconcile,
  resourcePath,
  waitForCondition,
  type Resource,
} from '../support/cluster.ts';
import { eventsOf } from '../support/events.ts';
import { useOperator } from '../support/harness.ts';
import { lastGood, logins, statusWrites, tokensOf, writesFor } from '../support/outage.ts';
import { grantLongTokens, grantOperator, makeScene, prepareVault, type Scene } from '../support/scene.ts';
import { startService, type Service } from '../support/service.ts';

const { kube } = sharedStack();
const { operator } = useOperator();

interface Stage {
  vault: VaultServer;
  service: Service;
  /** Its token outlives every test here. */
  scene: Scene;
}
const stages: Stage[] = [];

/** On both products, side by side. */
const everywhere = async (work: (stage: Stage) => Promise<void>): Promise<void> => {
  await Promise.all(stages.map(work));
};

beforeAll(async () => {
  for (const product of products) {
    const vault = await startVault(product);
    const service = await startService([Number(new URL(vault.address).port)]);
    await prepareVault(kube, vault);
    const spec = { vault: { address: service.address } };
    const namespace = `outage-${product}`.toLowerCase();
    const scene = await makeScene(kube, vault, { namespace, spec });
    await grantLongTokens(scene);
    stages.push({ vault, service, scene });
  }
  await everywhere(async ({ scene: { namespace, resource } }) => {
    await applyOk(kube, resource);
    await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });
});

afterAll(async () => {
  for (const { vault, service } of stages) {
    await service.stop();
    await vault.stop();
  }
});

let loginsBefore = 0;
beforeEach(async () => {
  // so that the end of the last outage is not part of the next one
  await everywhere(async ({ scene }) => {
    await look(scene);
  });
  loginsBefore = await logins(operator());
});

/**
 * On both products, side by side, each with one more resource, whose token lives for ten seconds, and is renewed. It is gone
 * afterwards: in any other outage it would log in anew now and then.
 */
async function everywhereShort(
  name: string,
  work: (stage: Omit<Stage, 'scene'> & { short: Scene }) => Promise<void>,
): Promise<void> {
  const shorts = new Map<Stage, Scene>();
  await everywhere(async (stage) => {
    const { vault, service, scene } = stage;
    const spec = { vault: { address: service.address } };
    const short = await makeScene(kube, vault, { namespace: `${scene.namespace}-${name}`, spec });
    shorts.set(stage, short);
    await applyOk(kube, short.resource);
    await waitForCondition(kube, short.namespace, 'istioca', { type: 'Provisioned', status: 'True' });
  });
  loginsBefore = await logins(operator());
  await everywhere((stage) => work({ ...stage, short: shorts.get(stage)! }));
  for (const { namespace } of shorts.values()) await kube.request('DELETE', resourcePath(namespace, 'istioca'));
  await waitFor('them to be gone', async () => {
    const found = await Promise.all([...shorts.values()].map((short) => getResource(kube, short.namespace, 'istioca')));
    return found.every(({ metadata }) => metadata.uid === undefined);
  });
}
const loginsSince = async (): Promise<number> => (await logins(operator())) - loginsBefore;

let asked = 0;
/** As a person or another controller would: else the outage is seen at the next resync, ten minutes later. */
const look = (scene: Scene): Promise<Resource> =>
  requestReconcile(kube, scene.namespace, 'istioca', String((asked += 1)));

const answersAgain = (scene: Scene): Promise<Resource> =>
  waitForCondition(kube, scene.namespace, 'istioca', { type: 'VaultReady', status: 'True' });

const conditionsOf = (resource: Resource): string[] =>
  (resource.status?.conditions ?? []).map((c) => `${c.type}=${c.status} ${c.reason}: ${c.message}`);

/** Reasons of a scene's Events. */
async function told({ namespace }: Scene): Promise<Set<string>> {
  return new Set((await eventsOf(kube, namespace)).map(({ reason }) => reason));
}

/** What a user sees while it lasts: the reason, that it goes on by itself, and what was there last. */
async function seen(scene: Scene, reason: string, before: Resource): Promise<Resource> {
  await look(scene);
  const what = { type: 'VaultReady', status: 'False', reason };
  const now = await waitForCondition(kube, scene.namespace, 'istioca', what);
  expect(conditionOf(now, 'Ready')).toMatchObject({ status: 'False', reason });
  expect(conditionOf(now, 'Reconciling')).toMatchObject({ status: 'True', reason });
  expect(conditionOf(now, 'Stalled')).toBeUndefined();
  for (const stage of ['RootReady', 'IntermediateReady', 'KeyStored', 'AccessReady'])
    expect(conditionOf(now, stage)).toMatchObject({ status: 'Unknown', reason });
  const { root, intermediate, history, controlPlane } = now.status ?? {};
  expect({ root, intermediate, history, controlPlane }).toEqual({
    root: before.status?.root,
    intermediate: before.status?.intermediate,
    history: before.status?.history,
    controlPlane: before.status?.controlPlane,
  });
  return now;
}

/** An outage from its beginning to its end. Nobody touches the resource from `end` on. */
async function outage(
  scene: Scene,
  {
    begin,
    reason,
    meanwhile,
    end,
  }: {
    begin: () => Promise<unknown>;
    reason: string;
    meanwhile?: (shown: Resource) => Promise<unknown>;
    end: () => Promise<unknown>;
  },
): Promise<void> {
  const before = { good: await lastGood(scene), writes: await writesFor(scene) };
  const resource = await getResource(kube, scene.namespace, 'istioca');
  const statusesBefore = await statusWrites(kube, scene.namespace);
  try {
    await begin();
    const shown = await seen(scene, reason, resource);
    await meanwhile?.(shown);
  } finally {
    // also after a failure, which is not to fail the tests that follow
    await end();
  }
  const after = await answersAgain(scene);
  expect(conditionsOf(after)).toEqual(conditionsOf(resource));
  expect(await lastGood(scene)).toEqual(before.good);
  expect(await writesFor(scene)).toEqual(before.writes);
  // one when it begins, one when it ends, and the answers to those who asked: not one a try
  expect((await statusWrites(kube, scene.namespace)) - statusesBefore).toBeLessThanOrEqual(12);
}

describe('a server that does not serve', () => {
  it('Sealed, and goes on with the token it has', async () => {
    await everywhere(async ({ vault, scene }) => {
      await outage(scene, { begin: () => vault.seal(), reason: 'Sealed', end: () => vault.unseal() });
    });
    expect(await loginsSince()).toBe(0);
  });

  it('Unreachable for longer than its token lives: one login', async () => {
    await everywhereShort('short', async ({ vault, service, short }) => {
      await outage(short, {
        begin: () => service.refuse(),
        reason: 'Unreachable',
        meanwhile: async (shown) => {
          expect(conditionOf(shown, 'Ready')?.message).toMatch(
            /sys\/health: ECONNRE(FUSED|SET); check spec\.vault\.address/,
          );
          const { namespace } = short;
          await waitFor('the token to run out', async () => (await tokensOf(vault, namespace)).length === 0);
        },
        end: () => service.restore(),
      });
    });
    expect(await loginsSince()).toBe(stages.length);
  });

  it('Unreachable too when it takes connections and answers nothing', async () => {
    await everywhere(async ({ service, scene }) => {
      await outage(scene, {
        begin: () => service.swallow(),
        reason: 'Unreachable',
        meanwhile: (shown) => {
          expect(conditionOf(shown, 'Ready')?.message).toContain('ETIMEDOUT');
          return Promise.resolve();
        },
        end: () => service.restore(),
      });
    });
    expect(await loginsSince()).toBe(0);
  });

  it('slow is not an outage', async () => {
    await everywhere(async ({ service, scene, vault }) => {
      const good = await lastGood(scene);
      service.slow(500);
      await vault.request('DELETE', `sys/policies/acl/${scene.namespace}-istioca`);
      const now = await look(scene);
      expect(conditionOf(now, 'Provisioned')).toMatchObject({ status: 'True' });
      expect((await vault.request('GET', `sys/policies/acl/${scene.namespace}-istioca`)).status).toBe(200);
      await service.restore();
      expect(await lastGood(scene)).toEqual(good);
    });
    expect(await loginsSince()).toBe(0);
  });
});

describe('a token that is worth nothing any more', () => {
  it('revoked: one login, at once', async () => {
    await everywhere(async ({ vault, scene }) => {
      const before = { good: await lastGood(scene), writes: await writesFor(scene) };
      const conditions = conditionsOf(await getResource(kube, scene.namespace, 'istioca'));
      for (const accessor of await tokensOf(vault, scene.namespace))
        await vault.request('POST', 'auth/token/revoke-accessor', { accessor });
      await look(scene);
      expect(conditionsOf(await answersAgain(scene))).toEqual(conditions);
      for (let i = 0; i < 3; i += 1) await look(scene);
      expect(await tokensOf(vault, scene.namespace)).toHaveLength(1);
      expect((await told(scene)).has('Forbidden')).toBe(false);
      expect(await lastGood(scene)).toEqual(before.good);
      expect(await writesFor(scene)).toEqual(before.writes);
    });
    expect(await loginsSince()).toBe(stages.length);
  });

  it('Forbidden while its policy is taken away, with paths and capabilities: at most one login, however often it looks', async () => {
    await everywhereShort('forbidden', async ({ vault, short }) => {
      const role = `operator-${short.namespace}`;
      await outage(short, {
        begin: () => {
          const policy = 'path "sys/capabilities-self" {\n  capabilities = ["update"]\n}\n';
          return vault.request('PUT', `sys/policies/acl/${role}`, { policy });
        },
        reason: 'Forbidden',
        meanwhile: async (shown) => {
          expect(conditionOf(shown, 'Ready')?.message).toContain(`${short.namespace}-pki`);
          for (let i = 0; i < 5; i += 1) await look(short);
          await vault.request('DELETE', `sys/policies/acl/${role}`);
          const gone = conditionOf(await look(short), 'Ready');
          expect(gone?.reason).toBe('Forbidden');
          expect(gone?.message).toContain('or the policy is gone');
        },
        end: () => grantOperator(vault, role, short.namespace, short.resource['spec'] as Scene['resource']),
      });
    });
    expect(await loginsSince()).toBe(stages.length);
  });
});

describe('a token that somebody gave', () => {
  const namespaceOf = ({ vault }: Stage) => `outage-${vault.product}-given`.toLowerCase();
  const policyOf = (stage: Stage) => `operator-${namespaceOf(stage)}`;
  const given = new Map<Stage, { scene: Scene; token: string }>();

  /** Another token, in Vault and in the Secret. */
  async function give(stage: Stage, policies = [policyOf(stage)]): Promise<string> {
    const namespace = namespaceOf(stage);
    const made = await stage.vault.request('POST', 'auth/token/create', { policies, ttl: '1h' });
    const token = (made.body as { auth: { client_token: string } }).auth.client_token;
    await applyOk(kube, {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'istio-vault-ca-token', namespace },
      data: { token: Buffer.from(token).toString('base64') },
    });
    return token;
  }
  const sceneOf = (stage: Stage): Scene => given.get(stage)!.scene;
  const revoke = (stage: Stage) => stage.vault.request('POST', 'auth/token/revoke', { token: given.get(stage)!.token });
  const replace = async (stage: Stage, policies?: string[]) => {
    given.set(stage, { scene: sceneOf(stage), token: await give(stage, policies) });
  };

  beforeAll(async () => {
    await everywhere(async (stage) => {
      const auth = { method: 'Token', kubernetes: undefined, token: { secretRef: { name: 'istio-vault-ca-token' } } };
      const spec = { vault: { address: stage.service.address, auth } };
      const scene = await makeScene(kube, stage.vault, { namespace: namespaceOf(stage), spec });
      given.set(stage, { scene, token: await give(stage) });
      await applyOk(kube, scene.resource);
      await waitForCondition(kube, scene.namespace, 'istioca', { type: 'Provisioned', status: 'True' });
    });
  });

  it('and is revoked is LoginFailed and names the Secret, and never a question of rights; another one in it ends that', async () => {
    await everywhere(async (stage) => {
      const scene = sceneOf(stage);
      await outage(scene, {
        begin: () => revoke(stage),
        reason: 'LoginFailed',
        meanwhile: async (shown) => {
          const message = conditionOf(shown, 'Ready')?.message ?? '';
          expect(message).toContain('Secret istio-vault-ca-token (key token) was revoked or has run out');
          expect(message).not.toContain(given.get(stage)!.token);
          // Vault tells a token that it does not know from one that may not; OpenBao does not
          expect(message.includes('policy default')).toBe(stage.vault.product === 'OpenBao');
          for (let i = 0; i < 3; i += 1)
            expect(conditionOf(await look(scene), 'VaultReady')?.reason).toBe('LoginFailed');
        },
        end: () => replace(stage),
      });
      const reasons = await told(scene);
      expect([reasons.has('LoginFailed'), reasons.has('Forbidden')]).toEqual([true, false]);
    });
    expect(await loginsSince()).toBe(0);
  });

  it('and may do nothing is Forbidden with paths, however often it looks; once it is revoked too, LoginFailed', async () => {
    await everywhere(async (stage) => {
      const scene = sceneOf(stage);
      await outage(scene, {
        begin: () => stage.vault.request('DELETE', `sys/policies/acl/${policyOf(stage)}`),
        reason: 'Forbidden',
        meanwhile: async (shown) => {
          expect(conditionOf(shown, 'Ready')?.message).toContain(`${scene.namespace}-pki`);
          for (let i = 0; i < 5; i += 1) expect(conditionOf(await look(scene), 'VaultReady')?.reason).toBe('Forbidden');
          await replace(stage, ['default']);
          for (let i = 0; i < 2; i += 1) expect(conditionOf(await look(scene), 'VaultReady')?.reason).toBe('Forbidden');
          await revoke(stage);
          expect(conditionOf(await look(scene), 'VaultReady')?.reason).toBe('LoginFailed');
        },
        end: async () => {
          const spec = scene.resource['spec'] as Scene['resource'];
          await grantOperator(stage.vault, policyOf(stage), scene.namespace, spec);
          await replace(stage);
        },
      });
    });
  });
});

describe('a rate limit quota', () => {
  const quota = (vault: VaultServer, limits: { rate: number; interval: string; path: string }) =>
    vault.request('POST', 'sys/quotas/rate-limit/outage', limits);

  it('that lets a few requests through is waited for', async () => {
    await everywhere(async ({ vault, scene }) => {
      const good = await lastGood(scene);
      expect((await quota(vault, { rate: 2, interval: '1s', path: `${scene.namespace}-ca` })).status).toBe(204);
      expect(conditionOf(await look(scene), 'VaultReady')).toMatchObject({ status: 'True' });
      await vault.request('DELETE', 'sys/quotas/rate-limit/outage');
      expect(await lastGood(scene)).toEqual(good);
    });
    expect(await loginsSince()).toBe(0);
  });

  it('RateLimited when it lets none through', async () => {
    await everywhere(async ({ vault, scene }) => {
      await outage(scene, {
        begin: () => quota(vault, { rate: 1, interval: '1h', path: `${scene.namespace}-ca` }),
        reason: 'RateLimited',
        end: () => vault.request('DELETE', 'sys/quotas/rate-limit/outage'),
      });
    });
    expect(await loginsSince()).toBe(0);
  });
});
