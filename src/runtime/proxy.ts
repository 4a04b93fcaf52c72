/**
 * The forward proxy of the environment, chosen as Go programs choose it (client-go and the commands of Vault): HTTPS_PROXY, HTTP_PROXY and
 * NO_PROXY, in upper case or else in lower case. Libraries of npm read no networks (10.0.0.0/8) in NO_PROXY, and would send the requests to
 * the API server, whose address in a cluster is a number, to the proxy.
 * Source: https://pkg.go.dev/golang.org/x/net/http/httpproxy
 */
import { BlockList, isIP } from 'node:net';
import { withoutBrackets } from './host.ts';

/** A proxy that requests to one server go through. */
export interface Proxy {
  /** `http://host:port` or `https://host:port`; it can contain a user name and a password. */
  readonly url: string;
  /** The environment variable that names it, or the field of the kubeconfig. */
  readonly variable: string;
}

/** Returns the proxy for a URL; undefined: the connection is direct. */
export type ProxyFor = (url: string) => Proxy | undefined;

/** A proxy that this program cannot use. The message contains the variable, not its value: that can contain a password. */
export class ProxyError extends Error {
  override readonly name = 'ProxyError';
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The first of the variables that is set to a text. */
function valueOf(env: Environment, names: readonly string[]): { value: string; variable: string } | undefined {
  for (const variable of names) {
    const value = env[variable]?.trim();
    if (value) return { value, variable };
  }
  return undefined;
}

/** @throws ProxyError if the value is no URL, or one of another scheme, such as socks5 */
function proxyOf(env: Environment, names: readonly string[]): Proxy | undefined {
  const set = valueOf(env, names);
  if (set === undefined) return undefined;
  const { value, variable } = set;
  const url = URL.parse(/^[a-z][a-z0-9+.-]*:\/\//i.test(value) ? value : `http://${value}`);
  if (url === null) throw new ProxyError(`${variable}: not an address such as http://proxy.example.com:3128`);
  if (!['http:', 'https:'].includes(url.protocol))
    throw new ProxyError(`${variable}: a proxy of ${url.protocol}// is not supported, only http:// and https://`);
  if (!isDecodable(url.username) || !isDecodable(url.password))
    throw new ProxyError(`${variable}: a % in the user name or the password must be written as %25`);
  return { url: url.href.replace(/\/$/, ''), variable };
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

/** Names a proxy, without its user name and password, for the message of a failed connection. */
export function throughProxy({ url, variable }: Proxy): string {
  const remedy = /_proxy$/i.test(variable) ? '; NO_PROXY lists what is reached without it' : '';
  return ` (through the proxy ${URL.parse(url)?.host ?? ''} of ${variable}${remedy})`;
}

/** What a connection goes to. The host is in lower case, an IPv6 address without brackets. */
interface Destination {
  host: string;
  port: string;
}

const defaultPorts: Readonly<Record<string, string>> = { 'https:': '443', 'http:': '80' };

/** An IPv4 address in an IPv6 one, as URLs write it, becomes the IPv4 address; any other host stays. */
function plainAddress(host: string): string {
  const [, high, low] = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(host) ?? [];
  if (high === undefined || low === undefined) return host;
  return [high, low].flatMap((text) => [parseInt(text, 16) >> 8, parseInt(text, 16) & 0xff]).join('.');
}

const destinationOf = ({ hostname, port, protocol }: URL): Destination => ({
  host: plainAddress(withoutBrackets(hostname).toLowerCase()),
  port: port === '' ? (defaultPorts[protocol] ?? '') : port,
});

const family = (address: string): 'ipv4' | 'ipv6' => (isIP(address) === 6 ? 'ipv6' : 'ipv4');

/** The first bits of IPv6 addresses that contain an IPv4 address. */
const mappedPrefix = 96;

/** Parses a network `address/prefix`. Returns whether an address is in it; undefined: the text is no network. */
function parseNetwork(text: string): ((host: string) => boolean) | undefined {
  const [address = '', bits = '', more] = text.split('/');
  if (isIP(address) === 0 || !/^(0|[1-9][0-9]{0,2})$/.test(bits) || more !== undefined) return undefined;
  const prefix = Number(bits);
  if (prefix > (isIP(address) === 6 ? 128 : 32)) return undefined;
  const list = new BlockList();
  list.addSubnet(address, prefix, family(address));
  // a BlockList finds IPv4 addresses in every IPv6 network that contains all of them, such as ::/0
  const onlyIpv6 = isIP(address) === 6 && prefix < mappedPrefix;
  return (host) => !(onlyIpv6 && isIP(host) === 4) && list.check(host, family(host));
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

/** `host:port` or `[address]:port` in its parts; without a port it is empty. */
function splitPort(entry: string): Destination {
  const [, bracketed, plain, port = ''] = /^(?:\[([^\]]*)\]|([^:[\]]*)):([^:[\]]*)$/.exec(entry) ?? [];
  const host = bracketed ?? plain;
  return host === undefined ? { host: entry, port: '' } : { host, port };
}

/** Parses an entry of NO_PROXY. Returns whether a destination matches it. */
function parseEntry(entry: string): (to: Destination) => boolean {
  const contains = parseNetwork(entry);
  if (contains) return (to) => isIP(to.host) !== 0 && contains(to.host);
  const { host, port } = splitPort(entry);
  const isPort = (to: Destination) => port === '' || port === to.port;
  if (host === '') return () => false;
  if (isIP(host) !== 0) {
    const list = new BlockList();
    list.addAddress(host, family(host));
    return (to) => isIP(to.host) !== 0 && list.check(to.host, family(to.host)) && isPort(to);
  }
  const suffix = host.startsWith('*.') ? host.slice(1) : host;
  const below = suffix.startsWith('.') ? suffix : `.${suffix}`;
  return (to) =>
    isIP(to.host) === 0 && (to.host.endsWith(below) || (below !== suffix && to.host === suffix)) && isPort(to);
}

/**
 * Reads the environment once.
 * @returns the choice of a proxy for each URL; `localhost` and loopback addresses never have one
 * @throws ProxyError
 */
export function readProxies(env: Environment): ProxyFor {
  const proxies: Readonly<Record<string, Proxy | undefined>> = {
    'https:': proxyOf(env, ['HTTPS_PROXY', 'https_proxy']),
    'http:': proxyOf(env, ['HTTP_PROXY', 'http_proxy']),
  };
  const entries = (valueOf(env, ['NO_PROXY', 'no_proxy'])?.value ?? '')
    .split(',')
    .map((entry) => entry.trim().toLowerCase())
    .filter((entry) => entry !== '');
  const matchers = entries.includes('*') ? [() => true] : entries.map(parseEntry);
  return (text) => {
    const url = URL.parse(text);
    const proxy = url && proxies[url.protocol];
    if (!proxy) return undefined;
    const to = destinationOf(url);
    if (to.host === 'localhost' || (isIP(to.host) !== 0 && loopback.check(to.host, family(to.host)))) return undefined;
    return matchers.some((matches) => matches(to)) ? undefined : proxy;
  };
}
