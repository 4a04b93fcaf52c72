/** The operator's rights, as the manifests in `deploy` have them, and how a test takes one away on the API server. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadAllYaml } from '../../src/runtime/yaml.ts';
import { waitFor } from '../stack/index.ts';
import type { Json, Kube } from './cluster.ts';

const deploy = join(import.meta.dirname, '..', '..', 'deploy');
const operator = 'istio-vault-ca-operator';

/** One verb on one resource; with `name` only on the object of that name. */
export interface Right {
  verb: string;
  group: string;
  resource: string;
  name: string | undefined;
}

/** A Role or ClusterRole of `deploy`. */
interface DeployedRole {
  name: string;
  /** undefined: a ClusterRole. */
  namespace: string | undefined;
  rights: Right[];
}

interface RoleManifest {
  kind: string;
  metadata: { name: string; namespace?: string };
  rules: { apiGroups: string[]; resources: string[]; verbs: string[]; resourceNames?: string[] }[];
}

/** All objects of all manifests. */
function manifests(): Json[] {
  const files = readdirSync(deploy, { recursive: true, withFileTypes: true })
    .filter((file) => file.isFile() && file.name.endsWith('.yaml'))
    .map((file) => join(file.parentPath, file.name));
  return files.flatMap((file) => loadAllYaml(readFileSync(file, 'utf8')) as Json[]);
}

const rightsOf = ({ rules }: RoleManifest): Right[] =>
  rules.flatMap(({ apiGroups, resources, verbs, resourceNames = [undefined] }) =>
    apiGroups.flatMap((group) =>
      resources.flatMap((resource) =>
        verbs.flatMap((verb) => resourceNames.map((name) => ({ verb, group, resource, name }))),
      ),
    ),
  );

/** The roles that are bound to the operator's account, and the names of those that are not. */
export function deployedRoles(): { bound: DeployedRole[]; unbound: string[] } {
  const all = manifests();
  const references = all
    .filter(
      ({ kind, subjects }) =>
        /^(Cluster)?RoleBinding$/.test(String(kind)) && JSON.stringify(subjects).includes(operator),
    )
    .map(({ roleRef }) => (roleRef as { name: string }).name);
  const roles = all.filter(({ kind }) => /^(Cluster)?Role$/.test(String(kind))) as unknown as RoleManifest[];
  return {
    bound: roles
      .filter(({ metadata }) => references.includes(metadata.name))
      .map((role) => ({ ...role.metadata, namespace: role.metadata.namespace, rights: rightsOf(role) })),
    unbound: roles.filter(({ metadata }) => !references.includes(metadata.name)).map(({ metadata }) => metadata.name),
  };
}

/** A right as messages name it: `get pods/log`, `list deployments.apps`, `get secrets istio-vault-ca-tls`. */
export function formatRight({ verb, group, resource, name }: Right): string {
  const [plural = '', subresource] = resource.split('/');
  const type = `${plural}${group === '' ? '' : `.${group}`}${subresource === undefined ? '' : `/${subresource}`}`;
  return `${verb} ${type}${name === undefined ? '' : ` ${name}`}`;
}

const pathOf = ({ name, namespace }: DeployedRole): string =>
  `/apis/rbac.authorization.k8s.io/v1/${namespace === undefined ? 'clusterroles' : `namespaces/${namespace}/roles`}/${name}`;

const isSame = (a: Right, b: Right) => a.verb === b.verb && a.group === b.group && a.resource === b.resource;

/** Whether a role with the right `has` allows what `wanted` is for. */
const grants = (has: Right, wanted: Right) =>
  isSame(has, wanted) && (has.name === undefined || has.name === wanted.name);

/** The operator's rights on an API server. */
export class Rights {
  readonly #kube: Kube;
  readonly #roles: DeployedRole[];
  #taken: readonly Right[] = [];

  /** @param roles the roles that are installed there */
  constructor(kube: Kube, roles: DeployedRole[]) {
    this.#kube = kube;
    this.#roles = roles;
  }

  /** Takes rights away, from every role that has them, and gives all others back. Returns when the API server decides by it. */
  async without(taken: readonly Right[]): Promise<void> {
    const before = this.#taken;
    this.#taken = taken;
    for (const role of this.#roles) {
      const has = (some: readonly Right[]) => role.rights.some((one) => some.some((wanted) => grants(one, wanted)));
      const left = role.rights.filter((one) => !taken.some((wanted) => grants(one, wanted)));
      if (has(before) || has(taken)) await this.#write(role, left);
    }
    for (const right of [...before, ...taken]) {
      const expected = !taken.some((one) => one === right);
      await waitFor(`${formatRight(right)} to be ${expected ? 'allowed' : 'denied'}`, async () => {
        return (await this.#allowed(right)) === expected;
      });
    }
  }

  /** Gives all rights back. */
  restore = () => this.without([]);

  async #write(role: DeployedRole, rights: Right[]): Promise<void> {
    const rules = rights.map(({ verb, group, resource, name }) => ({
      apiGroups: [group],
      resources: [resource],
      verbs: [verb],
      ...(name === undefined ? {} : { resourceNames: [name] }),
    }));
    const answer = await this.#kube.request('PATCH', pathOf(role), { rules });
    if (answer.status >= 300) throw new Error(`${pathOf(role)}: ${answer.status}`);
  }

  async #allowed({ verb, group, resource, name }: Right): Promise<boolean> {
    const [plural, subresource] = resource.split('/');
    const attributes = { namespace: 'istio-vault-ca', group, resource: plural, subresource, name, verb };
    const spec = { user: `system:serviceaccount:istio-vault-ca:${operator}`, resourceAttributes: attributes };
    const path = '/apis/authorization.k8s.io/v1/subjectaccessreviews';
    const { body } = await this.#kube.request('POST', path, { spec });
    return (body as { status: { allowed: boolean } }).status.allowed;
  }
}
