/**
 * The permitted imports of each folder of `src`, as data and as the configuration of dependency-cruiser (`npm run lint`). ARCHITECTURE.md
 * shows the same rows. test/unit/dependency-rules.test.ts compares both, and violates each row once.
 */

/**
 * `folder`: the importing files; `src/plan` means only the files directly in it. `imports`: other folders and files of `src` that they can
 * import. `packages`: npm packages that they can import. `node`: built-in modules that they can import; absent: all.
 */
export const rows = [
  { folder: 'src/text', imports: [], packages: [], node: [] },
  { folder: 'src/api', imports: [], packages: ['@marcbachmann/cel-js', 'zod'], node: [] },
  {
    folder: 'src/plan/facts',
    imports: ['src/api', 'src/text'],
    packages: ['@peculiar/asn1-schema', '@peculiar/asn1-x509'],
    node: ['crypto', 'util'],
  },
  {
    folder: 'src/plan/control-plane',
    imports: ['src/api', 'src/plan/facts', 'src/plan/steps.ts'],
    packages: [],
    node: ['util'],
  },
  {
    folder: 'src/plan/proof',
    imports: ['src/api', 'src/plan/facts', 'src/plan/control-plane'],
    packages: [],
    node: [],
  },
  { folder: 'src/plan/ownership', imports: ['src/api', 'src/text', 'src/plan/facts'], packages: [], node: [] },
  {
    folder: 'src/plan/rotation',
    imports: ['src/api', 'src/plan/facts', 'src/plan/control-plane', 'src/plan/proof'],
    packages: [],
    node: [],
  },
  {
    folder: 'src/plan/vault',
    imports: [
      'src/api',
      'src/text',
      'src/plan/facts',
      'src/plan/control-plane',
      'src/plan/ownership',
      'src/plan/rotation',
      'src/plan/steps.ts',
    ],
    packages: [],
    node: ['util'],
  },
  {
    folder: 'src/plan/status',
    imports: [
      'src/api',
      'src/text',
      'src/plan/facts',
      'src/plan/control-plane',
      'src/plan/proof',
      'src/plan/rotation',
      'src/plan/vault',
      'src/plan/step-table.ts',
      'src/plan/steps.ts',
    ],
    packages: [],
    node: ['util'],
  },
  {
    folder: 'src/plan',
    imports: [
      'src/api',
      'src/plan/facts',
      'src/plan/control-plane',
      'src/plan/ownership',
      'src/plan/rotation',
      'src/plan/vault',
    ],
    packages: [],
    node: ['util'],
  },
  { folder: 'src/runtime', imports: [], packages: ['@kubernetes/client-node', 'yaml'] },
  { folder: 'src/observability', imports: ['src/text'], packages: ['pino', 'prom-client'] },
  {
    folder: 'src/vault',
    imports: ['src/api', 'src/text', 'src/plan', 'src/runtime', 'src/observability'],
    packages: ['node-vault', 'zod'],
  },
  {
    folder: 'src/kube',
    imports: ['src/api', 'src/text', 'src/runtime', 'src/observability'],
    packages: ['@kubernetes/client-node', 'zod'],
  },
  { folder: 'src/control-planes', imports: ['src/api', 'src/plan', 'src/runtime/yaml.ts'], packages: ['yaml', 'zod'] },
  {
    folder: 'src/istiod',
    imports: ['src/api', 'src/text', 'src/plan', 'src/kube', 'src/runtime', 'src/observability'],
    packages: [],
  },
  {
    folder: 'src/controller',
    imports: [
      'src/api',
      'src/text',
      'src/plan',
      'src/vault',
      'src/kube',
      'src/control-planes',
      'src/istiod',
      'src/runtime',
      'src/observability',
      'src/config.ts',
    ],
    packages: ['zod'],
  },
];

const escape = (path) => path.replace(/[.]/g, '[.]');
const below = (path) => `^${escape(path)}${path.endsWith('.ts') ? '$' : '/'}`;

/** The pattern of the files of a row. For `src/plan` it matches only the files directly in it, because its folders have their own rows. */
const filesOf = (folder) => (folder === 'src/plan' ? '^src/plan/[^/]+$' : below(folder));

function rulesOf({ folder, imports, packages, node }) {
  const from = { path: filesOf(folder), pathNot: '[.]test[.]ts$' };
  const comment = `${folder} may import ${[...imports, ...packages].join(', ') || 'nothing'}: see scripts/dependency-rules.mjs`;
  const rule = (name, to) => ({ name: `${folder} ${name}`, severity: 'error', comment, from, to });
  return [
    rule('imports another folder', { path: '^src/', pathNot: [filesOf(folder), ...imports.map(below)] }),
    rule('imports a package', {
      path: 'node_modules/',
      pathNot: packages.map((name) => `node_modules/${name}/`),
    }),
    ...(node === undefined
      ? []
      : [
          rule('imports a module of Node', {
            dependencyTypes: ['core'],
            pathNot: node.map((name) => `^(node:)?${name}$`),
          }),
        ]),
  ];
}

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    ...rows.flatMap(rulesOf),
    { name: 'no circular imports', severity: 'error', from: {}, to: { circular: true } },
    { name: 'no import that cannot be resolved', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    // Type imports count too, because a reader of one file needs the other.
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'] },
  },
};
