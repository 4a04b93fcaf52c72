# Generated from deploy/samples/checks.yaml by "npm run generate"; do not edit.
# With manage: false of everything: only reads. It can do without 'read' on policy, role and configuration of the auth mount.

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

path "sys/policies/acl/istioca" {
  capabilities = ["read"]
}

path "auth/kubernetes/role/istiod" {
  capabilities = ["read"]
}

path "sys/mounts/kv" {
  capabilities = ["read"]
}

path "sys/mounts/istioca" {
  capabilities = ["read"]
}

path "istioca/issuers" {
  capabilities = ["list"]
}

path "istioca/keys" {
  capabilities = ["list"]
}

path "istioca/issuer/+" {
  capabilities = ["read"]
}

path "istioca/config/issuers" {
  capabilities = ["read"]
}

path "kv/data/istioca" {
  capabilities = ["read"]
}
