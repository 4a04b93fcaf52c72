/** One folder of `src`, and what its files may import. */
export interface Row {
  folder: string;
  imports: string[];
  packages: string[];
  node?: string[];
}

export const rows: Row[];
