#!/bin/sh
# Makes what an administrator of Vault makes once for deploy/samples/least-rights.yaml: policy and role of istiod's Vault Agent, and policy and
# role of an operator that can write neither policies nor roles. Run it again after a change, for example of istiod's service account, and to
# correct what condition AccessReady names (AccessDiffers).
#
#   sh deploy/vault/access.sh
#
# The address and the token are those of the command line client: VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE; for OpenBao BAO_ADDR and so on.
# Further variables, with their defaults:
#   VAULT_CLI=vault            or bao
#   NAMESPACE=istio-system     namespace of istiod and of the IstioVaultCA
#   SERVICE_ACCOUNTS=istiod    of istiod, separated by commas
#   AUTH_MOUNT=kubernetes      mount of the Kubernetes auth method, which exists and is configured (README.md, step 1)
# Other mounts or names in the spec: change them in copies of the two policy files, and here.
set -eu

cli=${VAULT_CLI:-vault}
namespace=${NAMESPACE:-istio-system}
accounts=${SERVICE_ACCOUNTS:-istiod}
auth=auth/${AUTH_MOUNT:-kubernetes}
here=$(dirname "$0")

# Writes a role with the fields that are given. A write leaves fields that it does not name as they are, so all others get their defaults.
write_role() {
  role=$1
  shift
  "$cli" write "$auth/role/$role" "$@" \
    alias_name_source=serviceaccount_uid \
    bound_service_account_namespaces="$namespace" \
    bound_service_account_namespace_selector= \
    token_bound_cidrs= \
    token_explicit_max_ttl=0 \
    token_max_ttl=0 \
    token_num_uses=0 \
    token_period=0 \
    token_type=default
}

"$cli" policy write istioca "$here/istiod-policy.hcl"
write_role istiod \
  bound_service_account_names="$accounts" \
  audience= \
  token_policies=istioca \
  token_no_default_policy=false \
  token_ttl=24h

"$cli" policy write istio-vault-ca "$here/operator-policy-least.hcl"
write_role istio-vault-ca \
  bound_service_account_names=istio-vault-ca \
  audience=vault \
  token_policies=istio-vault-ca \
  token_no_default_policy=true \
  token_ttl=1h
