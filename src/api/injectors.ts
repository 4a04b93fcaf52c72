/**
 * Names of the two agent injectors, one row each: HashiCorp's vault-k8s, and OpenBao's openbao-k8s, a fork of it that rewrites the Pod's
 * annotations to names of its own. Everything else in this program knows only the names of the first.
 * Sources: https://github.com/hashicorp/vault-k8s and https://github.com/openbao/openbao-k8s, agent-inject/agent
 */

interface InjectorNames {
  /** Name of the webhook, possibly behind a prefix, and of the annotations before the slash. */
  domain: string;
  agent: string;
  initAgent: string;
}

const vault: InjectorNames = { domain: 'vault.hashicorp.com', agent: 'vault-agent', initAgent: 'vault-agent-init' };
const openBao: InjectorNames = { domain: 'openbao.org', agent: 'openbao-agent', initAgent: 'openbao-agent-init' };
const injectors: readonly InjectorNames[] = [vault, openBao];

/** Domains of the injectors, for messages. */
export const injectorDomains = injectors.map(({ domain }) => domain);

/** Whether a mutating webhook is that of an injector. Charts put a prefix before the domain. */
export const isInjector = (webhook: string): boolean =>
  injectorDomains.some(
    (domain) => webhook === domain || webhook.endsWith(`.${domain}`) || webhook.endsWith(`-${domain}`),
  );

/** The name that vault-k8s gives a container of an injector; any other name stays as it is. */
export function agentContainerName(name: string): string {
  if (name === openBao.agent) return vault.agent;
  return name === openBao.initAgent ? vault.initAgent : name;
}

/** Whether a container is one that an injector adds. */
export const isAgentContainer = (name: string): boolean =>
  injectors.some(({ agent, initAgent }) => name === agent || name === initAgent);

/** The annotations of an injector, with the names of vault-k8s, and those of other domains that `also` selects. */
export function agentAnnotations(
  annotations: Readonly<Record<string, unknown>>,
  also: (name: string) => boolean = () => false,
): Record<string, unknown> {
  const named = Object.entries(annotations).flatMap(([name, value]): [string, unknown][] => {
    const domain = injectorDomains.find((one) => name.startsWith(`${one}/`));
    if (domain === undefined) return also(name) ? [[name, value]] : [];
    return [[`${vault.domain}${name.slice(domain.length)}`, value]];
  });
  return Object.fromEntries(named);
}
