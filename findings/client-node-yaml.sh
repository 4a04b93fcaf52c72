#!/usr/bin/env bash
# Subject:     @kubernetes/client-node 2.0.1 (npm)
# One expects: `loadYaml` returns the object that the YAML describes, as other YAML libraries do; an API server takes it as JSON.
# What is so:  it returns a generated model. Keys that are no identifiers are renamed (`x-kubernetes-validations` to
#              `x_kubernetes_validations`, `default` to `_default`, `enum` to `_enum`) and keys without a property are dropped. Only the
#              library's own serializer names them back: of a CustomResourceDefinition that is sent as JSON,
#              the API server sees neither rules nor defaults.
# Source:      github.com/kubernetes-client/javascript, src/yaml.ts and src/gen/models/V1JSONSchemaProps.ts
source "$(dirname "$0")/lib.sh"
install npm:node@24.21.0 npm:@kubernetes/client-node@2.0.1

cat >main.mjs <<'JS'
import { loadYaml } from '@kubernetes/client-node';
const crd = loadYaml(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: widgets.example.com }
spec:
  group: example.com
  scope: Namespaced
  names: { plural: widgets, kind: Widget }
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          x-kubernetes-validations: [{ rule: "self.size > 0" }]
          properties: { size: { type: integer, default: 1 } }
`);
const schema = crd.spec.versions[0].schema.openAPIV3Schema;
console.log(Object.keys(schema).sort().join(' '));
console.log(Object.keys(schema.properties.size).sort().join(' '));
JS
version "$(jq --raw-output .version node_modules/@kubernetes/client-node/package.json), Node $(node --version)"
node main.mjs >out
expect "keys of the schema" "properties type x_kubernetes_validations" "$(sed --quiet 1p out)"
expect "keys of its property" "_default type" "$(sed --quiet 2p out)"
