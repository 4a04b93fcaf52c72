# Generated from deploy/samples/minimal.yaml by "npm run generate"; do not edit.
# The same with intermediate.source: Import: there is no PKI mount.

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

path "auth/kubernetes/config" {
  capabilities = ["read"]
}

path "sys/mounts/kv" {
  capabilities = ["create", "read", "update"]
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
