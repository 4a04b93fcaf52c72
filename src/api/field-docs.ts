/** One line for each field that `kubectl explain` should explain; the key is the path in the resource. */
export const fieldDocs: Record<string, string> = {
  'spec.mode':
    'Enforce keeps Vault and the control plane as specified; Plan only reads and lists the steps in status.plan.',
  'spec.suspend': 'Leave everything as it is until set back to false.',
  'spec.vault': 'The Vault or OpenBao server and how the operator logs in.',
  'spec.vault.address': 'As the operator reaches it, e.g. https://vault.vault.svc:8200.',
  'spec.vault.injectorAddress': "As istiod's Vault agent reaches it, if that is another address.",
  'spec.vault.namespace': 'Vault Enterprise, HCP or OpenBao namespace; the agent uses it too.',
  'spec.vault.tls': 'How the server certificate is verified; verification cannot be switched off.',
  'spec.vault.tls.clientCertSecretRef':
    'Secret with ca.crt, tls.crt and tls.key: client certificate of operator and agent, and the CA of Vault.',
  'spec.vault.auth': 'How the operator logs in: exactly the sub-object of method.',
  'spec.vault.auth.kubernetes.audiences':
    "Audiences of the requested token. The Vault role must carry one of them; [] means the API server's own audience.",
  'spec.vault.auth.appRole.secretIdRef':
    'A secret ID, or a response-wrapping token for one, which is unwrapped once and kept in memory only.',
  'spec.audit': 'An audit device that must exist.',
  'spec.root.source':
    'Generate: a key made in Vault, never exported. Existing: an issuer that others own. External: a root outside Vault.',
  'spec.root.existing.issuerRef': 'Name or id of the issuer that signs; the default issuer of root.mount if unset.',
  'spec.root.existing.rootCertRef': 'The self-signed root above the issuer, where its mount does not have it.',
  'spec.root.external.signed': 'Where the signed certificate of status.csr is put, with the CAs above it behind it.',
  'spec.root.external.certManagerIssuerRef':
    'The issuer of cert-manager that is asked to sign, as ServiceAccount istio-vault-ca of the namespace.',
  'spec.root.external.rootCertRef':
    'The roots that a signed certificate may lead to; any self-signed one that comes along if unset.',
  'spec.root.manage': 'false: check only, never write.',
  'spec.intermediate.manage': 'false: others make the intermediate, its mount and the CA entry; they are only checked.',
  'spec.keyStore.manage': 'false: nothing is written below the mount. Only with intermediate.manage: false.',
  'spec.root.shared':
    'true: others sign under this root too (revisions, clusters), and a rotation stops until annotation members-ready has a new text.',
  'spec.root.ttl': 'Life of the root certificate, a Go duration.',
  'spec.intermediate.ttl': 'Life of the intermediate certificate, a Go duration; not longer than root.ttl.',
  'spec.intermediate.renewBefore': 'How long before its end the intermediate is renewed; a third of its life if unset.',
  'spec.intermediate.maxWorkloadCertTTL':
    "The longest life of a workload certificate; if unset, the longer of istiod's MAX_WORKLOAD_CERT_TTL, else 2160h, and its DEFAULT_WORKLOAD_CERT_TTL.",
  'spec.keyStore':
    'The KV secrets engine that holds what istiod reads; beside path stand <path>-staging and <path>-state.',
  'spec.delivery.source':
    'Bundle: one KV entry holds all four files. PKI: certificates come from the PKI mounts, the key from the KV entry.',
  'spec.delivery.directory': 'Where the agent renders the files and where istiod reads them (ROOT_CA_DIR).',
  'spec.delivery.refreshInterval': 'How often the agent reads static secrets again.',
  'spec.delivery.annotations': 'Further vault.hashicorp.com/ annotations for the istiod pod.',
  'spec.policy.manage': 'false: an administrator of Vault writes the policy; the operator only reads it, if it may.',
  'spec.kubernetesAuth.manage':
    'false: an administrator of Vault writes the role and configures the auth mount; the operator only reads the role, if it may.',
  'spec.kubernetesAuth': "The role with which istiod's agent logs in.",
  'spec.kubernetesAuth.serviceAccountNames':
    'Service accounts the role is bound to; derived from the istiod Deployments if unset.',
  'spec.kubernetesAuth.config.manage':
    'Write the configuration of the auth mount. Only on a mount that this resource made; a mount it makes always gets it.',
  'spec.controlPlane': 'The control plane to configure; it lives in the namespace of this resource.',
  'spec.controlPlane.write': 'Patch writes the fields; Render publishes them for Git and only watches.',
  'spec.rollout':
    "WhenChanged puts a digest of the CA on istiod's pod template; Never relies on istiod's own file watch.",
  'spec.adopt': 'Take over, once, what somebody made by hand, without replacing the CA.',
  'spec.deletionPolicy': 'Retain leaves the CA and istiod as they are; Delete gives back what was made.',
};
