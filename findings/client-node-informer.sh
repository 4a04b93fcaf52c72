#!/usr/bin/env bash
# Subject:     @kubernetes/client-node 2.0.1 (npm)
# One expects: an informer reconnects after an interruption, as those of client-go do, and `error` events report real errors.
# What is so:  after one 500 of the list it emits `error` and sends no further request, until `start` is called again. `stop` of a running
#              one emits `error` too (an AbortError), so a handler that restarts after each error revives an informer that was stopped.
# Source:      github.com/kubernetes-client/javascript, src/cache.ts (doneHandler) and src/watch.ts
source "$(dirname "$0")/lib.sh"
install npm:node@24.21.0 npm:@kubernetes/client-node@2.0.1

cat >main.mjs <<'JS'
import { createServer } from 'node:http';
import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import { CoreV1Api, KubeConfig, makeInformer } from '@kubernetes/client-node';

let fails = true;
let requests = 0;
const server = createServer((request, response) => {
  requests++;
  response.setHeader('content-type', 'application/json');
  if (request.url.includes('watch=')) return response.write('\n'); // the watch stays open
  response.statusCode = fails ? 500 : 200;
  response.end('{"kind":"NamespaceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}');
});
await once(server.listen(0, '127.0.0.1'), 'listening');
const config = new KubeConfig();
config.loadFromClusterAndUser(
  { name: 'c', server: `http://127.0.0.1:${server.address().port}`, skipTLSVerify: true },
  { name: 'u' },
);
const api = config.makeApiClient(CoreV1Api);
const informer = makeInformer(config, '/api/v1/namespaces', () => api.listNamespace());
const errors = [];
let connects = 0;
informer.on('error', (error) => errors.push(error.name === 'AbortError' ? 'AbortError' : `code ${error.code}`));
informer.on('connect', () => connects++);

await informer.start();
fails = false;
const before = requests;
await wait(5_000);
console.log(`after a 500: ${errors.join(', ')}; requests of the next 5 s: ${requests - before}`);
errors.length = 0;
await informer.start();
console.log(`after start: connects ${connects > 0}, errors ${errors.length}`);
await informer.stop();
await wait(1_000);
console.log(`after stop: ${errors.join(', ')}`);
server.closeAllConnections();
server.close();
JS
version "$(jq --raw-output .version node_modules/@kubernetes/client-node/package.json), Node $(node --version)"
expect "events" "after a 500: code 500; requests of the next 5 s: 0
after start: connects true, errors 0
after stop: AbortError" "$(node main.mjs)"
