/** User-visible names: annotations, the finalizer and the field manager. */

/** The field manager of the operator's server-side apply requests. */
export const fieldManager = 'istio-vault-ca';

/** Finalizer of a resource with `deletionPolicy: Delete`: the cleanup must finish before the resource is deleted. */
export const finalizer = 'istiovaultca.io/cleanup';

/** Annotations on an `IstioVaultCA`. */
export const annotations = {
  reconcileRequestedAt: 'istiovaultca.io/reconcile-requested-at',
  rotateIntermediate: 'istiovaultca.io/rotate-intermediate',
  rotateRoot: 'istiovaultca.io/rotate-root',
  pauseRotation: 'istiovaultca.io/pause-rotation',
  rollbackRotation: 'istiovaultca.io/rollback-rotation',
  membersReady: 'istiovaultca.io/members-ready',
  allowReissue: 'istiovaultca.io/allow-reissue',
  confirmDeleteRoot: 'istiovaultca.io/confirm-delete-root',
  skipCleanup: 'istiovaultca.io/skip-cleanup',
  takeOver: 'istiovaultca.io/take-over',
  skipPreflight: 'istiovaultca.io/skip-preflight',
  confirmRootChange: 'istiovaultca.io/confirm-root-change',
} as const;

/** Annotations that start an action once per value. The state entry records the handled values. */
export const actionAnnotations = [
  annotations.rotateIntermediate,
  annotations.rotateRoot,
  annotations.rollbackRotation,
  annotations.membersReady,
  annotations.allowReissue,
] as const;

/** Annotation of the control plane: name of the resource that owns the fields of this revision. */
export const ownerAnnotation = (revision: string | undefined) => `istiovaultca.io/owner-${revision ?? 'default'}`;
/** Annotation of the control plane: what the operator's fields contained before the first write, as JSON. */
export const previousAnnotation = (revision: string | undefined) => `istiovaultca.io/previous-${revision ?? 'default'}`;
/** Annotation of istiod's Pod template: a digest of the CA. A change of it starts a rollout of the Deployment. */
export const digestAnnotation = 'istiovaultca.io/ca-digest';
