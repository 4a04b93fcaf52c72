/** Annotations on the resource and on the control plane, and other names users see. */

export const fieldManager = 'istio-vault-ca';

/** Holds a resource whose deletion takes what it made with it. */
export const finalizer = 'istiovaultca.io/cleanup';

/** Annotations on an `IstioVaultCA`. */
export const annotations = {
  reconcileRequestedAt: 'istiovaultca.io/reconcile-requested-at',
  rotateIntermediate: 'istiovaultca.io/rotate-intermediate',
  rotateRoot: 'istiovaultca.io/rotate-root',
  pauseRotation: 'istiovaultca.io/pause-rotation',
  rollbackRotation: 'istiovaultca.io/rollback-rotation',
  allowReissue: 'istiovaultca.io/allow-reissue',
  confirmDeleteRoot: 'istiovaultca.io/confirm-delete-root',
  skipCleanup: 'istiovaultca.io/skip-cleanup',
  takeOver: 'istiovaultca.io/take-over',
  skipPreflight: 'istiovaultca.io/skip-preflight',
  confirmRootChange: 'istiovaultca.io/confirm-root-change',
} as const;

/** Annotations whose text starts an action once; handled texts are recorded in `<path>-state`. */
export const actionAnnotations = [
  annotations.rotateIntermediate,
  annotations.rotateRoot,
  annotations.rollbackRotation,
  annotations.allowReissue,
] as const;

/** On the control plane: which resource owns the fields of this revision. */
export const ownerAnnotation = (revision: string | undefined) => `istiovaultca.io/owner-${revision ?? 'default'}`;
/** On the control plane: what stood at our fields before, as JSON. */
export const previousAnnotation = (revision: string | undefined) => `istiovaultca.io/previous-${revision ?? 'default'}`;
/** On istiod's pod template: a digest of the CA, so that a change rolls the Deployment. */
export const digestAnnotation = 'istiovaultca.io/ca-digest';
