/** The reader of audit logs: it goes on where it stopped. */
import { afterEach, beforeEach, expect, it } from '@jest/globals';
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { growingLogs } from '../support/audit-log.ts';

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'istio-vault-ca-audit-log-'));
  path = join(dir, 'audit.log');
});
afterEach(() => rmSync(dir, { recursive: true }));

const line = (value: unknown) => `${JSON.stringify(value)}\n`;

it('reads what was added, and leaves a line that is still being written for the next time', async () => {
  const read: unknown[] = [];
  const entries = growingLogs((one) => {
    read.push(one);
    return one;
  });
  writeFileSync(path, line('first') + '"sec');
  expect(await entries(path)).toEqual(['first']);
  appendFileSync(path, 'ond ü"\n');
  expect(await entries(path)).toEqual(['first', 'second ü']);
  expect(await entries(path)).toEqual(['first', 'second ü']);
  expect(read).toEqual(['first', 'second ü']);
});

it('keeps only what is asked for, of lines longer than what is read at once too', async () => {
  const long = 'ü'.repeat(1 << 20);
  writeFileSync(path, line({ n: 1, long }) + line({ n: 2 }) + line({ n: 3, long }));
  const entries = growingLogs((one) => ((one as { n: number }).n === 2 ? undefined : (one as { n: number }).n));
  expect(await entries(path)).toEqual([1, 3]);
});

it('takes nothing twice when it is asked several times at once', async () => {
  writeFileSync(path, line(1) + line(2));
  const entries = growingLogs((one) => one);
  const all = await Promise.all([entries(path), entries(path), entries(path)]);
  expect(all.map((one) => one.length)).toEqual([2, 2, 2]);
});

it('can be asked again once there is a log', async () => {
  const entries = growingLogs((one) => one);
  await expect(entries(path)).rejects.toThrow('ENOENT');
  writeFileSync(path, line(1));
  expect(await entries(path)).toEqual([1]);
});
