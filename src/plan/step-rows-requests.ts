/** Rows of the steps that show a certificate signing request in the cluster. Pure. */
import { nameOfIssuer } from './facts/signature-request.ts';
import type { StepRows } from './step-row.ts';

const nothingWaits = 'no request waits for a signature';

export const requestRows: StepRows<'PublishCSR' | 'RemoveCSR' | 'RequestSignature'> = {
  PublishCSR: {
    condition: 'IntermediateReady',
    action: (step) => (step.again ? 'Update' : 'Create'),
    target: (step) => `configmap:${step.name}`,
    event: 'RequestPublished',
    planned: (step) => `Write the certificate signing request to ConfigMap ${step.name}`,
    done: (step) => `Wrote the certificate signing request to ConfigMap ${step.name}`,
    rereads: [],
    simulate: ({ kubernetes }, { csr }) => {
      kubernetes.requestMap = { content: { csr, others: false }, lacks: undefined };
    },
  },
  RemoveCSR: {
    condition: 'IntermediateReady',
    action: (step) => (step.others ? 'Update' : 'Delete'),
    target: (step) => `configmap:${step.name}`,
    event: 'RequestRemoved',
    planned: (step) => `${step.others ? 'Remove the request from' : 'Delete'} ConfigMap ${step.name}: ${nothingWaits}`,
    done: (step) => `${step.others ? 'Removed the request from' : 'Deleted'} ConfigMap ${step.name}: ${nothingWaits}`,
    rereads: [],
    simulate: ({ kubernetes }, { others }) => {
      kubernetes.requestMap = { content: others ? { csr: '', others } : 'none', lacks: undefined };
    },
  },
  RequestSignature: {
    condition: 'IntermediateReady',
    action: 'Create',
    target: (step) => `certificaterequest:${step.name}`,
    event: 'SignatureRequested',
    planned: (step) => `Create CertificateRequest ${step.name} for ${nameOfIssuer(step.issuer)}`,
    done: (step) => `Created CertificateRequest ${step.name} for ${nameOfIssuer(step.issuer)}`,
    rereads: [],
    simulate: ({ kubernetes }, { name }) => {
      kubernetes.certificateRequest = { state: 'waiting', name, approved: false, said: '' };
    },
  },
};
