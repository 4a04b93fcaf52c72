/** Informers for Kubernetes resources: connects the supervisor in `src/runtime/informer.ts` with the client and client-node's Watch. */
import { Watch, type KubeConfig } from '@kubernetes/client-node';
import type { Gvr } from '../api/gvr.ts';
import type { JsonObject } from '../api/json.ts';
import { grantedBy, missingPermission, permissionOn, type Component } from '../api/permissions.ts';
import type { Logger } from '../observability/logger.ts';
import { createBackoff, type Random } from '../runtime/backoff.ts';
import type { Clock } from '../runtime/clock.ts';
import { superviseInformer, type InformerHandle, type ObjectMetadata } from '../runtime/informer.ts';
import type { KubeClient } from './client.ts';
import { isKubeError, KubeError } from './errors.ts';
import { resourcePath } from './resources.ts';

/** A Kubernetes object in the cache of an informer. Callers must not change it. */
type CachedObject = JsonObject & {
  metadata?: { name?: string; namespace?: string; resourceVersion?: string };
};

export type ResourceInformer = InformerHandle<CachedObject>;

interface ResourceInformerOptions {
  gvr: Gvr;
  /** undefined for all namespaces. */
  namespace?: string | undefined;
  labelSelector?: string | undefined;
  onKey: (metadata: ObjectMetadata) => void;
  /** Interval of full lists, in milliseconds; default 10 minutes. */
  relistMs?: number;
  /** Interval of checks for a resource type that is not served, in milliseconds; default 30 s. */
  missingRetryMs?: number;
  /** The component of the deployment that grants the permissions; default: the type of the objects determines it. */
  grantedBy?: Component;
}

/** Starts an informer. */
export type StartInformer = (options: ResourceInformerOptions) => ResourceInformer;

/** What all informers of a process have in common. */
export interface InformerFactoryOptions {
  kubeConfig: KubeConfig;
  client: Pick<KubeClient, 'listCollection'>;
  clock: Clock;
  random: Random;
  logger: Logger;
}

export function createInformerFactory(shared: InformerFactoryOptions): StartInformer {
  const { kubeConfig, client, clock, random, logger } = shared;
  return ({ gvr, namespace, labelSelector, onKey, relistMs, missingRetryMs, grantedBy: component }) => {
    /** Returns the error; instead of one about a missing permission, one whose message says what grants it. */
    const explained = (error: unknown, verb: 'list' | 'watch'): unknown => {
      const denied = isKubeError(error)
        ? error.permission !== undefined
        : (error as { statusCode?: unknown } | null)?.statusCode === 403; // client-node's Watch keeps only the status
      if (!denied) return error;
      const permission = permissionOn(verb, gvr, namespace);
      const remedy = component && grantedBy(component);
      return new KubeError(missingPermission(permission, remedy), { kind: 'Forbidden', status: 403, permission });
    };
    const watch = new Watch(kubeConfig);
    return superviseInformer<CachedObject>({
      path: resourcePath(gvr, namespace),
      list: () =>
        client.listCollection(gvr, namespace, { labelSelector }).catch((error: unknown) => {
          throw explained(error, 'list');
        }),
      watch: {
        watch: (path, query, onEvent, onDone) =>
          watch.watch(path, query, onEvent, (error) => onDone(explained(error, 'watch'))),
      },
      labelSelector,
      onKey,
      clock,
      backoff: createBackoff({ baseMs: 1_000, capMs: 30_000 }, random),
      logger,
      ...(relistMs === undefined ? {} : { relistMs }),
      ...(missingRetryMs === undefined ? {} : { missingRetryMs }),
    });
  };
}
