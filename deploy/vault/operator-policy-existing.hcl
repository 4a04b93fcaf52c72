# Generated from deploy/samples/minimal.yaml by "npm run generate"; do not edit.
# The same with root.source: Existing: of mount pki, which others own, it may only have intermediates signed. They can permit one issuer: its id in place of +.

path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}

path "sys/capabilities-self" {
  capabilities = ["update"]
}

path "istioca/roles" {
  capabilities = ["list"]
}

path "istioca/issuer/+" {
  capabilities = ["read", "patch", "delete"]
}

path "auth/kubernetes/config" {
  capabilities = ["read"]
}

path "sys/mounts/kv" {
  capabilities = ["create", "read", "update"]
}

path "sys/mounts/istioca" {
  capabilities = ["create", "read", "update"]
}

path "sys/mounts/istioca/tune" {
  capabilities = ["read", "update"]
}

path "istioca/issuers" {
  capabilities = ["list"]
}

path "istioca/keys" {
  capabilities = ["list"]
}

path "istioca/config/issuers" {
  capabilities = ["create", "read", "update"]
}

path "pki/issuer/+/sign-intermediate" {
  capabilities = ["create", "update"]
}

path "istioca/keys/import" {
  capabilities = ["create", "update"]
}

path "istioca/intermediate/generate/existing" {
  capabilities = ["create", "update"]
}

path "istioca/intermediate/set-signed" {
  capabilities = ["create", "update"]
}

path "istioca/key/+" {
  capabilities = ["delete"]
}

path "kv/data/istioca" {
  capabilities = ["create", "read", "update"]
}

path "kv/data/istioca-state" {
  capabilities = ["create", "read", "update"]
}

path "kv/data/istioca-staging" {
  capabilities = ["create", "read", "update"]
}

path "kv/destroy/istioca" {
  capabilities = ["create", "update"]
}

path "kv/destroy/istioca-staging" {
  capabilities = ["create", "update"]
}

path "kv/metadata/istioca" {
  capabilities = ["create", "read", "update"]
}

path "sys/policies/acl/istioca" {
  capabilities = ["create", "read", "update"]
}

path "sys/auth/kubernetes" {
  capabilities = ["read", "sudo"]
}

path "auth/kubernetes/role/istiod" {
  capabilities = ["create", "read", "update"]
}
