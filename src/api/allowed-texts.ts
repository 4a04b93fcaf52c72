/**
 * Maps of the spec whose keys come from a list, each with a pattern for its values. One table gives the CEL rules of the CRD and the check of
 * the operator, which also sees specs that an older CRD accepted.
 */
import type { CelRule } from './fields.ts';

/** Keys with equal values. */
export interface AllowedTexts {
  keys: readonly string[];
  /** Pattern of the whole value; the syntax must be valid in RE2 too. */
  value: RegExp;
  /** Describes the values, for messages. */
  values: string;
}

const agent = (name: string): string => `vault.hashicorp.com/${name}`;
const resources = ['cpu', 'mem', 'ephemeral'];

/**
 * `spec.delivery.annotations`: what cannot undo the delivery of the CA or widen the rights of the agent.
 * Source: https://developer.hashicorp.com/vault/docs/platform/k8s/injector/annotations
 */
export const deliveryAnnotations: readonly AllowedTexts[] = [
  {
    keys: ['limits', 'requests'].flatMap((kind) => resources.map((name) => agent(`agent-${kind}-${name}`))),
    value: /^[0-9]{1,12}([.][0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$/,
    values: 'a quantity, such as 250m or 64Mi',
  },
  {
    keys: [agent('log-level')],
    value: /^(trace|debug|info|warn|error)$/,
    values: 'trace, debug, info, warn or error',
  },
  { keys: [agent('log-format')], value: /^(standard|json)$/, values: 'standard or json' },
  { keys: [agent('agent-init-first')], value: /^(true|false)$/, values: '"true" or "false"' },
  { keys: [agent('agent-set-security-context')], value: /^false$/, values: '"false" (on OpenShift)' },
  {
    keys: [agent('client-timeout')],
    value: /^(([5-9]|[1-9][0-9]|[12][0-9][0-9]|300)s|[1-5]m)$/,
    values: 'from 5s to 5m',
  },
  { keys: [agent('client-max-retries')], value: /^([0-9]|10)$/, values: 'a number from 0 to 10' },
  {
    keys: [agent('tls-secret')],
    value: /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/,
    values: 'the name of a Secret',
  },
  {
    keys: [agent('ca-cert')],
    value: /^[/]vault[/]tls[/][A-Za-z0-9_-][A-Za-z0-9._-]{0,252}$/,
    values: '/vault/tls/<key of the Secret>',
  },
];

/** Annotations of which each goes only with the other, and only with `spec.vault.tls.caConfigMapRef`. */
export const agentCaAnnotations = [agent('tls-secret'), agent('ca-cert')] as const;

/** `spec.audit.options`: where a file device writes, and nothing that shows more than it does by default. */
export const auditOptions: readonly AllowedTexts[] = [
  {
    keys: ['file_path'],
    value: /^(stdout|([/][A-Za-z0-9_-][A-Za-z0-9._-]*)+)$/,
    values: 'an absolute path, or stdout',
  },
  { keys: ['format'], value: /^(json|jsonx)$/, values: 'json or jsonx' },
  { keys: ['mode'], value: /^0(600|640)$/, values: '"0600" or "0640"' },
  { keys: ['hmac_accessor'], value: /^true$/, values: '"true"' },
];

const listed = (keys: readonly string[]): string => keys.join(', ');
const allKeys = (table: readonly AllowedTexts[]): string[] => table.flatMap(({ keys }) => keys);

/** The CEL rules of a map. @param field its path below `spec`, for messages */
export function allowedTextRules(field: string, table: readonly AllowedTexts[]): CelRule[] {
  const quoted = (text: string): string => `'${text}'`;
  return [
    {
      rule: `self.all(k, k in [${allKeys(table).map(quoted).join(', ')}])`,
      message: `${field}: only these keys may be given: ${listed(allKeys(table))}`,
    },
    ...table.map(({ keys, value, values }) => ({
      rule: keys
        .map((key) => `(!(${quoted(key)} in self) || self[${quoted(key)}].matches(${quoted(value.source)}))`)
        .join(' && '),
      message: `${field}: ${listed(keys)}: must be ${values}`,
    })),
  ];
}

/** What is wrong with a map, for the user: its keys, never its values. undefined: nothing is. */
export function refusedTexts(
  field: string,
  map: Readonly<Record<string, string>>,
  table: readonly AllowedTexts[],
): string | undefined {
  const unknown = Object.keys(map).filter((key) => !allKeys(table).includes(key));
  if (unknown.length > 0)
    return `${field}: ${listed(unknown)}: only these keys may be given: ${listed(allKeys(table))}; remove the others`;
  const wrong = table.flatMap(({ keys, value, values }) =>
    keys.filter((key) => key in map && !value.test(map[key] ?? '')).map((key) => `${key} must be ${values}`),
  );
  return wrong.length > 0 ? `${field}: ${wrong.join('; ')}` : undefined;
}
