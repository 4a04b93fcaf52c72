/** A resource type of the API server. `group` is empty for the core group; `plural` is the name in paths, such as `configmaps`. */
export interface Gvr {
  group: string;
  version: string;
  plural: string;
}
