# Generated from deploy/samples/least-rights.yaml by "npm run generate"; do not edit.
# For istiod's Vault Agent, with default names and KV version 2.
path "kv/data/istioca" {
  capabilities = ["read"]
}
