/**
 * Garbage collection on a real S3 server. The server keeps objects as files and tells their times of writing, so ages are made by setting those times.
 * What must stay is told by `verify`, which finds objects in its own way, not by the code that decides what may go.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createPublicKey } from 'node:crypto';
import { existsSync, globSync, mkdtempSync, renameSync, rmSync, statSync, utimesSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, mock, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { StageCheckpoints } from '../../activities/stage-checkpoints.ts';
import { signingKey } from '../../artifacts/attestation.ts';
import { exportRun } from '../../artifacts/export.ts';
import { collectGarbage, DEFAULT_GRACE_MS, type GcOptions, type GcReport } from '../../artifacts/gc.ts';
import { givenUpKey, pin, readGivenUp, unpin } from '../../artifacts/retention.ts';
import { appendRecord, commitStage, createRun, stageIntent } from '../../artifacts/run-log.ts';
import { ArtifactStore, objectKey } from '../../artifacts/store.ts';
import { LEAST_GRACE_MS, outlastSweep, SWEEPS } from '../../artifacts/sweep.ts';
import { verifyRun, type VerifyReport } from '../../artifacts/verify.ts';
import { canonicalJson } from '../../core/digest.ts';
import { badInput } from '../../core/errors.ts';
import { startS3, type TestS3 } from '../support/s3.ts';
import { refuse, startMisbehaving, type Passing } from './misbehaving-s3.ts';
import { SAMPLE_KEY_FILE, writeSampleRun } from './sample-run.ts';

const DAY_MS = 24 * 3600_000;
/** In every case: older than any grace period asked for here. */
const OLD_DAYS = 30;
const RUNS = ['a', 'b', 'c'] as const;

let s3: TestS3;
let scratch: string;
let copies = 0;

before(async () => {
  s3 = await startS3();
  scratch = mkdtempSync(join(tmpdir(), 'ratchet-gc-'));
  await within('template', async (store) => {
    await store.probe();
    // Runs with games, panels and models in common and episodes of their own; `c` is `a` again, so that all of its objects are shared.
    for (const run of RUNS) {
      const told = run === 'c' ? 'a' : run;
      await writeSampleRun(store, run, {
        episodes: (episodes) => episodes.map((each) => ({ ...each, instruction: `as run ${told} was told` })),
      });
    }
  });
});

after(async () => {
  await s3.stop();
  rmSync(scratch, { recursive: true });
});

const folderOf = (prefix: string) => join(s3.directory, s3.config.bucket, prefix);

async function within<T>(prefix: string, use: (store: ArtifactStore) => Promise<T>, endpoint = s3.config.endpoint as string): Promise<T> {
  const store = ArtifactStore.connect({ ...s3.config, endpoint, prefix });
  try {
    return await use(store);
  } finally {
    store.close();
  }
}

/** A store of its own with the four runs in it; everything is old. `cp -a` keeps what the server knows of a file in its extended attributes. */
function copyOfTemplate(): string {
  const prefix = `copy-${copies++}`;
  const { status, stderr } = spawnSync('cp', ['-a', folderOf('template'), folderOf(prefix)], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  growOld(prefix);
  return prefix;
}

function growOld(prefix: string, keys = keysOf(prefix), days = OLD_DAYS): void {
  const at = new Date(Date.now() - days * DAY_MS);
  for (const key of keys) utimesSync(join(folderOf(prefix), key), at, at);
}

function keysOf(prefix: string): string[] {
  return globSync('**/*', { cwd: folderOf(prefix) })
    .filter((path) => statSync(join(folderOf(prefix), path)).isFile())
    .sort();
}

const key = () => signingKey(SAMPLE_KEY_FILE);
const gc = (store: ArtifactStore, options: Partial<GcOptions> = {}): Promise<GcReport> =>
  collectGarbage(store, { graceMs: DEFAULT_GRACE_MS, drop: [], mayDrop: async () => {}, apply: { by: 'test', key: key() }, ...options });

/** What verify says, and the objects that it found. */
async function verified(store: ArtifactStore, run: string): Promise<VerifyReport & { objects: string[] }> {
  const objects: string[] = [];
  const report = await verifyRun(store, run, { onSound: (ref) => objects.push(ref.key) });
  return { ...report, objects: objects.sort() };
}

/** A checkpoint as a stage under way leaves it. */
async function checkpoint(store: ArtifactStore, run: string, input: unknown, step: number, bytes: string): Promise<void> {
  const options = { store, scope: run, intent: stageIntent('updatePolicy', input), fingerprint: 'test/1', intervalMs: 0 };
  const quiet = { wanted: () => false, onSaved: () => {}, warn: () => {}, signal: new AbortController().signal };
  await new StageCheckpoints({ ...options, ...quiet }).save(step, Buffer.from(bytes));
}

test('only what no kept run leads to goes, each with its reason; what is kept verifies as before; a second time nothing goes', async () => {
  const prefix = copyOfTemplate();
  await within(prefix, async (store) => {
    const lost = await store.put(Buffer.from('stored by an attempt that was killed before its commit'));
    // A stage under way, whose candidate is so far named in its checkpoint alone; a stage that is over; a checkpoint without its manifest.
    const candidate = await store.put(Buffer.from('a candidate that an update has stored and not committed'));
    await checkpoint(store, 'a', { labels: 'to come' }, 7, `state of training; candidates ${candidate.sha256}`);
    const underWay = keysOf(prefix).filter((each) => each.includes('/checkpoints/'));
    await checkpoint(store, 'b', 'over', 5, 'state of a stage that is over');
    await commitStage(store, 'b', 2, { stage: 'updatePolicy', input: 'over', output: null });
    const over = keysOf(prefix).filter((each) => each.includes('/checkpoints/') && !underWay.includes(each));
    const beforehand = keysOf(prefix).filter((each) => each.startsWith('objects/'));
    await checkpoint(store, 'c', 'killed', 3, 'stored, and then the process was killed');
    const [half] = keysOf(prefix).filter((each) => each.startsWith('objects/') && !beforehand.includes(each));
    await store.delete(keysOf(prefix).find((each) => each.startsWith('runs/c/checkpoints/')) as string);
    await store.writePointer('probe/left-over', {});
    growOld(prefix);
    // An outcome that is newer than a checkpoint says that its stage is over: the chain here is closed, so touch the checkpoint that is under way.
    growOld(prefix, underWay, OLD_DAYS - 1);
    const young = await store.put(Buffer.from('in flight'));
    const reports = await Promise.all(RUNS.map((run) => verified(store, run)));
    assert.ok(reports.every(({ ok }) => ok));

    const all = keysOf(prefix);
    const seen = await gc(store, { apply: null });
    assert.deepEqual(keysOf(prefix), all, 'without --apply nothing changes');
    const ofCheckpoint = JSON.parse(Buffer.from((await store.readBytes(over[0] as string)) as Uint8Array).toString()) as {
      object: { key: string };
    };
    assert.deepEqual(
      seen.removed.map(({ key: at, why, run }) => [at, why, run]).sort(),
      [
        [lost.key, 'attempt', null],
        [over[0], 'checkpoint', 'b'],
        [ofCheckpoint.object.key, 'checkpoint', 'b'],
        [half, 'checkpoint', 'c'],
        ['probe/left-over', 'probe', null],
      ].sort(),
    );
    assert.deepEqual(seen.young, { objects: 1, bytes: young.bytes });

    const done = await gc(store);
    assert.deepEqual(done.removed, seen.removed);
    const gone = new Set(done.removed.map((each) => each.key));
    assert.deepEqual(
      keysOf(prefix),
      all.filter((each) => !gone.has(each)),
    );
    for (const [i, run] of RUNS.entries()) assert.deepEqual(await verified(store, run), reports[i]);
    assert.deepEqual((await gc(store)).removed, []);
  });
});

test('whatever is dropped, pinned, lost or young: kept runs verify as before, dropped ones say what is gone, nothing young goes, all that is left is needed', async () => {
  const subset = fc.subarray([...RUNS]);
  await fc.assert(
    fc.asyncProperty(subset, subset, subset, fc.infiniteStream(fc.boolean()), async (lost, wanted, pinned, coins) => {
      const prefix = copyOfTemplate();
      await within(prefix, async (store) => {
        for (const run of lost) rmSync(join(folderOf(prefix), 'runs', run), { recursive: true });
        for (const run of pinned) if (!lost.includes(run)) await pin(store, run, 'test', null);
        const drop = wanted.filter((run) => !lost.includes(run) && !pinned.includes(run));
        const kept = RUNS.filter((run) => !lost.includes(run) && !drop.includes(run));
        const objects = keysOf(prefix).filter((each) => each.startsWith('objects/'));
        const young = objects.filter(() => coins.next().value);
        // A day short of the grace period.
        growOld(prefix, young, DEFAULT_GRACE_MS / DAY_MS - 1);
        const reports = new Map(await Promise.all([...kept, ...drop].map(async (run) => [run, await verified(store, run)] as const)));

        const { removed } = await gc(store, { drop });
        const left = new Set(keysOf(prefix));
        const needed = new Set(kept.flatMap((run) => reports.get(run)?.objects ?? []));
        for (const each of removed) assert.ok(!needed.has(each.key) && !young.includes(each.key), `${each.key} was needed or young`);
        for (const run of kept) assert.deepEqual(await verified(store, run), reports.get(run));
        const explained = new Set([...needed, ...young]);
        for (const run of drop) {
          const now = await verified(store, run);
          const was = reports.get(run) as VerifyReport & { objects: string[] };
          assert.deepEqual([now.problems, now.head, now.signers, now.unresolved], [[], was.head, was.signers, was.unresolved]);
          const missing = was.objects.filter((each) => !left.has(each));
          assert.equal(now.givenUp?.absent, missing.length);
          for (const each of now.objects) explained.add(each);
        }
        for (const each of objects) if (left.has(each)) assert.ok(explained.has(each), `${each} is left, and nothing needs it`);
        assert.deepEqual((await gc(store, { drop })).removed, []);
      });
      rmSync(folderOf(prefix), { recursive: true });
    }),
    { numRuns: 4 },
  );
});

test('a run without its bulk is exported and checked by the verifier of one file; one that hides something else is found', async () => {
  const prefix = copyOfTemplate();
  await within(prefix, async (store) => {
    const was = await verified(store, 'b');
    await gc(store, { drop: ['b'] });
    const folder = join(scratch, 'export');
    const { givenUp, head } = await exportRun(store, 'b', folder);
    assert.ok(givenUp && givenUp.absent > 0 && givenUp.by === 'test');
    assert.deepEqual(head, was.head);
    const verifier = () => {
      const { status, stdout } = spawnSync(process.execPath, [join(folder, 'verify.mjs'), folder, '--head', head?.sha256 ?? ''], {
        encoding: 'utf8',
      });
      return { status, stdout };
    };
    assert.equal(verifier().status, 0, verifier().stdout);
    assert.match(verifier().stdout, new RegExp(`^${givenUp.absent} objects are not here: given up`, 'm'));
    assert.equal(spawnSync('sha256sum', ['-c', '--quiet', 'SHA256SUMS'], { cwd: folder }).status, 0);
    // The statement excuses what it lists and nothing else: neither another object, nor anything once it says something else itself.
    const evaluation = was.objects.find((each) => existsSync(join(folder, each))) as string;
    for (const gone of [evaluation, givenUpKey('b'), objectKey(givenUp.list)]) {
      const places = [join(folderOf(prefix), gone), join(folder, gone)];
      for (const [i, place] of places.entries()) renameSync(place, join(scratch, `aside-${i}`));
      assert.equal((await verifyRun(store, 'b')).ok, false);
      assert.equal(verifier().status, 1);
      for (const [i, place] of places.entries()) renameSync(join(scratch, `aside-${i}`), place);
    }
    assert.equal(verifier().status, 0);
    // Signed by a key of one's own it does not convince who names the right one.
    const forger = signingKey(join(scratch, 'forger.pem'));
    await within(copyOfTemplate(), async (other) => {
      await gc(other, { drop: ['b'], apply: { by: 'nobody', key: forger } });
      const trusted = [createPublicKey(key().publicKey)];
      const { problems } = await verifyRun(other, 'b', { trusted });
      assert.equal(problems[0]?.what, 'signature of what was given up');
    });
  });
});

test('a collection that breaks off at any of its writes leaves a store in which every run verifies, and the next one ends the work', async () => {
  const prefix = copyOfTemplate();
  let left = 0;
  const breaksOff: Passing = (request, response, forward) => {
    if (request.method === 'GET' || request.method === 'HEAD' || left-- > 0) forward();
    else refuse(response, 403, 'AccessDenied');
  };
  const server = await startMisbehaving(s3.config.endpoint as string, breaksOff);
  try {
    const before = await within(prefix, (store) => Promise.all(RUNS.map((run) => verified(store, run))));
    let broken = 0;
    for (let writes = 0; ; writes += 1 + Math.floor(writes / 2)) {
      left = writes;
      const ended = await within(prefix, (store) => gc(store, { drop: ['b', 'c'] }), server.endpoint).then(
        () => true,
        (error: { type?: string }) => {
          assert.equal(error.type, 'Unavailable');
          return false;
        },
      );
      await within(prefix, async (store) => {
        for (const [i, run] of RUNS.entries()) {
          const { problems, head } = await verifyRun(store, run);
          assert.deepEqual([problems, head], [[], before[i]?.head]);
        }
      });
      if (ended) break;
      broken++;
      // A minute later, so that what the broken one announced is over.
      const announced = keysOf(prefix).filter((each) => each.startsWith(SWEEPS));
      growOld(prefix, announced, 1 / 1440);
    }
    assert.ok(broken >= 5, `${broken} collections broke off`);
    const undisturbed = copyOfTemplate();
    await within(undisturbed, (store) => gc(store, { drop: ['b', 'c'] }));
    const objects = (of: string) => keysOf(of).filter((each) => each.startsWith('objects/'));
    // The lists are named by their bytes, and say the same.
    assert.deepEqual(objects(prefix), objects(undisturbed));
    assert.ok(!keysOf(prefix).some((each) => each.startsWith(SWEEPS)));
  } finally {
    await server.stop();
  }
});

test('beside a live run: what is committed between the two looks, and what is stored anew at the moment of its removal, stays', async () => {
  const prefix = copyOfTemplate();
  const [reused, restored] = ['found by its digest and not sent again', 'stored anew while its removal is on its way'].map((text) =>
    Buffer.from(text),
  );
  await within(prefix, async (live) => {
    const [one, other] = [await live.put(reused as Buffer), await live.put(restored as Buffer)];
    growOld(prefix);
    let storing: Promise<unknown> | null = null;
    const passing: Passing = (request, _response, forward) => {
      const { method, url = '' } = request;
      // Dropping `b` states so between the looks.
      if (method === 'PUT' && url.includes('/runs/b/given-up.json'))
        void commitStage(live, 'a', 2, { stage: 'makeLabels', input: 'late', output: { labels: one } }).then(forward);
      else if (method === 'DELETE' && url.includes(other.sha256)) {
        storing = live.put(restored as Buffer);
        void (async () => {
          while (((await live.stat(other.key))?.lastModified.getTime() ?? 0) < Date.now() - DAY_MS) await delay(5);
          forward();
        })();
      } else forward();
    };
    const server = await startMisbehaving(s3.config.endpoint as string, passing);
    try {
      const { removed } = await within(prefix, (store) => gc(store, { drop: ['b'] }), server.endpoint);
      assert.ok(removed.length > 1 && !removed.some((each) => each.key === one.key));
      assert.ok(storing, 'the removal was met');
      await storing;
    } finally {
      await server.stop();
    }
    assert.deepEqual(Buffer.from(await live.get(one)), reused);
    assert.deepEqual(Buffer.from(await live.get(other)), restored);
    assert.equal((await verifyRun(live, 'a')).ok, true);
  });
});

test('a removal whose answer is lost is not sent again without a look: what was stored meanwhile stays', async () => {
  const prefix = copyOfTemplate();
  const bytes = Buffer.from('removed, and stored again before the second try');
  await within(prefix, async (live) => {
    const { key: at } = await live.put(bytes);
    growOld(prefix);
    let lost = 0;
    const passing: Passing = (request, response, forward) => {
      if (request.method !== 'DELETE' || !request.url?.includes(at) || lost++ > 0) return forward();
      void live
        .delete(at)
        .then(() => live.put(bytes))
        .then(() => response.destroy());
    };
    const server = await startMisbehaving(s3.config.endpoint as string, passing);
    try {
      await within(prefix, (store) => gc(store), server.endpoint);
    } finally {
      await server.stop();
    }
    assert.equal(lost, 1);
    assert.equal(await live.size(at), bytes.length);
  });
});

test('what was looked at in an announced time that is over is not removed, though the machine was asleep', async () => {
  const prefix = copyOfTemplate();
  await within(prefix, async (live) => {
    const { key: at } = await live.put(Buffer.from('looked at, and then the lid was closed'));
    growOld(prefix);
    const asleep = Date.now.bind(Date);
    const passing: Passing = (request, _response, forward) => {
      if (request.method === 'HEAD' && request.url?.includes(at)) mock.method(Date, 'now', () => asleep() + 60_000);
      forward();
    };
    const server = await startMisbehaving(s3.config.endpoint as string, passing);
    try {
      await assert.rejects(
        within(prefix, (store) => gc(store), server.endpoint),
        { type: 'Unavailable' },
      );
    } finally {
      mock.restoreAll();
      await server.stop();
    }
    assert.ok(!server.seen.some((each) => each.startsWith('DELETE') && each.includes(at)));
    assert.ok(await live.size(at));
  });
});

test('a second sweep is refused while one is announced, and takes no notice of one that died', async () => {
  const prefix = copyOfTemplate();
  await within(prefix, async (store) => {
    const { key: at } = await store.put(Buffer.from('stored by an attempt that was killed'));
    growOld(prefix);
    const other = `${SWEEPS}other.json`;
    await store.writePointer(other, {});
    let until = '';
    for await (const { lastModified } of store.list(SWEEPS)) until = new Date(lastModified.getTime() + 30_000).toISOString();
    await assert.rejects(gc(store), { type: 'Unavailable', message: new RegExp(`until ${until}`) });
    assert.deepEqual(
      keysOf(prefix).filter((each) => each.startsWith('gc/')),
      [other],
    );
    assert.ok(await store.size(at));
    growOld(prefix, [other], 1 / 1440);
    // Who stores an old object waits for no sweep that died, either; that would take 30 s.
    growOld(prefix, [at]);
    const began = performance.now();
    await store.put(Buffer.from('stored by an attempt that was killed'));
    assert.ok(performance.now() - began < 20_000);
    growOld(prefix, [at]);
    assert.deepEqual(
      (await gc(store)).removed.map((each) => each.key),
      [at],
    );
    assert.deepEqual(
      keysOf(prefix).filter((each) => each.startsWith('gc/')),
      [],
    );
  });
});

test('who stored an old object anew waits for one lease, however often the sweep renews it', async () => {
  await within(copyOfTemplate(), async (store) => {
    const { key: at } = await store.put(Buffer.from('refreshed'));
    const over = new AbortController();
    let renewals = 0;
    const renew = () => store.writePointer(`${SWEEPS}other.json`, { renewals: ++renewals });
    await renew();
    const sweeping = (async () => {
      for (; !over.signal.aborted; await delay(50)) {
        await renew();
        assert.ok(renewals < 300, 'it waits for as long as the sweep lives');
      }
    })();
    const waiting = outlastSweep(store, at, {}, 1_000).finally(() => over.abort());
    const began = performance.now();
    await Promise.all([waiting, sweeping]);
    assert.ok(performance.now() - began >= 1_000, 'it waits for one lease');
    assert.ok(renewals > 2);
  });
});

test('an object that is put again after half a day is young again', async () => {
  await within(copyOfTemplate(), async (store) => {
    const bytes = Buffer.from('put twice');
    const ref = await store.put(bytes);
    const prefix = store.config.prefix as string;
    growOld(prefix, [ref.key], 0.4);
    const before = await store.stat(ref.key);
    await store.put(bytes);
    assert.deepEqual(await store.stat(ref.key), before, 'what is young is not sent again');
    growOld(prefix, [ref.key], 0.6);
    await store.put(bytes);
    assert.ok(((await store.stat(ref.key))?.lastModified.getTime() ?? 0) > Date.now() - DAY_MS / 4);
  });
});

test('nothing is removed from a store in which something is missing, from under a run that has not begun, or before its time', async () => {
  const prefix = copyOfTemplate();
  await within(prefix, async (store) => {
    await assert.rejects(gc(store, { graceMs: LEAST_GRACE_MS - 1 }), { type: 'BadInput', message: /^grace period/ });
    await assert.rejects(gc(store, { drop: ['nobody'] }), { type: 'BadInput' });
    await pin(store, 'b', 'test', 'the paper rests on it');
    await assert.rejects(gc(store, { drop: ['b'] }), { type: 'BadInput', message: /unpin b/ });
    await unpin(store, 'b');

    await createRun(store, 'fork-to-be', { name: 'sample', seed: 1, note: 'äöü 😀' });
    await assert.rejects(gc(store, { drop: ['b'] }), { type: 'BadInput', message: /fork-to-be/ });
    const orphan = await store.put(Buffer.from('of whom?'));
    growOld(prefix);
    assert.deepEqual((await gc(store)).unbegun, ['fork-to-be']);
    assert.deepEqual((await gc(store)).removed, [], 'it was stored when the run was launched: it may be what that starts from');
    await appendRecord(store, 'fork-to-be', { index: 0, kind: 'genesis', previous: null, iteration: 0, body: {} });

    // The store has been looked through, and now the run goes on; or a fork is launched that needs what it made.
    const under = async (): Promise<void> => Promise.reject(badInput('run', 'b', 'a run that has ended'));
    await assert.rejects(gc(store, { drop: ['b'], mayDrop: under }), { type: 'BadInput' });
    assert.equal(await readGivenUp(store, 'b'), null);
    // Of two the second may not be dropped: the first has given up nothing.
    const second = async (run: string) => (run === 'c' ? under() : undefined);
    await assert.rejects(gc(store, { drop: ['b', 'c'], mayDrop: second }), { type: 'BadInput' });
    assert.equal(await readGivenUp(store, 'b'), null);
    // Nobody knows a run that another Temporal has under way; but it writes.
    for (const written of ['stages/a.json', 'checkpoints/a/7.json', 'new/2/begun.json', 'records/000005.json']) {
      const young = `runs/b/${written}`;
      await store.writePointer(young, {});
      growOld(prefix, [young], DEFAULT_GRACE_MS / DAY_MS - 0.1);
      await assert.rejects(gc(store, { drop: ['b'] }), { type: 'BadInput', message: /may be under way/ }, written);
      await store.delete(young);
    }
    const begins = async () => store.writePointer('runs/b/new/2/begun.json', {});
    await assert.rejects(gc(store, { drop: ['b'], mayDrop: begins }), { type: 'BadInput', message: /may be under way/ });
    assert.equal(await readGivenUp(store, 'b'), null);
    await store.delete('runs/b/new/2/begun.json');
    const other = copyOfTemplate();
    await within(other, async (forked) => {
      const mayDrop = async () =>
        void (await createRun(forked, 'late-fork', { name: 'sample', seed: 2 }, { parent: { runId: 'b', iteration: 1 } }));
      assert.deepEqual((await gc(forked, { drop: ['b'], mayDrop })).removed, []);
      assert.equal((await verifyRun(forked, 'b')).givenUp?.absent, 0);
      growOld(other);
      assert.deepEqual((await gc(forked)).removed, [], 'nor by a later collection');
      await appendRecord(forked, 'late-fork', { index: 0, kind: 'genesis', previous: null, iteration: 0, body: {} });
      assert.ok((await gc(forked)).removed.every(({ why, run }) => why === 'given up' && run === 'b'));
      assert.ok(((await verifyRun(forked, 'b')).givenUp?.absent ?? 0) > 0);
    });

    const [lost] = (await verified(store, 'a')).objects;
    await store.delete(lost as string);
    const all = keysOf(prefix);
    await assert.rejects(gc(store, { drop: ['b'] }), { type: 'Corrupt' });
    assert.deepEqual(keysOf(prefix), all);
    assert.equal(await readGivenUp(store, 'b'), null);
    assert.ok(all.includes(orphan.key));
  });
});

test('a run that has lost something can be dropped, its loss stays visible, and the rest of the store is collected again', async () => {
  const prefix = copyOfTemplate();
  await within(prefix, async (store) => {
    // Of no run but `b`: a table, to which a set of episodes refers, which is JSON.
    const others = new Set([...(await verified(store, 'a')).objects, ...(await verified(store, 'c')).objects]);
    const lost: string[] = [];
    for (const each of (await verified(store, 'b')).objects)
      if (!others.has(each) && Buffer.from((await store.readStart(each, 4)) ?? []).toString() === 'PAR1') lost.push(each);
    await store.delete(lost[0] as string);
    const unneeded = await store.put(Buffer.from('stored by an attempt that was killed'));
    growOld(prefix);
    const was = await verified(store, 'b');
    assert.equal(was.ok, false);
    await assert.rejects(gc(store), { type: 'Corrupt', message: /refers to it/ });
    const kept = await verified(store, 'a');

    const { removed } = await gc(store, { drop: ['b'] });
    assert.ok(removed.some((each) => each.key === unneeded.key));
    assert.deepEqual(await verified(store, 'a'), kept);
    const now = await verified(store, 'b');
    assert.ok(
      now.problems.some((each) => JSON.stringify(each).includes(lost[0] as string)),
      JSON.stringify(now.problems),
    );
    for (const each of lost.slice(1)) assert.equal(await store.size(each), null);
    // Nor later.
    assert.deepEqual((await gc(store)).removed, []);
    // What is missing of a run that keeps its bulk is not excused by another that shares it.
    await store.delete(kept.objects.find((each) => was.objects.includes(each)) as string);
    await assert.rejects(gc(store), { type: 'Corrupt' });
  });
});

test('panels that were drawn by hand, and the games that they name by digest alone, are kept', async () => {
  const prefix = copyOfTemplate();
  await within(prefix, async (store) => {
    const game = await store.put(Buffer.from(canonicalJson({ pddl: 'a game' })));
    const panel = await store.putJson({ role: 'unseen', tasks: [{ id: 'g', family: 'clean', sha256: game.sha256, bytes: game.bytes }] });
    await store.commit(`panels/${panel.sha256}.json`, { panel });
    growOld(prefix);
    assert.deepEqual((await gc(store)).removed, []);
    await store.delete(`panels/${panel.sha256}.json`);
    assert.deepEqual((await gc(store)).removed.map((each) => each.key).sort(), [game.key, panel.key].sort());
  });
});
