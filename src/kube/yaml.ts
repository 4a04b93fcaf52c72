/** YAML as Kubernetes reads it; for scripts and the command line. */
export { dumpYaml, loadAllYaml, loadYaml } from '@kubernetes/client-node';
