/** The program: one subcommand, one file in `cli/`. */
import { scrub } from './observability/scrub.ts';

const usage = `istio-vault-ca <command> [flags]

  run                      the operator; --vault-addresses or --allow-any-vault-address is required
  plan -f manifest.yaml    print what would change if it were applied, and change nothing;
                           exit code 0: nothing, 2: something, 1: it cannot be told, or something stands in the way
  render -f manifest.yaml  print what istiod needs, for Git; no server is asked
  crd                      print the CustomResourceDefinition

Every flag can be given as an ISTIO_VAULT_CA_… environment variable. See README.md.
`;

/** Runs a command. Each is loaded when it is called: `run` needs no CEL, `crd` no client of Kubernetes. @returns the exit code */
async function main([command, ...rest]: string[]): Promise<number> {
  switch (command) {
    case 'run':
      return await (await import('./cli/run.ts')).run(rest);
    case 'plan':
      return await (await import('./cli/plan.ts')).plan(rest);
    case 'render':
      return await (await import('./cli/render.ts')).render(rest);
    case 'crd':
      return (await import('./cli/crd.ts')).crd();
    case 'help':
    case '--help':
    case '-h':
      process.stdout.write(usage);
      return 0;
    default:
      process.stderr.write(
        `${command === undefined ? 'no command given' : `unknown command "${command}"`}\n\n${usage}`,
      );
      return 1;
  }
}

try {
  // everything was ended in order; idle keep-alive connections must not hold the process
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  // mistakes in flags or a manifest, and a cluster that cannot be reached: one line for a person, no stack
  process.stderr.write(`istio-vault-ca: ${scrub(error instanceof Error ? error.message : 'failed')}\n`);
  process.exit(1);
}
