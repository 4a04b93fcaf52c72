#!/bin/sh
# The manual procedure that the operator replaces, step by step, with the server's own command line: what adoption finds.
#
# VAULT_ADDR, VAULT_TOKEN and VAULT_CACERT (BAO_… for OpenBao) say where; the rest have the procedure's names as defaults.
# Not in here: step 7, the overlay of the control plane (test/support/by-hand.ts).
set -eu

VAULT=${VAULT:-vault}                     # or bao
PKI=${PKI:-pki}
ISTIOCA=${ISTIOCA:-istioca}
KV=${KV:-kv}
ENTRY=${ENTRY:-istioca}
KV_VERSION=${KV_VERSION:-1}
POLICY=${POLICY:-istioca}
ROLE=${ROLE:-istiod}
AUTH=${AUTH:-kubernetes}
NAMESPACE=${NAMESPACE:-istio-system}
SERVICE_ACCOUNT=${SERVICE_ACCOUNT:-istiod-service-account}
ROOT_TTL=${ROOT_TTL:-8760h}               # the published page says so, although its intermediate lives five years
INTERMEDIATE_TTL=${INTERMEDIATE_TTL:-43800h}
AUDIT=${AUDIT:-}                          # a file: step 1 is left out without it
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# 1. Audit
if [ -n "$AUDIT" ]; then "$VAULT" audit enable file file_path="$AUDIT"; fi

# 2. Root
"$VAULT" secrets enable --path "$PKI" pki
"$VAULT" secrets tune -max-lease-ttl="$ROOT_TTL" "$PKI"
"$VAULT" write -format=json "$PKI/root/generate/internal" common_name="Tetrate Root Authority" ttl="$ROOT_TTL" >/dev/null

# 3. Intermediate
"$VAULT" secrets enable --path "$ISTIOCA" pki
"$VAULT" secrets tune -max-lease-ttl="$INTERMEDIATE_TTL" "$ISTIOCA"
"$VAULT" write -format=json "$ISTIOCA/intermediate/generate/exported" \
  common_name="Tetrate Intermediate Authority" ttl="$INTERMEDIATE_TTL" >"$work/intermediate.json"
field() { sed -n "s/^ *\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" "$2" | sed 's/\\n/\
/g'; }
field csr "$work/intermediate.json" >"$work/istioca.csr"
field private_key "$work/intermediate.json" >"$work/istioca.key"
"$VAULT" write -field=certificate "$PKI/root/sign-intermediate" \
  csr=@"$work/istioca.csr" format=pem_bundle ttl="$INTERMEDIATE_TTL" >"$work/istioca.crt"
"$VAULT" write "$ISTIOCA/intermediate/set-signed" certificate=@"$work/istioca.crt" >/dev/null

# 4. Key
"$VAULT" secrets enable --path "$KV" --version "$KV_VERSION" kv
"$VAULT" kv put "$KV/$ENTRY" ca-key.pem=@"$work/istioca.key" >/dev/null

# 5. Kubernetes auth: the mount exists
"$VAULT" write "auth/$AUTH/role/$ROLE" \
  bound_service_account_names="$SERVICE_ACCOUNT" \
  bound_service_account_namespaces="$NAMESPACE" \
  policies="$POLICY" ttl=24h >/dev/null

# 6. Policy
data=$KV/$ENTRY
if [ "$KV_VERSION" = 2 ]; then data=$KV/data/$ENTRY; fi
"$VAULT" policy write "$POLICY" - >/dev/null <<EOF
path "$data" {
  capabilities = ["read", "list"]
}
path "$ISTIOCA/cert/*" {
  capabilities = ["read", "list"]
}
path "$PKI/cert/ca" {
  capabilities = ["read", "list"]
}
EOF
