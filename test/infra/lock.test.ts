import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { withLock } from '../../infra/lock.ts';
import { temporaryDirectory } from './clean.ts';

const contender = join(import.meta.dirname, 'lock-contender.ts');

test('no count is lost among processes that share a counter, although one of them dies with the lock', async () => {
  const directory = temporaryDirectory();
  const [lock, file] = [join(directory, 'lock'), join(directory, 'counter')];
  writeFileSync(file, '0');
  const dying = fork(contender, [lock, file, '1', 'die']);
  const [, signal] = await once(dying, 'exit');
  assert.equal(signal, 'SIGKILL');
  const codes = await Promise.all([1, 2, 3, 4].map(async () => (await once(fork(contender, [lock, file, '25']), 'exit'))[0]));
  assert.deepEqual(codes, [0, 0, 0, 0]);
  assert.equal(readFileSync(file, 'utf8'), '100');
  assert.ok(readdirSync(lock).length < 20, 'old holdings are cleaned up');
});

test('a living holder is waited for up to the bound and then named', async () => {
  const lock = join(temporaryDirectory(), 'lock');
  let waited = 0;
  await withLock(lock, { boundMs: 1000 }, async () => {
    const second = withLock(lock, { boundMs: 50, onWait: ({ pid }) => (waited = pid) }, async () => 'never');
    await assert.rejects(second, { type: 'Unavailable', message: new RegExp(`process ${process.pid}`) });
  });
  assert.equal(waited, process.pid);
  assert.equal(await withLock(lock, { boundMs: 0 }, async () => 'free again'), 'free again');
});

test('the lock is free after work that failed', async () => {
  const lock = join(temporaryDirectory(), 'lock');
  await assert.rejects(
    withLock(lock, { boundMs: 0 }, async () => Promise.reject(new Error('the work'))),
    /the work/,
  );
  assert.equal(await withLock(lock, { boundMs: 0 }, async () => 1), 1);
});
