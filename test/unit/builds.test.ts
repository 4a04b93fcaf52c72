/** How the servers of the tests are built: what the Go command says, and which builds go on at the same time. */
import { describe, expect, it } from '@jest/globals';
import { buildFlags, type GoServer } from '../stack/builds/catalog.ts';
import { programName } from '../stack/builds/go.ts';
import { begunIn, downloadsIn, stalePackages, unfinishedIds, withoutPaths } from '../stack/builds/packages.ts';
import { buildLimit, compilerEnv, mayStart, oneAtATime } from '../stack/builds/turns.ts';

/** As Go 1.26 prints it for a program with an empty cache; most packages are left out. */
const listing = [
  'go: downloading github.com/go-errors/errors v1.4.2',
  'go: downloading github.com/xlab/treeprint v1.2.0',
  'stale\tinternal/goarch\t\t',
  'stale\tinternal/abi\t\tinternal/goarch unsafe',
  'stale\tgithub.com/go-errors/errors\tv1.4.2\tinternal/abi',
  'stale\texample.test/programs/one\t\tgithub.com/go-errors/errors internal/abi',
  '',
].join('\n');

const packages = stalePackages(listing);

describe('what the Go command prints', () => {
  it('lists the packages that are to be compiled, with what they import', () => {
    expect([...packages.values()]).toEqual([
      { path: 'internal/goarch', id: 'internal/goarch@', imports: [] },
      { path: 'internal/abi', id: 'internal/abi@', imports: ['internal/goarch', 'unsafe'] },
      {
        path: 'github.com/go-errors/errors',
        id: 'github.com/go-errors/errors@v1.4.2',
        imports: ['internal/abi'],
      },
      {
        path: 'example.test/programs/one',
        id: 'example.test/programs/one@',
        imports: ['github.com/go-errors/errors', 'internal/abi'],
      },
    ]);
  });

  it('lists nothing when everything is compiled', () => {
    expect(stalePackages('\n').size).toBe(0);
  });

  it('counts the modules that are downloaded', () => {
    expect(downloadsIn(listing)).toBe(2);
    expect(downloadsIn('')).toBe(0);
  });

  it('counts the packages that are being compiled, and nothing else', () => {
    const output = 'internal/goarch\ninternal/abi\n# internal/abi\n./abi.go:1:1: internal/goarch\n';
    expect([...begunIn(output, packages)]).toEqual(['internal/goarch', 'internal/abi']);
  });

  it('leaves only messages of a failed build', () => {
    const output = 'internal/goarch\ninternal/abi\n# internal/abi\n./abi.go:1:1: undefined: x\n';
    expect(withoutPaths(output, packages)).toBe('# internal/abi\n./abi.go:1:1: undefined: x\n');
  });

  it('shows that a package is compiled by the first one that imports it', () => {
    const after = (...begun: string[]) => [...unfinishedIds(packages, new Set(begun))];
    expect(after()).toEqual([...packages.values()].map(({ id }) => id));
    expect(after('internal/goarch')).toContain('internal/goarch@');
    expect(after('internal/goarch', 'internal/abi')).toEqual([
      'internal/abi@',
      'github.com/go-errors/errors@v1.4.2',
      'example.test/programs/one@',
    ]);
    expect(after(...packages.keys())).toEqual(['example.test/programs/one@']);
  });
});

describe('builds at the same time', () => {
  const running = (...unfinished: string[]) => ({ unfinished: new Set(unfinished) });
  const needed = new Set(['a@v1', 'b@v1']);

  it('start when no other one still compiles what they need', () => {
    expect(mayStart(needed, [], 2)).toBe(true);
    expect(mayStart(needed, [running('c@v1', 'a@v2')], 2)).toBe(true);
    expect(mayStart(new Set(), [running('a@v1')], 2)).toBe(true);
  });

  it('wait for what another one compiles', () => {
    expect(mayStart(needed, [running('c@v1', 'b@v1')], 2)).toBe(false);
  });

  it('wait for room', () => {
    expect(mayStart(needed, [running(), running()], 2)).toBe(false);
  });

  it.each([
    { cores: 1, gibibytes: 16, limit: 2 },
    { cores: 2, gibibytes: 8, limit: 2 },
    { cores: 2, gibibytes: 7, limit: 1 },
    { cores: 2, gibibytes: 2, limit: 1 },
    { cores: 16, gibibytes: 64, limit: 4 },
    { cores: 16, gibibytes: 12, limit: 3 },
  ])('are $limit with $cores cores and $gibibytes GiB', ({ cores, gibibytes, limit }) => {
    expect(buildLimit(cores, gibibytes * 1024 ** 3)).toBe(limit);
  });

  it.each([
    { cores: 2, gibibytes: 24, lean: true },
    { cores: 2, gibibytes: 7, lean: true },
    { cores: 2, gibibytes: 3, lean: false },
    { cores: 16, gibibytes: 64, lean: false },
  ])('get as much memory as there is with $cores cores and $gibibytes GiB', ({ cores, gibibytes, lean }) => {
    const env = compilerEnv(cores, gibibytes * 1024 ** 3);
    expect(env).toEqual(lean ? { GOGC: 'off', GOMEMLIMIT: '2GiB' } : {});
  });

  it('take their turns in the order in which they came, also after a failure', async () => {
    const inOrder = oneAtATime();
    const done: string[] = [];
    const end = Promise.withResolvers<undefined>();
    const results = Promise.allSettled([
      inOrder(async () => {
        await end.promise;
        done.push('first');
        throw new Error('failed');
      }),
      inOrder(() => Promise.resolve(done.push('second'))),
    ]);
    expect(done).toEqual([]);
    end.resolve(undefined);
    expect((await results).map(({ status }) => status)).toEqual(['rejected', 'fulfilled']);
    expect(done).toEqual(['first', 'second']);
  });
});

describe('flags', () => {
  const server: GoServer = { kind: 'go', version: '1', module: 'etcd', programs: [] };

  it('are the same for every server but for its tag and variables, so that packages are compiled once', () => {
    const plain = ['-trimpath', '-gcflags=all=-dwarf=false', '-ldflags=-s -w'];
    expect(buildFlags(server)).toEqual(plain);
    expect(buildFlags({ ...server, tag: 'minimal' })).toEqual([...plain, '-tags=minimal']);
    expect(buildFlags({ ...server, variables: ['a.b=1', 'c.d=2'] })).toEqual([
      ...plain.slice(0, 2),
      '-ldflags=-s -w -X a.b=1 -X c.d=2',
    ]);
  });
});

it.each([
  ['k8s.io/kubernetes/cmd/kubectl', 'kubectl'],
  ['go.etcd.io/etcd/server/v3', 'server'],
  ['example.test/v2/tool', 'tool'],
])('the program of %s is called %s', (pkg, name) => {
  expect(programName(pkg)).toBe(name);
});
