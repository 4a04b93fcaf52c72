#!/usr/bin/env bash
# Subject:     zod 4.6.7 (npm), JSON Schema for a CustomResourceDefinition
# One expects: `z.toJSONSchema` with `reused: 'inline'` gives a schema without references, as a CustomResourceDefinition needs (an API server
#              refuses `$ref`).
# What is so:  that option is for schemas without a name. One with `id` in `.meta()` is moved to the definitions and referenced even when it
#              is used once; with another key of `.meta()` it stays inline.
# Source:      zod.dev/json-schema; kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions (structural schema)
source "$(dirname "$0")/lib.sh"
install npm:node@24.21.0 npm:zod@4.6.7

cat >main.mjs <<'JS'
import { z } from 'zod';
const options = { target: 'openapi-3.0', io: 'input', reused: 'inline' };
for (const meta of [{ title: 'Name' }, { id: 'Name' }]) {
  const name = z.string().max(63).meta(meta);
  const schema = JSON.stringify(z.toJSONSchema(z.object({ name }), options));
  console.log(`${Object.keys(meta)}: ${schema.includes('$ref') ? 'reference' : 'inline'}`);
}
JS
version "zod $(jq --raw-output .version node_modules/zod/package.json), Node $(node --version)"
expect "property with each key of meta" 'title: inline
id: reference' "$(node main.mjs)"
