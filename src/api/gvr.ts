/**
 * A resource type of the API server (group, version, resource). `group` is empty for the core group. `plural` is the name in URL paths, such as
 * `configmaps`.
 */
export interface Gvr {
  group: string;
  version: string;
  plural: string;
}
