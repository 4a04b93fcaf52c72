#!/usr/bin/env bash
# Subject:     @kubernetes/client-node 2.0.1 (npm)
# One expects: requests of one client in sequence share a connection, as `fetch` of Node keeps connections alive.
# What is so:  with a CA in the kubeconfig, as in every Pod, each request has a new dispatcher and so a TLS connection of its own.
# Source:      github.com/kubernetes-client/javascript/issues/2893
source "$(dirname "$0")/lib.sh"
install npm:node@24.21.0 npm:@kubernetes/client-node@2.0.1

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out ca.pem -days 1 -subj /CN=localhost \
  -addext subjectAltName=IP:127.0.0.1 2>openssl.log || { cat openssl.log && exit 1; }
cat >main.mjs <<'JS'
import { createServer } from 'node:https';
import { readFileSync } from 'node:fs';
import { CoreV1Api, KubeConfig } from '@kubernetes/client-node';

const [key, ca] = [readFileSync('key.pem'), readFileSync('ca.pem')];
let connections = 0;
const server = createServer({ key, cert: ca }, (request, response) => {
  response.setHeader('content-type', 'application/json');
  response.end('{"kind":"NamespaceList","apiVersion":"v1","metadata":{},"items":[]}');
});
server.on('secureConnection', () => connections++);
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

const config = new KubeConfig();
config.loadFromOptions({
  clusters: [{ name: 'c', server: `https://127.0.0.1:${server.address().port}`, caData: ca.toString('base64') }],
  users: [{ name: 'u', token: 'example' }],
  contexts: [{ name: 'x', cluster: 'c', user: 'u' }],
  currentContext: 'x',
});
const api = config.makeApiClient(CoreV1Api);
for (let i = 0; i < 10; i++) await api.listNamespace();
console.log(connections);
server.closeAllConnections();
server.close();
JS
version "$(jq --raw-output .version node_modules/@kubernetes/client-node/package.json), Node $(node --version)"
expect "TLS connections of ten requests in sequence" 10 "$(node main.mjs)"
