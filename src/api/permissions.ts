/** Permissions in Kubernetes: which component of `deploy` grants them, and the message about a missing one. Pure. */
import type { Gvr } from './gvr.ts';

/** A permission that the API server denied, in the terms of RBAC. */
export interface Permission {
  verb: string;
  /** Empty for the core group. */
  group: string;
  /** With its subresource, such as `pods/log`. */
  resource: string;
  /** undefined: the object is cluster-scoped, or the request was for all namespaces. */
  namespace?: string | undefined;
  /** Who lacks it; undefined: the operator. */
  user?: string | undefined;
}

/** An optional component in `deploy/components` that grants permissions to the operator. */
export type Component =
  | 'ambient'
  | 'cert-manager'
  | 'configmaps'
  | 'injector'
  | 'istio-operator'
  | 'logs'
  | 'sail'
  | 'secrets'
  | 'tetrate'
  | 'trust-bundle';

/** The Secrets that component `secrets` grants. An administrator grants any other. */
const grantedSecrets: readonly string[] = ['approle', 'token', 'tls', 'signed', 'reviewer'].map(
  (name) => `istio-vault-ca-${name}`,
);

/** Returns the permission for a verb on the objects of a type. */
export const permissionOn = (verb: string, { group, plural }: Gvr, namespace: string | undefined): Permission => ({
  verb,
  group,
  resource: plural,
  namespace,
});

/** Formats a permission: `get istios.sailoperator.io`, `list pods in namespace istio-system`. */
export function describePermission({ verb, group, resource, namespace }: Permission): string {
  const [plural = '', subresource] = resource.split('/');
  const type = `${plural}${group === '' ? '' : `.${group}`}${subresource === undefined ? '' : `/${subresource}`}`;
  return `${verb} ${type}${namespace === undefined ? '' : ` in namespace ${namespace}`}`;
}

/**
 * Returns the component that grants a permission; undefined: the base grants it, or nothing does. Reading a ConfigMap is part of the base. For
 * IstioOperators it is the component of `controlPlane.kind: IstioOperator`; component `tetrate` only reads them.
 */
function componentOf({ verb, group, resource }: Permission): Component | undefined {
  switch (group) {
    case 'install.tetrate.io':
      return 'tetrate';
    case 'install.istio.io':
      return 'istio-operator';
    case 'sailoperator.io':
      return 'sail';
    case 'cert-manager.io':
      return 'cert-manager';
    case '':
      if (resource === 'configmaps' && verb !== 'get') return 'configmaps';
      return resource === 'pods/log' ? 'logs' : undefined;
    default:
      return undefined;
  }
}

/** Returns what to do to get the permissions of a component; undefined: those of the base. */
export function grantedBy(component: Component | undefined): string {
  if (component === undefined) return 'Apply deploy/base again, which grants it';
  return `Add ${componentPath(component)} to the kustomization of the operator`;
}

/** Returns what to do to let an account of a namespace ask cert-manager there, which the operator does in its name. */
const grantToAccount = (namespace: string, name: string): string =>
  `Apply deploy/components/cert-manager, and \`kubectl create rolebinding istio-vault-ca-cert-manager -n ${namespace} --clusterrole=istio-vault-ca-cert-manager --serviceaccount=${namespace}:${name}\` (or deploy/components/namespaced/access-cert-manager)`;

/** Returns what to do to let the operator read a Secret that a resource refers to. */
export const grantOnSecret = (name: string): string =>
  grantedSecrets.includes(name) ? grantedBy('secrets') : `Grant get on Secret ${name} of that namespace`;

/** Components whose objects are of the whole cluster, also with `--namespaces`. */
const clusterWide: readonly Component[] = ['ambient', 'injector', 'sail', 'trust-bundle'];

/** Returns the folder of a component, and the one that takes its place with `--namespaces`. */
export const componentPath = (component: Component): string =>
  `deploy/components/${component}${clusterWide.includes(component) ? '' : ` (with --namespaces: deploy/components/namespaced/access-${component})`}`;

/**
 * Returns the message about a missing permission: verb, resource and what to do.
 * @param remedy what to do, if the permission alone does not determine it
 */
export function missingPermission(permission: Permission, remedy = grantedBy(componentOf(permission))): string {
  const { user } = permission;
  const what = describePermission(permission);
  const account =
    permission.group === 'cert-manager.io' ? /^system:serviceaccount:([^:]+):([^:]+)$/.exec(user ?? '') : null;
  if (account) {
    const [, namespace = '', name = ''] = account;
    return `ServiceAccount ${namespace}/${name} lacks permission to ${what}. ${grantToAccount(namespace, name)}; see docs/rbac.md.`;
  }
  // the command `plan` reads with the kubeconfig of a user, whose permissions are not in the deployment
  if (user !== undefined && !user.startsWith('system:serviceaccount:'))
    return `User ${user} lacks permission to ${what}; see docs/rbac.md.`;
  return `The operator lacks permission to ${what}. ${remedy}; see docs/rbac.md.`;
}
