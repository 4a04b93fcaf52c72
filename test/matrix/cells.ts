/**
 * The combinations that the operator is run with, as data: a value of a dimension is one entry of a table below, and so is a combination that is
 * refused. Pure, but for what an entry prepares.
 */
import { products, type Product } from '../stack/types.ts';
import type { Json } from '../support/json.ts';
import { byAppRole, byJwt, byToken, existing, external, imported, type Prepare, type Source } from './preparations.ts';

/** How the operator logs in to Vault: `spec.vault.auth`. */
export const authMethods: Readonly<Record<string, Prepare>> = {
  Kubernetes: ({ namespace }) => ({ method: 'Kubernetes', kubernetes: { role: `operator-${namespace}` } }),
  AppRole: byAppRole,
  JWT: byJwt,
  Token: byToken,
};

/** Where the CA comes from: merged into the spec. */
export const rootSources: Readonly<Record<string, Source>> = {
  Generate: { prepare: () => ({ root: { source: 'Generate' } }) },
  Existing: existing,
  External: external,
  Import: imported,
};

/** How istiod gets the files: `spec.delivery`. */
export const deliveries: Readonly<Record<string, Json>> = {
  Bundle: { source: 'Bundle' },
  'Bundle, crl: true': { source: 'Bundle', crl: true },
  PKI: { source: 'PKI' },
  'PKI, crl: true': { source: 'PKI', crl: true },
};

/** One combination. */
export interface Cell {
  readonly product: Product;
  readonly auth: string;
  readonly root: string;
  readonly delivery: string;
  readonly kv: 1 | 2;
}

/** Combinations that are refused. */
interface Refusal {
  readonly when: Partial<Cell>;
  /** Part of the message of the API server, or of `<reason>: <message>` of the condition `Ready`. */
  readonly says: string;
}

const refusals: readonly Refusal[] = [
  { when: { delivery: 'PKI, crl: true' }, says: 'delivery.crl cannot be used with delivery.source: PKI' },
  { when: { delivery: 'PKI', root: 'External' }, says: 'delivery.source: PKI reads the root from its mount' },
  { when: { delivery: 'PKI', root: 'Import' }, says: 'delivery.source: PKI reads certificates from PKI mounts' },
];

const dimensions = {
  product: products,
  auth: Object.keys(authMethods),
  root: Object.keys(rootSources),
  delivery: Object.keys(deliveries),
  kv: [2, 1],
} as const;

/** Every combination of the values of all dimensions. */
export const cells: readonly Cell[] = dimensions.product.flatMap((product) =>
  dimensions.auth.flatMap((auth) =>
    dimensions.root.flatMap((root) =>
      dimensions.delivery.flatMap((delivery) => dimensions.kv.map((kv) => ({ product, auth, root, delivery, kv }))),
    ),
  ),
);

/** The text that a refused cell answers with; undefined: it has to work. */
export const refusalOf = (cell: Cell): string | undefined =>
  refusals.find(({ when }) => Object.entries(when).every(([name, value]) => cell[name as keyof Cell] === value))?.says;

/** The name of a cell without its product, of which there is one for each cell in a run. */
export const nameOf = ({ auth, root, delivery, kv }: Omit<Cell, 'product'>): string =>
  `${auth} | ${root} | ${delivery} | ${kv}`;

/** The names of the dimensions in `nameOf`. */
export const nameHead = 'auth | root | delivery | KV';

const valuesOf = (cell: Cell): string[] => Object.entries(cell).map(([name, value]) => `${name}=${value}`);

/** Few cells with every value of every dimension, if possible in a cell that has to work; of those that cover as many, the first. */
export function covering(all: readonly Cell[]): Cell[] {
  const chosen: Cell[] = [];
  const open = new Set(all.flatMap(valuesOf));
  const score = (cell: Cell): number => {
    const values = valuesOf(cell);
    const gain = values.filter((value) => open.has(value)).length;
    const works = refusalOf(cell) === undefined;
    return gain > 0 && works ? gain + values.length : gain;
  };
  while (open.size > 0) {
    const best = all.reduce((one, other) => (score(other) > score(one) ? other : one));
    chosen.push(best);
    for (const value of valuesOf(best)) open.delete(value);
  }
  return chosen;
}
