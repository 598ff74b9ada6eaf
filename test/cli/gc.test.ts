/** `gc`, `pin` and `unpin` as a person gives them, on the test run's servers: what they say, refuse and leave to the other commands. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { ArtifactStore } from '../../artifacts/store.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import type { GcReport } from '../../artifacts/gc.ts';
import type { VerifyReport } from '../../artifacts/verify.ts';
import { writeSampleRun } from '../artifacts/sample-run.ts';
import { freshHome, ratchet } from './cli.ts';

const env = { RATCHET_PREFIX: `test-gc-${randomUUID()}`, RATCHET_HOME: freshHome() };
let store: ArtifactStore;

before(async () => {
  store = ArtifactStore.connect(storeConfigFromEnvironment({ ...process.env, ...env }));
  for (const run of ['paper', 'scratch'])
    await writeSampleRun(store, run, { episodes: (episodes) => episodes.map((each) => ({ ...each, instruction: run })) });
});
after(() => store.close());

test('looks unless told to apply, keeps what is young, and gives up the bulk of no run that is pinned', async () => {
  const looked = await ratchet(['gc', '--drop', 'scratch'], { env });
  assert.equal(looked.code, 0, looked.err);
  // Everything was stored a moment ago.
  assert.match(
    looked.out,
    /^2 runs; kept: \d+ objects.*\nnot referred to, but younger than 7 days: \d+ objects.*\nnothing could be removed\n$/,
  );
  assert.match((await ratchet(['verify', 'scratch'], { env })).out, /^scratch: everything is as its records say/);

  assert.match((await ratchet(['pin', 'paper', '--reason', 'it is in print'], { env })).out, /^run paper is pinned/);
  const refused = await ratchet(['gc', '--apply', '--drop', 'paper'], { env });
  assert.deepEqual([refused.code, /unpin paper/.test(refused.err)], [2, true]);
  assert.equal((await ratchet(['unpin', 'paper'], { env })).code, 0);

  const { code, out } = await ratchet(['gc', '--apply', '--drop', 'scratch', '--json'], { env });
  assert.equal(code, 0);
  const report = JSON.parse(out) as GcReport;
  assert.deepEqual(
    report.runs.map(({ run, givenUp }) => [run, givenUp]),
    [
      ['paper', false],
      ['scratch', true],
    ],
  );
  assert.deepEqual([report.applied, report.removed], [true, []]);
  const verified = JSON.parse((await ratchet(['verify', 'scratch', '--json'], { env })).out) as VerifyReport;
  assert.deepEqual([verified.ok, verified.givenUp?.absent], [true, 0]);
  // What needs the bulk says why it is not there, and who to ask.
  for (const args of [
    ['replay', 'scratch'],
    ['episodes', 'scratch'],
    ['fork', 'scratch', '--at-iteration', '1'],
    ['pin', 'scratch'],
  ]) {
    const { code: refusal, err } = await ratchet(args, { env });
    assert.equal(refusal, 2, args.join(' '));
    assert.match(err, /gave up those of this one on \d{4}-/, args.join(' '));
  }
});

for (const [name, args, told] of [
  ['a grace period below a day', ['gc', '--grace', '0'], /--grace: "0"/],
  ['an age that is no number', ['gc', '--older-than', 'week'], /--older-than: "week"/],
  ['a run that is not there', ['gc', '--drop', 'papre'], /did you mean paper/],
  ['a run to pin that is not there', ['pin', 'papre'], /did you mean paper/],
] as const)
  test(`${name} is bad input`, async () => {
    const { code, err } = await ratchet([...args], { env });
    assert.equal(code, 2, err);
    assert.match(err, told);
  });
