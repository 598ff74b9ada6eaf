import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { RatchetError } from '../../core/errors.ts';
import { identify, isAlive } from '../../infra/processes.ts';
import { createSupervisor, supervise } from '../../infra/supervisor.ts';
import type { ProcessEvent } from '../../infra/supervisor.ts';
import { until } from './clean.ts';

const kinds = (events: ProcessEvent[]) => events.map(({ kind }) => kind);
const healthy = async () => true;

/** A process that does nothing; `stubborn` ignores SIGTERM and says when it is ready to do so. */
function idle(stubborn = false): ChildProcess {
  const script = stubborn
    ? "process.on('SIGTERM', () => {}); process.stdout.write('ready'); setInterval(() => {}, 1e6)"
    : 'setInterval(() => {}, 1e6)';
  return spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
}

const failing = () => spawn(process.execPath, ['-e', 'process.exit(7)'], { stdio: 'ignore' });

test('a killed child is started again at once, and again after the next kill', async () => {
  const events: ProcessEvent[] = [];
  const supervised = supervise({ name: 'idle', start: () => idle(), healthy }, (event) => events.push(event));
  await supervised.ready;
  for (let round = 1; round <= 2; round++) {
    const pid = supervised.pid!;
    process.kill(pid, 'SIGKILL');
    // Second in a row: after the first pause of 250 ms.
    const ms = await until('restart', () => supervised.pid !== undefined && supervised.pid !== pid);
    assert.ok(ms < 1000, `noticed and restarted in ${ms} ms`);
    await until('ready again', () => events.filter(({ kind }) => kind === 'ready').length === round + 1);
  }
  const last = supervised.pid!;
  await supervised.stop();
  assert.equal(await supervised.ended, null);
  assert.equal(await identify(last), null);
  assert.deepEqual(kinds(events), ['started', 'ready', 'exited', 'started', 'ready', 'exited', 'waiting', 'started', 'ready', 'stopped']);
  assert.match(events[2]!.detail, /SIGKILL/);
  assert.equal(events.at(-2)!.restarts, 2);
});

test('one that cannot stay up is given up with a typed error after the bound, with growing pauses', async () => {
  const events: ProcessEvent[] = [];
  const backoff = { firstMs: 10, mostMs: 40, mostFailures: 6 };
  const supervised = supervise({ name: 'failing', start: failing, healthy: async () => false, backoff }, (event) => events.push(event));
  await assert.rejects(supervised.ready, { type: 'Unavailable', message: /failing failed 6 times.*code 7/s });
  assert.equal((await supervised.ended)?.type, 'Unavailable');
  // No pause before the first restart; then 10, 20, 40 and never more than 40.
  assert.deepEqual(
    events.filter(({ kind }) => kind === 'waiting').map(({ delayMs }) => delayMs),
    [10, 20, 40, 40],
  );
  assert.equal(events.filter(({ kind }) => kind === 'started').length, 6);
  assert.equal(events.at(-1)!.kind, 'failed');
});

test('a program that does not exist is a failed start, not a crash of the supervisor', async () => {
  const supervised = supervise({
    name: 'absent',
    start: () => spawn('/no/such/program'),
    healthy,
    backoff: { firstMs: 1, mostFailures: 2 },
  });
  await assert.rejects(supervised.ready, { type: 'Unavailable', message: /ENOENT/ });
});

test('a process that was well for long enough starts with a clean count', async () => {
  let readies = 0;
  const spec = { name: 'recovering', start: () => idle(), healthy, backoff: { stableMs: 0, mostFailures: 2 } };
  const supervised = supervise(spec, ({ kind }) => (readies += Number(kind === 'ready')));
  for (let life = 1; life <= 4; life++) {
    await until('ready', () => readies === life);
    process.kill(supervised.pid!, 'SIGKILL');
  }
  await until('ready after four deaths', () => readies === 5);
  await supervised.stop();
  assert.equal(await supervised.ended, null);
});

test('one that stops answering is killed and replaced', async () => {
  const events: ProcessEvent[] = [];
  let answers = true;
  const first = idle();
  const start = () => {
    if (first.pid !== undefined && !first.killed && events.length === 0) return first;
    answers = true;
    return idle();
  };
  const spec = { name: 'hanging', start, healthy: async () => answers, hungBoundMs: 100, startBoundMs: 5000 };
  const supervised = supervise(spec, (event) => events.push(event));
  await supervised.ready;
  answers = false;
  const [, signal] = (await once(first, 'exit')) as [null, string];
  assert.ok(['SIGTERM', 'SIGKILL'].includes(signal));
  await until('replaced', () => events.filter(({ kind }) => kind === 'ready').length === 2);
  assert.ok(kinds(events).includes('hung'));
  await supervised.stop();
});

test('one that is not ready within the bound of its start is given twice as long the next time', async () => {
  const events: ProcessEvent[] = [];
  let starts = 0;
  const start = () => {
    starts++;
    return idle();
  };
  const spec = { name: 'slow', start, healthy: async () => starts === 3, startBoundMs: 100 };
  const supervised = supervise(spec, (event) => events.push(event));
  await supervised.ready;
  assert.deepEqual(
    events.filter(({ kind }) => kind === 'hung').map(({ detail }) => detail),
    ['not ready within 100 ms', 'not ready within 200 ms'],
  );
  await supervised.stop();
});

test('an adopted process is watched by its pid, and its death is noticed within a second', async () => {
  const adopted = idle();
  const identity = (await identify(adopted.pid!))!;
  let starts = 0;
  const supervised = supervise({ name: 'adopted', start: () => (starts++ === 0 ? identity : idle()), healthy });
  await supervised.ready;
  assert.equal(supervised.pid, adopted.pid);
  adopted.kill('SIGKILL');
  const ms = await until('replacement', () => starts === 2 && supervised.pid !== undefined && supervised.pid !== adopted.pid);
  assert.ok(ms < 1000, `noticed in ${ms} ms`);
  await supervised.stop();
});

test('while something blocks the start it waits, says so once, and does not count it as a failure', async () => {
  const events: ProcessEvent[] = [];
  let asked = 0;
  const blocked = async () => (++asked < 3 ? 'disk full' : null);
  const supervised = supervise({ name: 'blocked', start: () => idle(), healthy, blocked, backoff: { mostFailures: 1 } }, (event) =>
    events.push(event),
  );
  await supervised.ready;
  await supervised.stop();
  assert.deepEqual(kinds(events), ['waiting', 'started', 'ready', 'stopped']);
  assert.equal(events[0]!.detail, 'disk full');
});

test('a start that says the process is to rest ends the supervision without an error', async () => {
  const start = () => {
    throw new RatchetError('Stopped', 'asked to rest');
  };
  const supervised = supervise({ name: 'resting', start, healthy });
  await assert.rejects(supervised.ready, { type: 'Stopped' });
  assert.equal(await supervised.ended, null);
});

test('stopping goes from the last to the first, and ends a process that ignores SIGTERM', async () => {
  const order: string[] = [];
  const supervisor = createSupervisor(({ kind, name }) => {
    if (kind === 'stopped') order.push(name);
  });
  const stubborn = idle(true);
  const server = supervisor.supervise({ name: 'server', start: () => idle(), healthy });
  const worker = supervisor.supervise({ name: 'worker', start: () => stubborn, healthy, stopGraceMs: 100 });
  await Promise.all([server.ready, worker.ready, once(stubborn.stdout!, 'data')]);
  const identities = await Promise.all([identify(server.pid!), identify(worker.pid!)]);
  // The system knows that a process is gone a moment before its parent is told how.
  const exit = once(stubborn, 'exit');
  await supervisor.stop();
  assert.deepEqual(order, ['worker', 'server']);
  assert.deepEqual(await exit, [null, 'SIGKILL']);
  for (const identity of identities) assert.equal(await isAlive(identity), false);
});
