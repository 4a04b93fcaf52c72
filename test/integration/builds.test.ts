/** The builder of the servers, with the real Go command and modules that take seconds. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, it } from '@jest/globals';
import { buildGo, type GoBuild } from '../stack/builds/go.ts';
import { makeTemporaryDir } from '../stack/index.ts';

const dir = makeTemporaryDir('builds');
const env = {
  PATH: process.env['PATH'],
  GOCACHE: join(dir, 'cache'),
  GOPATH: join(dir, 'path'),
  GOENV: 'off',
  GOTOOLCHAIN: 'local',
};

function write(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

/** A module with programs that print its name and share a package. */
function goBuild(name: string, programs: readonly string[]): GoBuild {
  const module = join(dir, name);
  write(join(module, 'go.mod'), `module example.test/${name}\n\ngo 1.24\n`);
  write(join(module, 'shared/shared.go'), `package shared\n\nconst Word = "${name}"\n`);
  for (const program of programs) {
    const text = `package main\n\nimport "example.test/${name}/shared"\n\nfunc main() { println(shared.Word) }\n`;
    write(join(module, program, 'main.go'), text);
  }
  return {
    title: name,
    module,
    flags: ['-trimpath'],
    programs: programs.map((program) => ({ pkg: `./${program}`, out: join(dir, 'out', name, program) })),
  };
}

async function built(build: GoBuild): Promise<string[]> {
  const statuses: string[] = [];
  await buildGo(build, { signal: new AbortController().signal, onStatus: (line) => statuses.push(line), env });
  return statuses;
}

const says = (path: string): string => execFileSync('/bin/sh', ['-c', '"$0" 2>&1', path], { encoding: 'utf8' }).trim();

it('compiles what two builds need once, and reports how many packages there are', async () => {
  const [first, second] = [goBuild('first', ['program']), goBuild('second', ['program'])];
  const [one, two] = await Promise.all([built(first), built(second)]);
  expect([says(first.programs[0]!.out), says(second.programs[0]!.out)]).toEqual(['first', 'second']);
  const totals = (statuses: string[]) =>
    new Set(statuses.flatMap((line) => /^compiling package \d+ of (\d+)$/.exec(line)?.[1] ?? []).map(Number));
  // which of them begins is not determined
  const waits = (statuses: string[]) =>
    statuses.some((line) => /^waiting with [1-9]\d* packages for those that another build compiles too$/.test(line));
  const [waiting, compiling] = waits(one) ? [one, two] : [two, one];
  expect([waits(waiting), waits(compiling)]).toEqual([true, false]);
  // Go's runtime and what it needs are more than twenty packages
  expect(Math.max(...totals(compiling))).toBeGreaterThan(20);
  // package shared and the program
  expect(totals(waiting)).toEqual(new Set([2]));
  expect(compiling.at(-1)).toBe('linking');
});

it('builds programs of one module together, and only links what is compiled', async () => {
  const build = goBuild('several', ['one', 'two']);
  await built(build);
  expect(build.programs.map(({ out }) => says(out))).toEqual(['several', 'several']);
  expect(readdirSync(join(dir, 'out/several'))).toEqual(['one', 'two']);
  expect(await built(build)).toContain('compiling package 0 of 0');
});

it('shows the compiler’s messages when a build fails', async () => {
  const build = goBuild('broken', ['program']);
  write(join(build.module, 'program/main.go'), 'package main\n\nfunc main() { missing() }\n');
  await expect(built(build)).rejects.toThrow(
    /^building broken failed \(exit code 1\):\n# example\.test\/broken\/program\n.*undefined: missing$/,
  );
});

it('shows the Go command’s message when the packages cannot be listed', async () => {
  const build = goBuild('absent', []);
  await expect(built({ ...build, programs: [{ pkg: './absent', out: join(dir, 'out/absent') }] })).rejects.toThrow(
    /^building absent failed \(exit code 1\):\n.*directory not found/s,
  );
});

it('names Go when it is missing', async () => {
  const options = { signal: new AbortController().signal, onStatus: () => undefined };
  await expect(buildGo(goBuild('early', ['program']), { ...options, env: { ...env, PATH: dir } })).rejects.toThrow(
    'early is built from source, and the tool "go" is not in PATH: install Go',
  );
});

it('stops when it is told to, and leaves nothing under the final name', async () => {
  const build = goBuild('stopped', ['program']);
  const abort = new AbortController();
  const onStatus = (line: string): void => {
    if (line.startsWith('compiling')) abort.abort(new Error('told to stop'));
  };
  await expect(buildGo(build, { signal: abort.signal, onStatus, env })).rejects.toThrow('told to stop');
  expect(existsSync(build.programs[0]!.out)).toBe(false);
  await built(build);
  expect(says(build.programs[0]!.out)).toBe('stopped');
});
