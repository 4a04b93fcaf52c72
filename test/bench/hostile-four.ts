/** Four resources whose Vaults hang, answer without end, with too much or with something else. They are created and deleted together. */
import { waitFor } from '../stack/index.ts';
import { applyOk, resourcePath, type Json } from '../support/cluster.ts';
import { startHostileVault, type HostileVault, type Hostility } from '../support/hostile-vault.ts';
import { makeScene } from '../support/scene.ts';
import type { RunOptions } from './scenario.ts';
import type { Stage } from './stage.ts';

interface Hostile {
  readonly hostility: Hostility;
  readonly server: HostileVault;
  readonly namespace: string;
  readonly resource: Json;
}

const hostilities: readonly Hostility[] = ['silent', 'trickling', 'huge', 'wrong'];
const name = 'istioca';

/** Whether requests hang until the operator gives them up. */
const hangs = ({ hostility }: Hostile): boolean => hostility === 'silent' || hostility === 'trickling';

/** Requests at a server that it has neither answered nor lost. */
const hanging = ({ server: { requests } }: Hostile): number => requests.received - requests.ended;

export class HostileFour {
  readonly #stage: Stage;
  readonly #four: readonly Hostile[];
  #requested = 0;

  private constructor(stage: Stage, four: readonly Hostile[]) {
    this.#stage = stage;
    this.#four = four;
  }

  /** Starts the servers, each with a namespace of its own. The resources are not there yet. */
  static async start(stage: Stage, { cleanup }: Pick<RunOptions, 'cleanup'>): Promise<HostileFour> {
    const four: Hostile[] = [];
    for (const hostility of hostilities) {
      const server = cleanup.add(await startHostileVault(hostility));
      const namespace = `hostile-${hostility}`;
      const { address, caPem } = server;
      const vault = { ...stage.vault, address, caPem };
      const { resource } = await makeScene(stage.kube, vault, { namespace, withoutRole: true });
      four.push({ hostility, server, namespace, resource });
    }
    return new HostileFour(stage, four);
  }

  /** Creates the four resources, and waits until the requests that hang do so. */
  async create(): Promise<void> {
    for (const { resource } of this.#four) await applyOk(this.#stage.kube, resource);
    await waitFor('the requests that hang', () => this.#four.filter(hangs).every((one) => hanging(one) > 0));
  }

  /**
   * Requests a reconcile of the two that hang, so that the next one follows immediately rather than after a back-off. The operator retries
   * the other two at its own intervals: a request for them would add work, but nothing that hangs.
   */
  async keepHanging(): Promise<void> {
    this.#requested += 1;
    const annotations = { 'istiovaultca.io/reconcile-requested-at': String(this.#requested) };
    for (const { namespace } of this.#four.filter(hangs))
      await this.#stage.kube.request('PATCH', resourcePath(namespace, name), { metadata: { annotations } });
  }

  /** Deletes the four resources, and waits until nothing is left of their requests. */
  async delete(): Promise<void> {
    const { kube, board } = this.#stage;
    for (const { namespace } of this.#four) await kube.request('DELETE', resourcePath(namespace, name));
    for (const { namespace } of this.#four) await board.wait(namespace, name, 'gone', (found) => found === undefined);
    await waitFor('the requests to end', () => this.#four.every((one) => hanging(one) === 0));
  }

  /** The number of requests that hang now, at all four servers. */
  hanging(): number {
    return this.#four.reduce((sum, one) => sum + hanging(one), 0);
  }

  /** The number of requests that each server has received, by its hostility. */
  received(): [Hostility, number][] {
    return this.#four.map(({ hostility, server }) => [hostility, server.requests.received]);
  }
}
