/** A resource that is created, provisioned and deleted again, over and over, and the time that it takes. */
import { expectStatus } from '../stack/http.ts';
import { applyOk, conditionOf, resourcePath, type Resource } from '../support/cluster.ts';
import { makeScene } from '../support/scene.ts';
import type { Stage } from './stage.ts';

const isProvisioned = (resource: Resource): boolean => {
  const condition = conditionOf(resource, 'Provisioned');
  return condition?.status === 'True' && condition.observedGeneration === resource.metadata.generation;
};

export class Provisioning {
  readonly #stage: Stage;
  readonly #namespace: string;
  #count = 0;

  /** @param namespace of the resource; nothing else uses it */
  constructor(stage: Stage, namespace: string) {
    this.#stage = stage;
    this.#namespace = namespace;
  }

  /**
   * Provisions a resource under a new name, with mounts, policy and role of its own: the operator has everything to create. Removes
   * all of it afterwards, so that the servers do not fill up.
   * @param onApply called immediately before the resource is applied
   * @returns milliseconds from the apply until the watch showed condition Provisioned
   * @throws Error if the resource is not provisioned within a minute; the message contains its conditions
   */
  async once(onApply: () => void = () => undefined): Promise<number> {
    const { kube, vault, board } = this.#stage;
    const namespace = this.#namespace;
    this.#count += 1;
    const name = `ca${this.#count}`;
    const { resource } = await makeScene(kube, vault, {
      namespace,
      name,
      spec: {
        root: { mount: `${name}-pki` },
        intermediate: { mount: `${name}-ca` },
        keyStore: { mount: `${name}-kv` },
        policy: { name: `${name}-istioca` },
        kubernetesAuth: { role: `${name}-istiod` },
      },
    });
    onApply();
    const startMs = performance.now();
    await applyOk(kube, resource);
    await board.wait(namespace, name, 'provisioned', (found) => found !== undefined && isProvisioned(found));
    const tookMs = performance.now() - startMs;
    await this.#remove(name);
    return tookMs;
  }

  /** Deletes the resource, which leaves everything as it is (`deletionPolicy: Retain`), then what was created for it. */
  async #remove(name: string): Promise<void> {
    const { kube, vault, board } = this.#stage;
    const namespace = this.#namespace;
    await kube.request('DELETE', resourcePath(namespace, name));
    await board.wait(namespace, name, 'gone', (found) => found === undefined);
    const plane = `/apis/install.tetrate.io/v1alpha1/namespaces/${namespace}/controlplanes/controlplane`;
    expectStatus(await kube.request('DELETE', plane), [200], `delete ${plane}`);
    const paths = [
      ...['pki', 'ca', 'kv'].map((mount) => `sys/mounts/${name}-${mount}`),
      `sys/policies/acl/${name}-istioca`,
      `auth/kubernetes/role/${name}-istiod`,
    ];
    for (const path of paths) expectStatus(await vault.request('DELETE', path), [200, 204], `delete ${path}`);
  }
}
