# Generated from deploy/samples/minimal.yaml by "npm run generate"; do not edit.
# The same with delivery.crl: true, also configures and renews the revocation lists of both PKI mounts.

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

path "pki/roles" {
  capabilities = ["list"]
}

path "istioca/roles" {
  capabilities = ["list"]
}

path "pki/issuer/+" {
  capabilities = ["read", "patch"]
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

path "sys/mounts/pki" {
  capabilities = ["create", "read", "update"]
}

path "sys/mounts/istioca" {
  capabilities = ["create", "read", "update"]
}

path "sys/mounts/pki/tune" {
  capabilities = ["read", "update"]
}

path "pki/issuers" {
  capabilities = ["list"]
}

path "pki/keys" {
  capabilities = ["list"]
}

path "pki/config/issuers" {
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

path "pki/crl/rotate" {
  capabilities = ["read"]
}

path "pki/config/crl" {
  capabilities = ["create", "read", "update"]
}

path "istioca/crl/rotate" {
  capabilities = ["read"]
}

path "istioca/config/crl" {
  capabilities = ["create", "read", "update"]
}

path "pki/root/generate/internal" {
  capabilities = ["create", "update"]
}

path "pki/root/generate/existing" {
  capabilities = ["create", "update"]
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
