/** A folder of `src` and the permitted imports of its files; see dependency-rules.mjs. */
export interface Row {
  folder: string;
  imports: string[];
  packages: string[];
  node?: string[];
}

export const rows: Row[];
