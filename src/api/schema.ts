/**
 * The zod schema of `IstioVaultCA`: the only source of its types, its defaults and `crds/istiovaultcas.yaml`. docs/api.md describes the fields.
 * Rules between fields are CEL rules, so that the API server evaluates them.
 */
import { z } from 'zod';
import { allowedTextRules, auditOptions, deliveryAnnotations } from './allowed-texts.ts';
import {
  address,
  atomicList,
  cel,
  dataKey,
  duration,
  keyRef,
  nameRef,
  objectName,
  required,
  subjectText,
  text,
  vaultName,
  vaultPath,
} from './fields.ts';
import { specRules } from './rules.ts';
import { statusSchema } from './status-schema.ts';

export const group = 'istiovaultca.io';
export const version = 'v1alpha1';
export const kind = 'IstioVaultCA';
export const plural = 'istiovaultcas';

const keyType = z.enum(['rsa', 'ec']).default('rsa');
const keyBits = z.literal([256, 384, 2048, 3072, 4096]);
const keyBitsRule = {
  rule: "!has(self.bits) || (self.type == 'rsa' ? self.bits in [2048, 3072, 4096] : self.bits in [256, 384])",
  message: 'key.bits must be 2048, 3072 or 4096 for rsa and 256 or 384 for ec',
  fieldPath: '.bits',
} as const;

const tls = z
  .object({
    caConfigMapRef: keyRef('ca.crt').optional(),
    caSecretRef: keyRef('ca.crt').optional(),
    serverName: z
      .string()
      .min(1)
      .max(253)
      .regex(/^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/)
      .optional(),
    clientCertSecretRef: nameRef().optional(),
  })
  .meta(
    cel({
      rule: '!(has(self.caConfigMapRef) && has(self.caSecretRef))',
      message: 'vault.tls: give caConfigMapRef or caSecretRef, not both',
    }),
  );

const serviceAccountLogin = (mount: string) =>
  z.object({
    mount: vaultPath().default(mount),
    role: vaultName(),
    serviceAccountName: objectName().default('istio-vault-ca'),
    audiences: z.array(required(253)).max(8).default(['vault']).meta(atomicList),
  });

const auth = z
  .object({
    method: z.enum(['Kubernetes', 'AppRole', 'Token', 'JWT']).default('Kubernetes'),
    kubernetes: serviceAccountLogin('kubernetes').optional(),
    appRole: z
      .object({ mount: vaultPath().default('approle'), roleId: required(256), secretIdRef: keyRef('secret-id') })
      .optional(),
    token: z.object({ secretRef: keyRef('token') }).optional(),
    jwt: serviceAccountLogin('jwt').optional(),
  })
  .meta(
    cel({
      rule: [
        ['Kubernetes', 'kubernetes'],
        ['AppRole', 'appRole'],
        ['Token', 'token'],
        ['JWT', 'jwt'],
      ]
        .map(([method, field]) => `(self.method == '${method}') == has(self.${field})`)
        .join(' && '),
      message: 'vault.auth: give exactly the sub-object of method (kubernetes, appRole, token or jwt)',
    }),
  );

const vault = z.object({
  address: address(),
  injectorAddress: address().optional(),
  namespace: vaultPath().optional(),
  tls: tls.optional(),
  auth,
});

const audit = z
  .object({
    path: vaultPath(),
    // earlier versions also took the other two, and resources that have them must still be understood
    type: z.enum(['file', 'socket', 'syslog']).default('file'),
    options: z
      .record(z.string(), text(1024))
      .default({})
      .meta({ maxProperties: 16, ...cel(...allowedTextRules('audit.options', auditOptions)) }),
  })
  .meta(
    cel({
      rule: "!has(self.type) || self.type == 'file'",
      message: 'audit.type must be file: the other devices send to places that this resource cannot know',
      fieldPath: '.type',
    }),
  );

const root = z
  .object({
    source: z.enum(['Generate', 'Existing', 'External']).default('Generate'),
    manage: z.boolean().default(true),
    shared: z.boolean().default(false),
    mount: vaultPath().default('pki'),
    commonName: subjectText(64).min(1).default('Istio Root CA'),
    organization: subjectText(64).default(''),
    ttl: duration().default('87600h'),
    key: z.object({ type: keyType, bits: keyBits.optional() }).meta(cel(keyBitsRule)).prefault({}),
    existing: z
      .object({
        issuerRef: vaultName().optional(),
        rootCertRef: z.object({ configMapRef: keyRef('ca.crt') }).optional(),
      })
      .optional(),
    external: z
      .object({
        signed: z
          .object({ configMapRef: keyRef('tls.crt').optional(), secretRef: keyRef('tls.crt').optional() })
          .optional(),
        rootCertRef: z.object({ configMapRef: keyRef('ca.crt') }).optional(),
        certManagerIssuerRef: z
          .object({
            name: objectName(),
            kind: required(63)
              .regex(/^[A-Za-z][A-Za-z0-9]*$/)
              .default('Issuer'),
            group: objectName().default('cert-manager.io'),
          })
          .optional(),
      })
      .optional(),
  })
  .meta(
    cel(
      {
        rule: "self.source == 'Existing' || !has(self.existing)",
        message: 'root.existing needs root.source: Existing',
        fieldPath: '.existing',
      },
      {
        rule: "self.source == 'External' || !has(self.external)",
        message: 'root.external needs root.source: External',
        fieldPath: '.external',
      },
      {
        rule: "!has(self.source) || self.source != 'External' || (has(self.external) && (has(self.external.signed) ? has(self.external.signed.configMapRef) != has(self.external.signed.secretRef) : has(self.external.certManagerIssuerRef)))",
        message:
          'root.source: External needs root.external.signed with exactly one of configMapRef and secretRef, or root.external.certManagerIssuerRef, or both: where the signed certificate comes from',
        fieldPath: '.external',
      },
    ),
  );

const intermediate = z
  .object({
    source: z.enum(['Issue', 'Import']).default('Issue'),
    manage: z.boolean().default(true),
    mount: vaultPath().default('istioca'),
    commonName: subjectText(64).min(1).default('Istio Intermediate CA'),
    organization: subjectText(64).default(''),
    ttl: duration().default('43800h'),
    maxPathLength: z.int().min(0).max(10).default(0),
    key: z
      .object({ type: keyType, bits: keyBits.optional(), rotationPolicy: z.enum(['Always', 'Never']).optional() })
      .meta(cel(keyBitsRule))
      .prefault({}),
    renewBefore: duration().optional(),
    maxWorkloadCertTTL: duration().optional(),
    importRef: z.object({ secretRef: nameRef() }).optional(),
  })
  .meta(
    cel({
      rule: "!has(self.source) || self.source != 'Import' || has(self.importRef)",
      message: 'intermediate.source: Import needs intermediate.importRef: the Secret with the CA',
      fieldPath: '.importRef',
    }),
  );

const keyStore = z
  .object({
    manage: z.boolean().default(true),
    mount: vaultPath().default('kv'),
    path: vaultPath().default('istioca'),
    version: z.literal([1, 2]).default(2),
  })
  .meta(
    cel({
      rule: "!has(self.path) || !(self.path.endsWith('-staging') || self.path.endsWith('-state'))",
      message: 'keyStore.path may not end in -staging or -state: these entries stand beside it',
      fieldPath: '.path',
    }),
  );

const delivery = z
  .object({
    source: z.enum(['Bundle', 'PKI']).default('Bundle'),
    directory: z
      .string()
      .min(2)
      .max(253)
      .regex(/^(\/[A-Za-z0-9_-]([A-Za-z0-9._-]*[A-Za-z0-9_-])?)+$/)
      .default('/vault/secrets')
      .meta(
        cel({
          rule: "self != '/etc/cacerts'",
          message: 'delivery.directory may not be /etc/cacerts: the istiod chart mounts a Secret there',
        }),
      ),
    refreshInterval: duration().default('1m'),
    annotations: z
      .record(z.string(), text(4096))
      .default({})
      .meta({
        maxProperties: 32,
        ...cel(...allowedTextRules('delivery.annotations', deliveryAnnotations)),
      }),
    crl: z.boolean().default(false),
  })
  .meta(
    cel(
      {
        rule: "!has(self.crl) || !self.crl || !has(self.source) || self.source != 'PKI'",
        message: 'delivery.crl cannot be used with delivery.source: PKI, which changes files one by one: use Bundle',
        fieldPath: '.crl',
      },
      {
        rule: "!has(self.refreshInterval) || duration(self.refreshInterval) >= duration('1s')",
        message: 'delivery.refreshInterval must be at least 1s',
        fieldPath: '.refreshInterval',
      },
    ),
  );

const kubernetesAuth = z
  .object({
    manage: z.boolean().default(true),
    mount: vaultPath().default('kubernetes'),
    role: vaultName().default('istiod'),
    serviceAccountNames: z.array(objectName()).min(1).max(20).optional().meta(atomicList),
    audience: z.enum(['istio-ca']).optional(),
    tokenTTL: duration().default('24h'),
    config: z
      .object({
        manage: z.boolean().default(false),
        kubernetesHost: address().default('https://kubernetes.default.svc'),
        kubernetesCA: z
          .object({
            configMapRef: z
              .object({ name: objectName().default('kube-root-ca.crt'), key: dataKey().default('ca.crt') })
              .prefault({}),
          })
          .prefault({}),
        tokenReviewer: z
          .object({
            mode: z.enum(['VaultLocal', 'ClientToken', 'Secret']).default('VaultLocal'),
            secretRef: keyRef('token').optional(),
          })
          .meta(
            cel({
              rule: "!has(self.mode) || (self.mode == 'Secret') == has(self.secretRef)",
              message: 'tokenReviewer.secretRef goes with mode: Secret, and only with it',
              fieldPath: '.secretRef',
            }),
          )
          .prefault({}),
      })
      .prefault({}),
  })
  .meta(
    cel({
      rule: "!(has(self.audience) && self.config.tokenReviewer.mode == 'ClientToken')",
      message: 'tokenReviewer.mode ClientToken cannot be used with audience: such a token cannot call TokenReview',
      fieldPath: '.config.tokenReviewer.mode',
    }),
  );

const controlPlane = z.object({
  kind: z.enum(['TetrateControlPlane', 'IstioOperator', 'Sail', 'HelmValues']),
  name: objectName(),
  revision: z
    .string()
    .min(1)
    .max(63)
    .regex(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/)
    .optional(),
  write: z.enum(['Patch', 'Render']).default('Patch'),
  holdApplicationUntilProxyStarts: z.boolean().default(false),
});

// The default of an object whose fields all have defaults is {}. The API server validates this {} with the rules of the object before it
// adds the defaults of the fields. Rules of such an object therefore call has() first.

/** The schema of `spec`, with all defaults. */
export const specSchema = z
  .object({
    mode: z.enum(['Enforce', 'Plan']).default('Enforce'),
    suspend: z.boolean().default(false),
    vault,
    audit: audit.optional(),
    root: root.prefault({}),
    intermediate: intermediate.prefault({}),
    keyStore: keyStore.prefault({}),
    delivery: delivery.prefault({}),
    policy: z
      .object({
        manage: z.boolean().default(true),
        name: z
          .string()
          .min(1)
          .max(128)
          .regex(/^[a-z0-9_-]([a-z0-9._-]*[a-z0-9_-])?$/)
          .default('istioca'),
      })
      .meta(
        cel({
          rule: "!has(self.name) || !(self.name in ['root', 'default'])",
          message: 'policy.name may not be root or default: these are Vault’s own',
          fieldPath: '.name',
        }),
      )
      .prefault({}),
    kubernetesAuth: kubernetesAuth.prefault({}),
    controlPlane,
    rollout: z.enum(['WhenChanged', 'Never']).default('WhenChanged'),
    adopt: z.boolean().default(false),
    deletionPolicy: z.enum(['Retain', 'Delete']).default('Retain'),
  })
  .meta(cel(...specRules));

const metadataSchema = z.looseObject({
  name: z.string(),
  namespace: z.string(),
  uid: z.string().default(''),
  generation: z.number().default(0),
  resourceVersion: z.string().default(''),
  creationTimestamp: z.string().default(''),
  deletionTimestamp: z.string().optional(),
  finalizers: z.array(z.string()).default([]),
  annotations: z.record(z.string(), z.string()).default({}),
});

/** The schema of a resource as the API server returns it. An invalid `status` is read as undefined. */
export const resourceSchema = z.object({
  apiVersion: z.literal(`${group}/${version}`),
  kind: z.literal(kind),
  metadata: metadataSchema,
  spec: specSchema,
  status: statusSchema.optional().catch(undefined),
});

/** The spec with all defaults applied. */
export type Spec = z.output<typeof specSchema>;
/** A resource with all defaults applied. */
export type IstioVaultCA = z.output<typeof resourceSchema>;
