/** The compute pool against real children: warm reuse, typed failures, memory bounds, and death in every way that happens. */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { once } from 'node:events';
import { after, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { RatchetError } from '../../core/errors.ts';
import { identify } from '../../infra/processes.ts';
import { kernelKills } from '../../learning/compute/kernel-memory.ts';
import { ComputePool } from '../../learning/compute/pool.ts';
import type { ComputePoolOptions } from '../../learning/compute/pool.ts';

const jobModule = new URL('./jobs.ts', import.meta.url).href;
const MEMORY_BYTES = 2 ** 29;
/** Far more than a kill takes (milliseconds), far less than the jobs that are killed would take (for ever). */
const KILL_BOUND_MS = 1_000;

const pools: ComputePool[] = [];
function poolOf(options: Partial<ComputePoolOptions> = {}): ComputePool {
  const pool = new ComputePool({ slots: 1, lanes: 1, memoryBytes: MEMORY_BYTES, jobModule, ...options });
  pools.push(pool);
  return pool;
}
after(() => Promise.all(pools.map((pool) => pool.close())));

const pidOf = async (pool: ComputePool) => (await pool.run('pid', null)) as { pid: number; jobsRun: number; lanes: string };

/** A killed process whose parent is gone too may wait to be reaped: it runs no more. */
const isRunning = async (pid: number): Promise<boolean> => (await identify(pid)) !== null;

async function gone(pid: number, boundMs: number): Promise<boolean> {
  const deadline = performance.now() + boundMs;
  while ((await isRunning(pid)) && performance.now() < deadline) await delay(5);
  return !(await isRunning(pid));
}

/** Starts a job, waits for its first progress, and says what that was. */
async function begun<T>(pool: ComputePool, name: string, input: unknown, options: { signal?: AbortSignal; stop?: AbortSignal } = {}) {
  let tell: (progress: T) => void = () => {};
  const progress = new Promise<T>((resolve) => (tell = resolve));
  const done = pool.run(name, input, { ...options, onProgress: (value) => tell(value as T) });
  done.catch(() => {});
  return { progress: await progress, done };
}

describe('compute pool', { timeout: 60_000 }, () => {
  test('a child is warm: the next job runs in the same process, with the lanes it was given', async () => {
    const pool = poolOf({ lanes: 3 });
    assert.equal(pool.status()[0]!.pid, null, 'nothing starts before the first job');
    const first = await pidOf(pool);
    const second = await pidOf(pool);
    assert.notEqual(first.pid, process.pid);
    assert.deepEqual(second, { pid: first.pid, jobsRun: 2, lanes: '3' });
    const value = { text: 'ä€𝄞', list: [1, 0.1, null], nested: { a: true } };
    assert.deepEqual(await pool.run('echo', value), value);
  });

  test('progress arrives in order; a fast job is thinned out, but its first and its last word always come', async () => {
    const seen: number[] = [];
    await poolOf().run('progress', 10_000, { onProgress: (progress) => seen.push((progress as { done: number }).done) });
    assert.deepEqual(
      seen,
      seen.toSorted((a, b) => a - b),
    );
    assert.equal(seen[0], 1);
    assert.equal(seen.at(-1), 10_000);
    assert.ok(seen.length < 1_000, `${seen.length} messages`);
  });

  test('slots work side by side, and a job beyond them waits its turn', async () => {
    const pool = poolOf({ slots: 2 });
    const stop = new AbortController();
    const [one, two] = await Promise.all([0, 1].map(() => begun(pool, 'untilStopped', null, { stop: stop.signal })));
    assert.equal(new Set(pool.status().map(({ pid }) => pid)).size, 2);
    const third = pool.run('echo', 3);
    const fourth = new AbortController();
    const aborted = pool.run('echo', 4, { signal: fourth.signal });
    fourth.abort(new Error('not wanted'));
    await assert.rejects(aborted, /not wanted/);
    stop.abort();
    await assert.rejects(one!.done, { type: 'Stopped' });
    await assert.rejects(two!.done, { type: 'Stopped' });
    assert.equal(await third, 3);
  });

  test('stop ends a job after its next checkpoint, which is announced', async () => {
    const stop = new AbortController();
    let checkpoint = 0;
    const pool = poolOf();
    const done = pool.run('untilStopped', null, {
      stop: stop.signal,
      onProgress: () => stop.abort(),
      onCheckpoint: (step) => (checkpoint = step),
    });
    await assert.rejects(done, (error: RatchetError) => {
      assert.equal(error.type, 'Stopped');
      assert.equal(error.message, `stopped after step ${checkpoint}`);
      return true;
    });
    assert.ok(checkpoint > 0);
    assert.equal((await pidOf(pool)).jobsRun, 2, 'a stopped child stays warm');
  });

  test('cancelling ends a job between two of its steps; its child stays warm', async () => {
    const pool = poolOf();
    const cancel = new AbortController();
    const { done } = await begun(pool, 'untilCancelled', null, { signal: cancel.signal });
    const { pid } = pool.status()[0]!;
    const reason = new Error('cancelled by the test');
    cancel.abort(reason);
    await assert.rejects(done, reason);
    assert.deepEqual(await pidOf(pool), { pid, jobsRun: 2, lanes: '1' });
  });

  test('a checkpoint on request is told, and the job goes on', async () => {
    const pool = poolOf();
    const told: number[] = [];
    const done = pool.run('checkpoints', 2, {
      onProgress: (progress) => {
        if (told.length === 0 || (progress as { step: number }).step > told.at(-1)!) pool.requestCheckpoints();
      },
      onCheckpoint: (step) => told.push(step),
    });
    assert.deepEqual(await done, told);
    assert.equal(told.length, 2);
  });

  test('work that cannot fit is refused before it starts, naming need and bound', async () => {
    const pool = poolOf();
    await assert.rejects(pool.run('need', 2 ** 30), {
      type: 'OutOfMemory',
      message: 'this job needs at least 1,104 MiB, and 512 MiB are allowed; give the slot more (RATCHET_MEMORY_MB)',
    });
    await pool.run('need', 2 ** 28);
    assert.equal((await pidOf(pool)).jobsRun, 3, 'nothing was killed for it');
  });

  test('a child that cannot work says why before it is given work: an absent execution provider is Unavailable', async () => {
    const absent = process.platform === 'win32' ? 'coreml' : 'dml';
    const pool = poolOf({ env: { RATCHET_EXECUTION_PROVIDER: absent } });
    await assert.rejects(pool.warmUp(), { type: 'Unavailable', message: new RegExp(`provider ${absent}.* cannot be used here`) });
    await assert.rejects(pool.run('echo', 1), { type: 'Unavailable' });
    const working = poolOf();
    await working.warmUp();
    const { pid } = working.status()[0]!;
    assert.equal((await pidOf(working)).pid, pid);
  });

  test('the kernel counts whom it killed for memory, in the control group where there is one; children go before their owners', async (t) => {
    const root = mkdtempSync(join(tmpdir(), 'ratchet-kernel-'));
    t.after(() => rmSync(root, { recursive: true }));
    assert.equal(kernelKills(root), null);
    const write = (path: string, text: string) => {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    };
    // The forms of Documentation/admin-guide/cgroup-v2.rst and of /proc/vmstat.
    write('proc/vmstat', 'nr_free_pages 81\noom_kill 7\n');
    assert.equal(kernelKills(root), 7);
    write('proc/self/cgroup', '0::/kubepods/pod1\n');
    assert.equal(kernelKills(root), 7, 'a group without counts');
    write('sys/fs/cgroup/kubepods/pod1/memory.events', 'low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n');
    assert.equal(kernelKills(root), 2);
    if (process.platform !== 'linux') return;
    const pool = poolOf();
    const { pid } = await pidOf(pool);
    assert.equal(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8').trim(), '500');
  });

  test('cancelling kills a child that is blocked in native work within a second, with its helpers, and the slot gets a fresh one', async (t) => {
    const pool = poolOf();
    const cancel = new AbortController();
    const { done } = await begun(pool, 'block', null, { signal: cancel.signal });
    const pid = pool.status()[0]!.pid!;
    const reason = new Error('cancelled by the test');
    const start = performance.now();
    cancel.abort(reason);
    await assert.rejects(done, reason);
    const tookMs = performance.now() - start;
    t.diagnostic(`killed in ${tookMs.toFixed(1)} ms`);
    assert.ok(tookMs < KILL_BOUND_MS, `${tookMs} ms`);
    assert.ok(!(await isRunning(pid)), 'the child is gone before the caller is told');

    const again = new AbortController();
    const { progress, done: second } = await begun<{ helper: number }>(pool, 'helper', null, { signal: again.signal });
    assert.notEqual(pool.status()[0]!.pid, pid);
    again.abort(reason);
    await assert.rejects(second, reason);
    assert.ok(await gone(progress.helper, KILL_BOUND_MS), 'the helper is killed with its child');
  });

  test('failures keep their type; a bug keeps its stack; the child stays warm', async () => {
    const pool = poolOf();
    await assert.rejects(pool.run('refuse', null), { name: 'Diverged', type: 'Diverged', message: 'loss is NaN at step 7' });
    await assert.rejects(pool.run('bug', null), (error: Error) => {
      assert.ok(!(error instanceof RatchetError));
      assert.match(error.stack ?? '', /jobs\.ts/);
      return true;
    });
    assert.equal((await pidOf(pool)).jobsRun, 3);
  });

  test('a crash is typed and tells how the child ended and its last words; the next job gets a fresh child', async () => {
    const pool = poolOf();
    await assert.rejects(pool.run('exit', 3), (error: RatchetError) => {
      assert.equal(error.type, 'ComputeCrashed');
      assert.match(error.message, /code 3/);
      assert.match(error.message, /last words/);
      return true;
    });
    await assert.rejects(pool.run('killSelf', null), (error: RatchetError) => {
      assert.equal(error.type, 'ComputeCrashed');
      assert.match(error.message, /SIGKILL/);
      assert.match(error.message, /about to be killed/);
      return true;
    });
    assert.equal((await pidOf(pool)).jobsRun, 1);
  });

  test('a child that dies idle is replaced', async () => {
    const pool = poolOf();
    const { pid } = await pidOf(pool);
    process.kill(pid, 'SIGKILL');
    assert.ok(await gone(pid, KILL_BOUND_MS));
    // The next job either finds the child dead or is the one that notices; it must not be lost silently.
    const next = await pidOf(pool).catch((error: RatchetError) => error);
    if (next instanceof Error) assert.equal(next.type, 'ComputeCrashed');
    assert.notEqual((await pidOf(pool)).pid, pid);
  });

  test('a child beyond its memory bound is killed with OutOfMemory, whether it holds buffers or heap', async () => {
    const pool = poolOf({ memoryBytes: 256 * 2 ** 20 });
    await assert.rejects(pool.run('allocate', 1024), { type: 'OutOfMemory' });
    await assert.rejects(pool.run('fillHeap', null), { type: 'OutOfMemory' });
    assert.deepEqual(await pool.run('echo', 1), 1);
  });

  test('a warm child that kept more than half of its bound is replaced before the next job', async () => {
    const pool = poolOf({ memoryBytes: MEMORY_BYTES });
    const { pid } = await pidOf(pool);
    await pool.run('allocate', 240);
    assert.equal((await pidOf(pool)).pid !== pid, true);
  });

  test('a job that comes while an idle child is being let go is done by a fresh one', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const pool = poolOf({ memoryBytes: 2 ** 31 });
    await pool.run('allocate', 480);
    const { pid } = pool.status()[0] as { pid: number };
    t.mock.timers.tick(10_000);
    const next = await pidOf(pool);
    assert.notEqual(next.pid, pid);
    assert.equal(next.jobsRun, 1);
    t.mock.timers.reset();
    assert.ok(await gone(pid, KILL_BOUND_MS));
  });

  test('a child ends by itself when its owner is killed', async () => {
    const owner = fork(fileURLToPath(new URL('./owner.ts', import.meta.url)), { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    const [{ child }] = (await once(owner, 'message')) as [{ child: number }];
    assert.ok(await isRunning(child));
    owner.kill('SIGKILL');
    assert.ok(await gone(child, 5_000));
  });

  test('wrong numbers, a wrong module and a closed pool are refused', async () => {
    for (const wrong of [
      { slots: 0 },
      { slots: 1.5 },
      { lanes: 0 },
      { memoryBytes: 1000 },
      { memoryBytes: NaN },
      { jobModule: './jobs.ts' },
    ]) {
      assert.throws(() => poolOf(wrong), { type: 'BadInput' }, JSON.stringify(wrong));
    }
    const missing = poolOf({ jobModule: new URL('./no-such-module.ts', import.meta.url).href });
    await assert.rejects(missing.run('echo', 1), (error: RatchetError) => {
      assert.equal(error.type, 'ComputeCrashed');
      assert.match(error.message, /no-such-module/);
      return true;
    });
    const closed = poolOf();
    await closed.close();
    await assert.rejects(closed.run('echo', 1), { type: 'BadInput' });
  });
});
