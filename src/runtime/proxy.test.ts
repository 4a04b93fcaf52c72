import { describe, expect, it } from '@jest/globals';
import { ProxyError, readProxies } from './proxy.ts';

const proxy = 'http://proxy.example.com:3128';
/** The proxy for a URL, with a NO_PROXY. */
const chosen = (url: string, NO_PROXY = '') =>
  readProxies({ HTTPS_PROXY: proxy, HTTP_PROXY: 'http://plain.example.com', NO_PROXY })(url)?.url;

describe('which variable', () => {
  it('is that of the scheme', () => {
    expect(chosen('https://vault.example.com')).toBe(proxy);
    expect(chosen('http://vault.example.com')).toBe('http://plain.example.com');
    expect(readProxies({ HTTP_PROXY: proxy })('https://vault.example.com')).toBeUndefined();
  });

  it('is in upper case, else in lower case; an empty one is none', () => {
    const url = 'https://vault.example.com';
    expect(readProxies({ https_proxy: proxy })(url)).toEqual({ url: proxy, variable: 'https_proxy' });
    expect(readProxies({ HTTPS_PROXY: '', https_proxy: proxy })(url)?.variable).toBe('https_proxy');
    expect(readProxies({ HTTPS_PROXY: 'http://a', https_proxy: proxy })(url)?.url).toBe('http://a');
    expect(readProxies({ https_proxy: proxy, no_proxy: 'example.com' })(url)).toBeUndefined();
    expect(readProxies({})(url)).toBeUndefined();
  });

  it('can name a proxy without a scheme', () => {
    expect(readProxies({ HTTPS_PROXY: 'proxy.example.com:3128' })('https://a.example.org')?.url).toBe(proxy);
  });

  it.each([
    ['socks5://user:word@proxy:1080', 'HTTPS_PROXY: a proxy of socks5:// is not supported, only http:// and https://'],
    ['http://user:word@', 'HTTPS_PROXY: not an address such as http://proxy.example.com:3128'],
    ['http://user:100%@proxy', 'HTTPS_PROXY: a % in the user name or the password must be written as %25'],
  ])('refuses %s at the start, without showing it', (HTTPS_PROXY, message) => {
    expect(() => readProxies({ HTTPS_PROXY })).toThrow(new ProxyError(message));
  });
});

describe('NO_PROXY', () => {
  it.each([
    ['the address of the API server in a cluster', 'https://10.96.0.1:443', '10.0.0.0/8'],
    ['an address', 'https://10.96.0.1', '10.96.0.1'],
    ['an address with its port', 'https://10.96.0.1', '10.96.0.1:443'],
    ['an IPv6 network', 'https://[fd00:10:96::1]:443', 'fd00::/8'],
    ['an IPv6 address with its port', 'https://[fd00::1]:8200', '[fd00::1]:8200'],
    ['a Service', 'https://vault.vault.svc:8200', '.svc'],
    ['a Service, by a star', 'https://vault.vault.svc:8200', '*.svc'],
    ['a name and what is below it', 'https://vault.vault.svc:8200', 'vault.svc'],
    ['a name with its port', 'https://vault.vault.svc:8200', 'vault.vault.svc:8200'],
    ['any case, spaces, several', 'https://Vault.Vault.SVC:8200', 'example.org, VAULT.svc ,10.0.0.0/8'],
    ['all', 'https://vault.example.com', 'a, *'],
    ['localhost, without being asked', 'https://localhost:8200', ''],
    ['loopback, without being asked', 'https://127.0.0.2:8200', ''],
    ['IPv6 loopback, without being asked', 'https://[::1]:8200', ''],
  ])('leaves out %s', (_, url, entries) => {
    expect(chosen(url, entries)).toBeUndefined();
  });

  it.each([
    ['another network', 'https://10.96.0.1', '192.168.0.0/16'],
    ['another port', 'https://10.96.0.1:6443', '10.96.0.1:443'],
    ['a name that ends in the same letters', 'https://myvault.svc', 'vault.svc'],
    ['the name itself, by a dot', 'https://vault.svc', '.vault.svc'],
    ['an address, by a name that looks like its end', 'https://10.96.0.1', '.0.1'],
    ['a name, by a network', 'https://vault.vault.svc', '0.0.0.0/0'],
    ['a network without a length', 'https://10.96.0.1', '10.0.0.0/'],
    ['a port alone', 'https://vault.vault.svc:8200', ':8200'],
  ])('does not leave out %s', (_, url, entries) => {
    expect(chosen(url, entries)).toBe(proxy);
  });
});
