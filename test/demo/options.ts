/** The demo's command line. */
import { parseArgs } from 'node:util';
import { findVersion, versionsOf } from '../stack/builds/versions.ts';
import type { Product } from '../stack/index.ts';
import { productTraits } from '../stack/vault.ts';

export interface DemoOptions {
  readonly product: Product;
  /** Of the product; undefined: the default one. */
  readonly version: string | undefined;
  readonly istiod: boolean;
  readonly keep: boolean;
  readonly help: boolean;
}

export const usage = `usage: npm run demo -- [options]

Starts a real Kubernetes API server and OpenBao or Vault on this machine, the operator against them, applies
deploy/samples/minimal.yaml, and shows what came of it. Everything is stopped at the end.

  --vault openbao|vault  which server is the CA (default: openbao)
  --version V            its version, or the newest that begins so (openbao: ${versionsOf('openbao').join(', ')};
                         vault: ${versionsOf('vault').join(', ')}; default: the first)
  --istiod               also start a real istiod on the files and have it sign a workload certificate
  --keep                 leave everything running until Ctrl-C, and say how to reach it
  --help                 this text

environment:
  TEST_STACK             processes or containers; default: containers where a Docker daemon has the images
  ISTIO_VAULT_CA_CACHE   folder of the servers that are built or downloaded once
  KEEP_STACK=1           keep the folders with logs
  NO_COLOR               no colours
`;

/** An invalid command line; the message contains the reason. */
export class UsageError extends Error {}

const products: Readonly<Record<string, Product>> = { openbao: 'OpenBao', vault: 'Vault' };

/** @throws UsageError */
export function parseOptions(args: readonly string[]): DemoOptions {
  const { keep, istiod, help, vault, version } = parse(args);
  const product = products[vault];
  if (product === undefined) throw new UsageError(`--vault is openbao or vault, not "${vault}"`);
  return { product, version: version === undefined ? undefined : found(product, version), keep, istiod, help };
}

function found(product: Product, version: string): string {
  try {
    return findVersion(productTraits[product].server, version);
  } catch (error) {
    throw new UsageError(`--version: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        vault: { type: 'string', default: 'openbao' },
        version: { type: 'string' },
        istiod: { type: 'boolean', default: false },
        keep: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }).values;
  } catch (error) {
    // Node's message continues after the first sentence with advice about positional arguments.
    throw new UsageError(error instanceof Error ? error.message.replace(/\. .*/s, '') : String(error));
  }
}
