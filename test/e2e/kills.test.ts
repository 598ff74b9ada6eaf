/**
 * Kill -9 in six stages, of every kind of process, at moments fixed by progress count: the run completes without help and its final record has the very
 * digest of an undisturbed run of the same recipe and seed (docs/audit.md A9: resume equals no stop).
 */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { after, before, test } from 'node:test';
import { homePaths } from '../../infra/home.ts';
import {
  cli,
  kill,
  logOf,
  MICRO,
  newHome,
  planStrikes,
  processesOf,
  processesWithHome,
  readRun,
  waitFor,
  type Home,
} from '../support/loop.ts';
import { startCollector } from '../support/collector.ts';
import type { Moment } from '../support/strike-at.ts';

/** Demonstrations, warm start, collection (after 5 shards of demonstrations and 4 of reports), fit, update, evaluation: what takes long enough to be hit. */
const MOMENTS: Moment[] = [
  { at: 'progress', stage: 'rolloutShard', done: 3, call: 0, phase: 'rollouts' },
  { at: 'progress', stage: 'warmStart', done: 12, call: 0 },
  { at: 'progress', stage: 'rolloutShard', done: 3, call: 9, phase: 'rollouts' },
  { at: 'progress', stage: 'fitRewardModel', done: 1, call: 0 },
  { at: 'progress', stage: 'updatePolicy', done: 2, call: 0, phase: 'policy update' },
  { at: 'progress', stage: 'rolloutShard', done: 4, call: 20, phase: 'rollouts' },
];

const homes: Home[] = [];
const home = () => {
  const made = newHome();
  homes.push(made);
  return made;
};
let undisturbed = '';

before(async () => {
  const quiet = home();
  const run = cli(quiet, MICRO);
  assert.equal((await run.exited).code, 0, run.output());
  undisturbed = (await readRun(quiet)).head;
});
after(() => homes.forEach((one) => one.remove()));

for (const target of ['child', 'worker', 'temporal', 's3'] as const) {
  test(`kill -9 of the ${target} in each of ${MOMENTS.length} stages: the run completes by itself with the undisturbed head`, async () => {
    const hurt = home();
    const plan = planStrikes(
      hurt,
      MOMENTS.map((moment) => ({ target, moment })),
    );
    const collector = await startCollector();
    const run = cli(hurt, MICRO, { ...plan.env, ...collector.environment });
    const { code } = await run.exited;
    await collector.close();
    assert.equal(code, 0, `${run.output()}\n${logOf(hurt, 'workers.log').slice(-4000)}`);
    assert.deepEqual(
      MOMENTS.map((_, index) => index).filter((index) => !plan.struck(index)),
      [],
      'every planned kill struck',
    );
    // What is decided again after a kill is not told again.
    assert.equal(new Set(collector.spans.map(({ spanId }) => spanId)).size, collector.spans.length, 'no span twice');
    assert.ok(
      collector.spans.some(({ name }) => name === 'RunWorkflow:improvementLoop'),
      'traced',
    );
    const { head, report } = await readRun(hurt);
    assert.equal(head, undisturbed);
    assert.deepEqual(report.problems, []);
  });
}

test('everything killed at once, twice: `start` again goes on, to the undisturbed head', async () => {
  const hurt = home();
  for (const moment of [MOMENTS[0], MOMENTS[3]] as Moment[]) {
    const plan = planStrikes(hurt, [{ target: 'all', moment }]);
    const run = cli(hurt, MICRO, plan.env);
    // The marker is made at the planned progress count; nothing else is timed.
    await waitFor(() => plan.struck(0), `${JSON.stringify(moment)}`, run);
    for (const pid of [run.pid, ...(await processesOf(hurt))]) kill(pid);
    await run.exited;
  }
  const again = cli(hurt, MICRO);
  assert.equal((await again.exited).code, 0, again.output());
  const { head, report } = await readRun(hurt);
  assert.equal(head, undisturbed);
  assert.deepEqual(report.problems, []);
  assert.deepEqual(processesWithHome(hurt), [], 'processes left behind');
});

test("Temporal's database lost with everything else: `restore` goes on from the store alone, to the undisturbed head", async () => {
  const hurt = home();
  const plan = planStrikes(hurt, [{ target: 'all', moment: MOMENTS[3] as Moment }]);
  const run = cli(hurt, MICRO, plan.env);
  await waitFor(() => plan.struck(0), 'the policy update under way', run);
  for (const pid of [run.pid, ...(await processesOf(hurt))]) kill(pid);
  await run.exited;
  rmSync(dirname(homePaths(hurt.path).temporalDatabase), { recursive: true });
  for (const args of [['up'], ['restore', 'run'], ['watch', 'run'], ['down']]) {
    const next = cli(hurt, args);
    assert.equal((await next.exited).code, 0, `${args.join(' ')}\n${next.output()}`);
  }
  const { head, report } = await readRun(hurt);
  assert.equal(head, undisturbed);
  assert.deepEqual(report.problems, []);
});
