import tseslint from 'typescript-eslint';

/** Imports go one way: api ← plan ← {vault, kube, control-planes, istiod} ← controller ← cli, main. */
const layer = (files, forbidden) => ({
  files,
  rules: {
    'no-restricted-imports': [
      'error',
      {
        patterns: forbidden.map((f) => ({ group: [f], message: 'Imports go one way; see ARCHITECTURE.md.' })),
      },
    ],
  },
});

const clientNode = '@kubernetes/client-node';
const nodeVault = 'node-vault';

export default tseslint.config(
  { ignores: ['dist/**', 'node_modules/**', 'test/stack/modules/**'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': [
        'error',
        { ignoreArrowShorthand: true, ignoreVoidReturningFunctions: true },
      ],
      'max-lines': ['error', { max: 350, skipBlankLines: true, skipComments: true }],
    },
  },
  layer(
    ['src/api/**/*.ts'],
    [
      '../plan/**',
      '../vault/**',
      '../kube/**',
      '../istiod/**',
      '../control-planes/**',
      '../controller/**',
      '../runtime/**',
      '../observability/**',
      clientNode,
      nodeVault,
    ],
  ),
  layer(
    ['src/plan/**/*.ts'],
    [
      '../vault/**',
      '../kube/**',
      '../istiod/**',
      '../controller/**',
      '../runtime/**',
      '../observability/**',
      clientNode,
      nodeVault,
    ],
  ),
  layer(['src/vault/**/*.ts'], ['../kube/**', '../istiod/**', '../control-planes/**', '../controller/**', clientNode]),
  layer(['src/kube/**/*.ts'], ['../vault/**', '../istiod/**', '../controller/**', nodeVault]),
  // reads the cluster by the client that it is given
  layer(['src/istiod/**/*.ts'], ['../vault/**', '../controller/**', '../kube/informers.ts', clientNode, nodeVault]),
  layer(
    ['src/control-planes/**/*.ts'],
    ['../vault/**', '../istiod/**', '../kube/**', '../controller/**', clientNode, nodeVault],
  ),
  layer(
    ['src/runtime/**/*.ts'],
    ['../api/**', '../plan/**', '../vault/**', '../istiod/**', '../control-planes/**', '../controller/**', nodeVault],
  ),
  layer(['src/controller/**/*.ts', 'src/cli/**/*.ts'], [clientNode, nodeVault]),
  {
    files: ['**/*.test.ts', 'test/**/*.ts'],
    rules: { 'max-lines': 'off', '@typescript-eslint/no-non-null-assertion': 'off' },
  },
);
