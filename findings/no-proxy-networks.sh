#!/usr/bin/env bash
# Subject:     NO_PROXY in Node 24.21 (`proxyEnv` of an agent), undici 8.12 (EnvHttpProxyAgent) and proxy-from-env 2.1, beside Go's x/net 0.50
# One expects: all read the variable alike, so that a pod that runs kubectl behind a proxy also runs a program of Node there.
# What is so:  Go leaves out an address in a network, such as that of the API server in 10.0.0.0/8, and never uses a proxy for loopback. None
#              of the others reads a network, and all send a request to 127.0.0.1 to the proxy. They ask it for the API server.
# Source:      pkg.go.dev/golang.org/x/net/http/httpproxy; nodejs.org/docs/latest-v24.x/api/http.html, "Built-in Proxy Support"
source "$(dirname "$0")/lib.sh"
install npm:node@24.21.0 npm:undici@8.12.4 npm:proxy-from-env@2.1.0 go:golang.org/x/net/http/httpproxy@v0.50.0

cat >main.go <<'GO'
package main

import (
	"fmt"
	"net/url"
	"os"

	"golang.org/x/net/http/httpproxy"
)

func main() {
	for _, text := range os.Args[1:] {
		u, _ := url.Parse(text)
		proxy, _ := httpproxy.FromEnvironment().ProxyFunc()(u)
		fmt.Println(text, map[bool]string{true: "directly", false: "by the proxy"}[proxy == nil])
	}
}
GO
cat >main.mjs <<'JS'
import http from 'node:http';
import https from 'node:https';
import { EnvHttpProxyAgent, request } from 'undici';
import { getProxyForUrl } from 'proxy-from-env';

// a proxy that opens nothing, and says whether it was asked
let asked = false;
const proxy = http.createServer();
proxy.on('connect', (_, socket) => {
  asked = true;
  socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
});
await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
process.env.HTTPS_PROXY = `http://127.0.0.1:${proxy.address().port}`;
const proxyEnv = { HTTPS_PROXY: process.env.HTTPS_PROXY, NO_PROXY: process.env.NO_PROXY };

const ways = {
  node: (url) =>
    new Promise((resolve) =>
      https.get(url, { agent: new https.Agent({ proxyEnv }), timeout: 1000 }).on('error', resolve).on('timeout', resolve),
    ),
  undici: (url) => request(url, { dispatcher: new EnvHttpProxyAgent(), signal: AbortSignal.timeout(1000) }),
  'proxy-from-env': (url) => {
    asked = getProxyForUrl(url) !== '';
  },
};
const [way, ...urls] = process.argv.slice(2);
for (const url of urls) {
  asked = false;
  await Promise.resolve(ways[way](url)).catch(() => undefined);
  console.log(url, asked ? 'by the proxy' : 'directly');
}
process.exit(0);
JS
version "$(go list -m golang.org/x/net), $(go env GOVERSION), Node $(node --version)"
export NO_PROXY=10.0.0.0/8 HTTPS_PROXY=http://127.0.0.1:1
server=https://10.96.0.1 loopback=https://127.0.0.1:1
expect Go "$server directly
$loopback directly" "$(go run . $server $loopback)"
for way in node undici proxy-from-env; do
  expect $way "$server by the proxy
$loopback by the proxy" "$(node main.mjs $way $server $loopback)"
done
