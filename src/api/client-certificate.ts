/** Keys of the Secret that `spec.vault.tls.clientCertSecretRef` names, as cert-manager and `kubectl create secret` name them. */
export const clientCertificateKeys = { ca: 'ca.crt', cert: 'tls.crt', key: 'tls.key' } as const;
