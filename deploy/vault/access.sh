#!/bin/sh
# Makes what an administrator of Vault makes once for deploy/samples/least-rights.yaml: policy and role of istiod's Vault Agent, and policy and
# role of an operator that can write neither policies nor roles. Run it again after a change, for example of istiod's service account.
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

"$cli" policy write istioca "$here/istiod-policy.hcl"
"$cli" write "$auth/role/istiod" \
  bound_service_account_names="$accounts" \
  bound_service_account_namespaces="$namespace" \
  token_policies=istioca \
  token_ttl=24h

"$cli" policy write istio-vault-ca "$here/operator-policy-least.hcl"
"$cli" write "$auth/role/istio-vault-ca" \
  bound_service_account_names=istio-vault-ca \
  bound_service_account_namespaces="$namespace" \
  audience=vault \
  token_policies=istio-vault-ca \
  token_no_default_policy=true \
  token_ttl=1h
