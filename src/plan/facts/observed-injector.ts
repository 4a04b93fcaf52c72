/** The mutating webhook of an agent injector, as far as it decides whether the Pods of istiod get an agent. */
export interface ObservedInjector {
  /** A webhook of an injector is registered. If not, the other fields are empty or false. */
  found: boolean;
  name: string;
  failurePolicy?: string;
  /** Its namespaceSelector selects the namespace of istiod. */
  selectsNamespace: boolean;
  /** Its objectSelector selects the Pods of istiod, and its rules include the creation of Pods. */
  selectsPods: boolean;
  /** Names of its `matchConditions`, CEL expressions over the request that the operator does not evaluate. */
  matchConditions: string[];
  /** The Service that answers it, as `namespace/name`; `answers`: it has a ready endpoint. Absent: the webhook has a URL. */
  service?: { name: string; answers: boolean | 'unreadable' } | undefined;
}

/** No webhook of an injector is registered. */
export const noInjector: ObservedInjector = {
  found: false,
  name: '',
  selectsNamespace: false,
  selectsPods: false,
  matchConditions: [],
};
