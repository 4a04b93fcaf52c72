/** The command line of `npm run test:matrix`. */
import { parseArgs } from 'node:util';
import { findVersion, versionsOf, type VersionedServer } from '../stack/builds/versions.ts';
import { products, type Product } from '../stack/types.ts';
import { productTraits } from '../stack/vault.ts';

export interface MatrixOptions {
  /** The versions to run, newest first. */
  readonly versions: Readonly<Record<Product, readonly string[]>>;
  readonly write: boolean;
  readonly help: boolean;
}

/** An invalid command line; the message contains the reason. */
export class UsageError extends Error {}

const listed = (product: Product): string => versionsOf(productTraits[product].server).join(', ');

export const usage = `usage: npm run test:matrix -- [options]

Runs the operator with every combination of login, root, delivery and KV version (test/matrix/cells.ts), on every version of both
products or on the chosen ones: from an empty server to Provisioned=True and a renewal. The exit code is 1 if a combination fails.

options:
  --product openbao|vault  only this product
  --version V              with --product, only this version, or the newest that begins so (1.18); can be repeated
  --write                  also writes the results into docs/compatibility.md
  --help                   this text

versions:
  openbao                  ${listed('OpenBao')}
  vault                    ${listed('Vault')}; each is built once, 1.17 and 1.16 within half an hour of two cores

environment:
  ISTIO_VAULT_CA_CACHE     folder of the servers that are built or downloaded once
`;

/** @throws UsageError */
export function parseOptions(args: readonly string[]): MatrixOptions {
  const { product: named, version = [], write, help } = parse(args);
  const product = products.find((one) => one.toLowerCase() === named);
  if (named !== undefined && product === undefined)
    throw new UsageError(`--product is openbao or vault, not "${named}"`);
  if (product === undefined && version.length > 0) throw new UsageError('--version needs --product');
  const chosen = (one: Product): readonly string[] => {
    const server = productTraits[one].server;
    if (product !== undefined && product !== one) return [];
    return version.length === 0 ? versionsOf(server) : version.map((text) => found(server, text));
  };
  return { versions: { OpenBao: chosen('OpenBao'), Vault: chosen('Vault') }, write, help };
}

function found(server: VersionedServer, text: string): string {
  try {
    return findVersion(server, text);
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        product: { type: 'string' },
        version: { type: 'string', multiple: true },
        write: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }).values;
  } catch (error) {
    // Node's message continues after the first sentence with advice about positional arguments.
    throw new UsageError(error instanceof Error ? error.message.replace(/\. .*/s, '') : String(error));
  }
}
