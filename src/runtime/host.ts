/** The two ways in which hosts stand in URLs and in addresses: an IPv6 address has brackets before a port and in a URL, elsewhere it has none. */
import { isIPv6 } from 'node:net';

/** Returns a host as it stands before a port. */
export const bracketed = (host: string): string => (isIPv6(host) ? `[${host}]` : host);

/** Returns the host of a URL (`hostname`) as it stands alone. */
export const withoutBrackets = (hostname: string): string => hostname.replace(/^\[|\]$/g, '');
