/**
 * A real cluster of three nodes with integrated storage, starting uninitialized: its leader is killed, its quorum is lost, all nodes are
 * restarted. Two resources use it: one through a Service that selects any node, one through the Service of the active node.
 */
import { afterAll, describe, expect, it } from '@jest/globals';
import { sharedStack, waitFor, type Product, type VaultServer } from '../stack/index.ts';
import { startRaft, type RaftCluster, type RaftNode } from '../stack/raft.ts';
import { vaultClient } from '../stack/vault.ts';
import { applyOk, conditionOf, requestReconcile, waitForCondition, type Resource } from './cluster.ts';
import { useOperator } from './harness.ts';
import { carriedOut, lastGood, logins, tokensOf, writesFor } from './outage.ts';
import { grantOperator, makeScene, prepareVault, type Scene } from './scene.ts';
import { startService, type Service } from './service.ts';

const { kube } = sharedStack();

let asked = 0;
const look = (scene: Scene): Promise<Resource> =>
  requestReconcile(kube, scene.namespace, 'istioca', String((asked += 1)));

/** Polls until the reason is present: a cluster does not notice a killed leader or a restarted node at once. */
async function seenInTime(scene: Scene, reason: string): Promise<void> {
  const now = await waitFor(
    `${scene.namespace} to show ${reason}`,
    async () => {
      const seen = await look(scene);
      return conditionOf(seen, 'VaultReady')?.reason === reason && seen;
    },
    { timeoutMs: 90_000, intervalMs: 1_000 },
  );
  expect(conditionOf(now, 'Ready')).toMatchObject({ status: 'False', reason });
  expect(conditionOf(now, 'Reconciling')).toMatchObject({ status: 'True', reason });
  expect(now.status?.intermediate).toBeDefined();
}

const answersAgain = (scene: Scene): Promise<Resource> =>
  waitForCondition(kube, scene.namespace, 'istioca', { type: 'VaultReady', status: 'True' });

/** The tests, in order: each starts with the cluster as the previous test left it. */
export function testRaftOutages(product: Product): void {
  const { operator } = useOperator();
  describe(product, () => {
    let cluster: RaftCluster;
    let any: Service;
    let active: Service;
    let vault: Omit<VaultServer, 'stop'>;
    let scenes: Scene[] = [];
    let stopped: RaftNode[] = [];
    const stops: (() => Promise<void>)[] = [];

    const state = async (): Promise<unknown> => ({
      good: await Promise.all(scenes.map(lastGood)),
      writes: await Promise.all(scenes.map(writesFor)),
    });
    const tokens = () => Promise.all(scenes.map(({ namespace }) => tokensOf(vault, namespace)));
    /** Routes the Service of the active node to it, as the labels of the Pods would, and returns the node. */
    const followLeader = async (): Promise<RaftNode> => {
      const leader = await cluster.active();
      active.route([leader.port]);
      return leader;
    };

    afterAll(async () => {
      for (const stop of stops.reverse()) await stop();
    });

    it('applied before there is a server: Uninitialized, then it provisions by itself, through standbys too', async () => {
      cluster = await startRaft(product, 3);
      stops.push(() => cluster.stop());
      const ports = cluster.nodes.map(({ port }) => port);
      // the standbys first
      any = await startService([...ports].reverse());
      active = await startService(ports.slice(0, 1));
      stops.push(
        () => any.stop(),
        () => active.stop(),
      );
      vault = vaultClient(cluster.facts(active.address));
      const make = (which: string, service: Service) =>
        makeScene(kube, vault, {
          namespace: `raft-${which}-${product}`.toLowerCase(),
          spec: { vault: { address: service.address } },
          withoutRole: true,
        });
      scenes = [await make('any', any), await make('active', active)];
      for (const { namespace, resource } of scenes) {
        await applyOk(kube, resource);
        await waitForCondition(kube, namespace, 'istioca', {
          type: 'VaultReady',
          status: 'False',
          reason: 'Uninitialized',
        });
      }
      await cluster.initialize();
      vault = vaultClient(cluster.facts(active.address));
      await prepareVault(kube, vault);
      for (const scene of scenes) {
        Object.assign(scene, { vault });
        await grantOperator(
          vault,
          `operator-${scene.namespace}`,
          scene.namespace,
          scene.resource['spec'] as Scene['resource'],
        );
      }
      for (const { namespace } of scenes)
        await vault.request('POST', `auth/kubernetes/role/operator-${namespace}`, { token_ttl: '1h' });
      for (const { namespace } of scenes)
        await waitForCondition(kube, namespace, 'istioca', { type: 'Provisioned', status: 'True' }, 90_000);
      // responses of standby nodes can be outdated: the operator must not take them for the present state or repeat a write
      const [throughAny, throughActive] = await Promise.all(scenes.map(carriedOut));
      expect(throughAny).toEqual(throughActive);
      const lines = operator().log().split('\n');
      const ofThese = lines.filter((line) => scenes.some(({ namespace }) => line.includes(namespace)));
      expect(ofThese.filter((line) => /VaultError|nothing of it is to be seen/.test(line))).toEqual([]);
      expect((await tokens()).map((ofOne) => ofOne.length)).toEqual([1, 1]);
    });

    it('its leader killed: another one leads, nothing else changes', async () => {
      const leader = await followLeader();
      const before = { state: await state(), tokens: await tokens(), logins: await logins(operator()) };
      await leader.kill();
      stopped = [leader];
      await Promise.all(scenes.map(look));
      any.route(cluster.nodes.filter((node) => node !== leader).map(({ port }) => port));
      await followLeader();
      await Promise.all(scenes.map(answersAgain));
      await Promise.all(scenes.map(look));
      expect({ state: await state(), tokens: await tokens(), logins: await logins(operator()) }).toEqual(before);
    });

    it('without a quorum: Standby through any node, Unreachable where none is active; goes on when it is back', async () => {
      const leader = await followLeader();
      const before = { state: await state(), tokens: await tokens() };
      const last = cluster.nodes.find((node) => node !== leader && !stopped.includes(node));
      const [first] = stopped;
      if (!last || !first) throw new Error('no node is left');
      const [one, other] = scenes;
      if (!one || !other) throw new Error('no scenes');
      // a standby node of OpenBao would still answer requests with the token
      for (const accessor of before.tokens[0] ?? [])
        await vault.request('POST', 'auth/token/revoke-accessor', { accessor });
      await leader.kill();
      any.route([last.port]);
      active.route([]);
      await Promise.all([seenInTime(one, 'Standby'), seenInTime(other, 'Unreachable')]);
      await first.start();
      await first.unseal();
      await followLeader();
      await Promise.all(scenes.map(answersAgain));
      expect(await state()).toEqual(before.state);
      // one new token for the revoked one, however many requests failed; the other token is kept
      const [ofAny, ofActive] = await tokens();
      expect(ofAny).toHaveLength(1);
      expect(ofActive).toEqual(before.tokens[1]);
      stopped = [leader];
    });

    it('all of it restarted on its storage: Unreachable, Sealed, and it goes on once it is unsealed', async () => {
      const before = { state: await state(), tokens: await tokens(), logins: await logins(operator()) };
      for (const node of cluster.nodes) await node.kill();
      any.route(cluster.nodes.map(({ port }) => port));
      await Promise.all(scenes.map((scene) => seenInTime(scene, 'Unreachable')));
      await Promise.all(cluster.nodes.map((node) => node.start()));
      await Promise.all(scenes.map((scene) => seenInTime(scene, 'Sealed')));
      await Promise.all(cluster.nodes.map((node) => node.unseal()));
      await followLeader();
      await Promise.all(scenes.map(answersAgain));
      expect({ state: await state(), tokens: await tokens(), logins: await logins(operator()) }).toEqual(before);
    });
  });
}
