/** Each package that can be installed is the one that was reviewed: package-lock.json has its hash. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from '@jest/globals';

interface Entry {
  integrity?: string;
  link?: boolean;
  optional?: boolean;
  devOptional?: boolean;
  os?: string[];
  cpu?: string[];
  libc?: string[];
}

/** Whether the package is one of several for different platforms, and not for those that images are built and tests run on. */
const isForAnotherPlatform = ({ optional, devOptional, os, cpu, libc }: Entry): boolean =>
  (optional === true || devOptional === true) &&
  !(
    (os?.includes('linux') ?? true) &&
    (cpu?.some((one) => one === 'x64' || one === 'arm64') ?? true) &&
    (libc?.includes('glibc') ?? true)
  );

it('package-lock.json has a hash for each package for Linux on x64 and arm64', () => {
  const file = join(import.meta.dirname, '..', '..', 'package-lock.json');
  const { packages } = JSON.parse(readFileSync(file, 'utf8')) as { packages: Record<string, Entry> };
  const without = Object.entries(packages).filter(
    ([path, entry]) =>
      path !== '' && !entry.link && !entry.integrity?.startsWith('sha512-') && !isForAnotherPlatform(entry),
  );
  expect(without.map(([path]) => path)).toEqual([]);
});
