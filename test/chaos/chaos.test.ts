/** The parts of the chaos harness, which whole campaigns rest on: one seed gives one plan, proxies break what they are told and nothing else, costs are counted right. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { ArtifactStore } from '../../artifacts/store.ts';
import { Random } from '../../core/random.ts';
import { bareEnvironment, kill, pidsWith, strikeEnvironment } from '../support/loop.ts';
import { startS3 } from '../support/s3.ts';
import type { Event, Struck } from '../support/strike-at.ts';
import { wasToDie } from './hurts.ts';
import { measure, quantile } from './measure.ts';
import { ALL_KINDS, drawFaults, FAULTS, KINDS, planCampaign, profileOf, type Kind, type Profile, type Setting } from './plan.ts';
import { s3Proxy, tcpProxy } from './proxies.ts';

/** From the start of the harness until `ratchet start` and a server run: seconds, on a busy machine some more. */
const BEGUN_BOUND_MS = 60_000;

const PROFILE: Profile = {
  head: 'f'.repeat(64),
  calls: ['evaluate', 'fitRewardModel', 'makeLabels', 'planRollouts', 'updatePolicy', 'warmStart'].flatMap((stage) =>
    [0, 1].map((i) => ({
      stage,
      intent: `${stage}-${i}`,
      last: stage === 'planRollouts' ? null : { phase: `${stage} phase`, total: 10 + i },
    })),
  ),
  records: 7,
};

const campaigns = fc.record({
  seed: fc.nat(),
  kills: fc.integer({ min: 1, max: 120 }),
  kinds: fc.subarray(ALL_KINDS, { minLength: 1 }),
  scale: fc.constantFrom('micro', 'tiny'),
  outageMs: fc.constant(60_000),
});

test('one seed gives one plan, of as many hurts as asked, each possible where it is planned', () => {
  fc.assert(
    fc.property(campaigns, (options) => {
      const plan = planCampaign(PROFILE, options);
      assert.deepEqual(planCampaign(structuredClone(PROFILE), options), plan);
      assert.equal(
        plan.reduce((sum, { hurts }) => sum + hurts.length, 0),
        options.kills,
      );
      assert.deepEqual(
        plan.map(({ run }) => run),
        plan.map((_, i) => i + 1),
      );
      for (const { setting, hurts } of plan) {
        const places = hurts.map(({ moment }) => (moment.at === 'record' ? moment.index : moment.intent));
        assert.equal(new Set(places).size, hurts.length, 'hurts of a run hit different places');
        for (const { kind, moment, copyAt } of hurts) {
          assert.ok(
            options.kinds.includes(kind) && (KINDS[kind].settings as readonly Setting[]).includes(setting),
            `${kind} on ${setting}`,
          );
          const call = 'intent' in moment ? PROFILE.calls.find(({ intent }) => intent === moment.intent) : undefined;
          if (moment.at === 'record') assert.ok(moment.index >= 0 && moment.index < PROFILE.records, JSON.stringify(moment));
          else assert.ok(call, JSON.stringify(moment));
          if (moment.at === 'progress') assert.ok(call?.last && moment.done <= call.last.total, JSON.stringify(moment));
          // A copy is older than where it is put back.
          if (copyAt?.at === 'record' && moment.at === 'record') assert.ok(copyAt.index < moment.index);
        }
      }
    }),
  );
});

test('in each setting every kind comes as often as the others, to within one', () => {
  fc.assert(
    fc.property(campaigns, (options) => {
      const counts = new Map<string, number>();
      for (const { setting, hurts } of planCampaign(PROFILE, options))
        for (const { kind } of hurts) counts.set(`${setting} ${kind}`, (counts.get(`${setting} ${kind}`) ?? 0) + 1);
      for (const setting of ['one machine', 'servers elsewhere'] as const) {
        const possible = options.kinds.filter((kind: Kind) => (KINDS[kind].settings as readonly Setting[]).includes(setting));
        const of = possible.map((kind) => counts.get(`${setting} ${kind}`) ?? 0);
        if (possible.length > 0) assert.ok(Math.max(...of) - Math.min(...of) <= 1, JSON.stringify([...counts]));
      }
    }),
  );
});

test('faults are drawn by key, and none of them hangs twice', () => {
  fc.assert(
    fc.property(fc.nat(), fc.integer({ min: 0, max: 40 }), (seed, count) => {
      const drawn = drawFaults(new Random([seed]), count);
      assert.deepEqual(drawFaults(new Random([seed]), count), drawn);
      assert.equal(drawn.length, count);
      assert.ok(drawn.filter((fault) => fault === 'hang').length <= 1);
    }),
  );
});

test('the S3 proxy gives each fault once, and a store behind it loses nothing', async () => {
  const s3 = await startS3();
  const proxy = await s3Proxy(Number(new URL(s3.config.endpoint as string).port));
  const store = ArtifactStore.connect({ ...s3.config, endpoint: `http://127.0.0.1:${proxy.port}`, idleTimeoutMs: 1_000 });
  try {
    await store.probe();
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i % 251));
    // Every fault meets a write of a body, a read of it, and a conditional write.
    for (const fault of FAULTS) {
      const unique = Buffer.concat([Buffer.from(fault), bytes]);
      const given = [proxy.fail([fault])];
      const ref = await store.put(unique);
      given.push(proxy.fail([fault]));
      assert.ok(Buffer.from(await store.get(ref)).equals(unique), `read under ${fault}`);
      given.push(proxy.fail([fault]));
      await store.commit(`manifests/${fault}`, { fault });
      assert.deepEqual(await store.readManifest(`manifests/${fault}`), { fault });
      await Promise.all(given);
      assert.equal(proxy.counts[fault], 3, fault);
    }
  } finally {
    store.close();
    await proxy.close();
    await s3.stop();
  }
});

test('the TCP proxy cuts what is open, refuses, and lets through again', async () => {
  const echo = createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
  await once(echo, 'listening');
  const proxy = await tcpProxy((echo.address() as AddressInfo).port);
  const heard = async (text: string) => {
    const socket = connect(proxy.port, '127.0.0.1');
    socket.write(text);
    const [data] = (await once(socket, 'data')) as [Buffer];
    return { socket, text: data.toString() };
  };
  try {
    const first = await heard('one');
    assert.equal(first.text, 'one');
    const cut = once(first.socket, 'close');
    await proxy.refuse();
    await cut;
    await assert.rejects(once(connect(proxy.port, '127.0.0.1'), 'connect'), { code: 'ECONNREFUSED' });
    await proxy.allow();
    const second = await heard('two');
    assert.equal(second.text, 'two');
    second.socket.destroy();
  } finally {
    await proxy.close();
    echo.close();
  }
});

test("a process's wall clock can be moved; its timers' clock stays", () => {
  const folder = mkdtempSync(join(tmpdir(), 'ratchet-test-clock-'));
  try {
    const env = { ...process.env, ...strikeEnvironment(folder, [], true) };
    writeFileSync(join(folder, 'clock'), '3600000');
    const program =
      'console.log(JSON.stringify([Date.now(), new Date().getTime(), Date.parse(Date()), new Date(5).getTime(), new Date() instanceof Date, performance.timeOrigin + performance.now()]))';
    const { stdout } = spawnSync(process.execPath, ['--eval', program], { env, encoding: 'utf8' });
    const [now, made, called, given, isDate, timers] = JSON.parse(stdout) as [number, number, number, number, boolean, number];
    const ahead = (t: number) => Math.round((t - timers) / 1000);
    // Date() tells whole seconds.
    assert.deepEqual([ahead(now), ahead(made), Math.round((called - timers) / 10_000)], [3600, 3600, 360]);
    assert.deepEqual([given, isDate], [5, true]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('interrupted in its first run, the harness leaves no process and no file behind', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ratchet-test-interrupted-'));
  try {
    const harness = spawn(process.execPath, [join(import.meta.dirname, 'main.ts')], {
      env: bareEnvironment({ path: folder }, { TMPDIR: folder }),
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    harness.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
    // The harness, `ratchet start` and a server.
    const deadline = performance.now() + BEGUN_BOUND_MS;
    while (harness.exitCode === null && pidsWith(folder).length < 3) {
      assert.ok(performance.now() < deadline, `nothing was begun within ${BEGUN_BOUND_MS} ms: ${said}`);
      await delay(20);
    }
    harness.kill('SIGINT');
    const [code] = (await once(harness, 'close')) as [number | null];
    assert.deepEqual([code, said.split('\n').at(-2)], [1, 'interrupted; everything was taken down']);
    const left = readdirSync(folder).filter((name) => name.startsWith('ratchet-'));
    assert.deepEqual([pidsWith(folder), left], [[], []]);
  } finally {
    for (const pid of pidsWith(folder)) kill(pid);
    rmSync(folder, { recursive: true, maxRetries: 5 });
  }
});

const event = (what: Event['what'], t: number, pid: number, intent: string, more: Partial<Event> = {}): Event => {
  return { what, t, pid, ppid: 1, stage: 'fit', intent, ...more };
};
const steps = (from: number, to: number, startT: number, pid: number, intent: string) =>
  Array.from({ length: to - from + 1 }, (_, i) =>
    event('progress', startT + i * 100, pid, intent, { phase: 'fit', done: from + i, total: 50 }),
  );
const struckAt = (t: number, intent: string): Struck => {
  return { pid: 1, ppid: 1, isChild: true, t, stage: 'fit', intent, phase: 'fit', done: 0 };
};

test('work lost is what the next attempt takes to get as far; working again is its first sign of life', () => {
  // Ten steps of 100 ms, killed at 1,050 ms; a second later the next attempt starts, goes on at step 6 after 300 ms, and reaches step 10 after 700.
  const events = [
    event('run', 0, 11, 'a'),
    ...steps(1, 5, 100, 11, 'a'),
    event('checkpoint', 520, 11, 'a', { step: 5 }),
    ...steps(6, 10, 600, 11, 'a'),
    event('run', 2050, 12, 'a'),
    ...steps(6, 12, 2350, 12, 'a'),
    event('written', 3100, 12, 'a', { key: 'stages/a' }),
    event('result', 3110, 12, 'a'),
  ];
  const { costs, counts } = measure(events, [{ struck: struckAt(1050, 'a'), endedT: 1050 }]);
  assert.deepEqual(costs, [{ lostS: 0.7, againS: 1.3 }]);
  assert.deepEqual(counts, { calls: 1, attempts: 2, stepsAgain: 5, twinned: 0, problems: [] });
});

test('what is finished and done again is found: a stored result, a checkpoint, a key', () => {
  const done = [
    event('run', 0, 11, 'a'),
    ...steps(1, 3, 10, 11, 'a'),
    event('written', 400, 11, 'a', { key: 'stages/a' }),
    event('result', 410, 11, 'a'),
  ];
  const again = [event('run', 500, 12, 'a'), ...steps(1, 3, 510, 12, 'a'), event('written', 900, 12, 'a', { key: 'stages/a' })];
  assert.deepEqual(measure([...done, ...again], []).counts.problems, [
    'stages/a was written twice',
    'fit a: worked on after its result was stored',
  ]);
  const saved = [event('run', 0, 11, 'b'), ...steps(1, 5, 10, 11, 'b'), event('checkpoint', 600, 11, 'b', { step: 5 })];
  const fromNothing = [event('run', 700, 12, 'b'), ...steps(1, 9, 710, 12, 'b')];
  assert.deepEqual(measure([...saved, ...fromNothing], []).counts.problems, ['fit b: step 1 was done again, though a checkpoint held 5']);
});

test('a worker that a hurt has killed need not drain; whoever is killed otherwise must have', () => {
  const moment = { at: 'record', index: 1, when: 'asked' } as const;
  const hurts = (['kill-worker', 'kill-child'] as const).map((kind) => ({ kind, moment }));
  // In a child of the worker 1, and in the worker 3 itself.
  const struck = [
    { ...struckAt(0, 'a'), pid: 2, ppid: 1 },
    { ...struckAt(0, 'a'), pid: 3, ppid: 0, isChild: false },
  ];
  assert.deepEqual(
    [0, 1, 2, 3].filter((pid) => wasToDie(pid, hurts, struck)),
    [1],
  );
  assert.ok(!wasToDie(1, hurts, [null, null]));
});

test('a profile does not depend on which of two calls was faster', () => {
  const call = (intent: string, t: number, pid: number) => [event('run', t, pid, intent), ...steps(1, 2, t + 1, pid, intent)];
  assert.deepEqual(
    profileOf([...call('a', 0, 1), ...call('b', 500, 2)], 'h', 3),
    profileOf([...call('b', 0, 1), ...call('a', 500, 2)], 'h', 3),
  );
});

test('quantiles are of the nearest rank', () => {
  const ten = [10, 9, 8, 7, 6, 5, 4, 3, 2, 1];
  assert.deepEqual([quantile(ten, 0.5), quantile(ten, 0.95), quantile(ten, 1), quantile([], 0.5)], [5, 10, 10, null]);
});
