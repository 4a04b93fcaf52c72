/** The entry point of the program. Each command has a file in `cli/`. */
import { redact } from './text/redact.ts';

const usage = `istio-vault-ca <command> [flags]

  run                      the operator; --vault-addresses or --allow-any-vault-address is required
  plan -f manifest.yaml    print what would change if it were applied, and change nothing;
                           exit code 0: nothing, 2: something, 1: it cannot be told, or something stands in the way
  render -f manifest.yaml  print what istiod needs, for Git; no server is asked
  backup -f manifest.yaml --recipient age1…
                           write the CA, with its key, to one file that only the recipients can read (age)
  restore -f manifest.yaml --identity FILE BACKUP
                           put such a file into a Vault that has lost the CA; nothing that exists is overwritten
  crd                      print the CustomResourceDefinition

Every flag can be given as an ISTIO_VAULT_CA_… environment variable. See README.md.
`;

/**
 * Runs a command. Its file is loaded at the call, because the commands need different libraries: `run` no CEL, `crd` no Kubernetes client.
 * @returns the exit code
 */
async function main([command, ...rest]: string[]): Promise<number> {
  switch (command) {
    case 'run':
      return await (await import('./cli/run.ts')).run(rest);
    case 'plan':
      return await (await import('./cli/plan.ts')).plan(rest);
    case 'render':
      return await (await import('./cli/render.ts')).render(rest);
    case 'backup':
      return await (await import('./cli/backup.ts')).backup(rest);
    case 'restore':
      return await (await import('./cli/restore.ts')).restore(rest);
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
  // The command has ended everything. Idle keep-alive connections would keep the process running.
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  // Invalid flags, an invalid manifest or an unreachable cluster: one line for the user, without a stack trace.
  process.stderr.write(`istio-vault-ca: ${redact(error instanceof Error ? error.message : 'failed')}\n`);
  process.exit(1);
}
