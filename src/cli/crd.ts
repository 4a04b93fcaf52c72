/** `crd`: prints the CustomResourceDefinition of this version. */
import { customResourceDefinition } from '../api/crd.ts';
import { dumpYaml } from '../runtime/yaml.ts';

export function crd(): number {
  process.stdout.write(dumpYaml(customResourceDefinition()));
  return 0;
}
