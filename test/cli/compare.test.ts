/** `compare`: where two runs part, which is better, and that other panels are refused. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Evaluation } from '../../agents/evaluation.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { compareRuns, comparisonText } from '../../cli/compare.ts';
import type { RunRecords } from '../../cli/records.ts';
import { proportion } from '../../core/statistics.ts';
import { sampleRecords } from './records.ts';

const store = ArtifactStore.connect({ ...storeConfigFromEnvironment(process.env), prefix: 'compare' });
before(() => store.probe());
after(() => store.close());

/** The sample run with its last greedy report measured as `outcomes` on `panel`. */
async function measured(outcomes: number[], panel: string): Promise<RunRecords> {
  const records = sampleRecords();
  const success = proportion(
    outcomes.reduce((a, b) => a + b, 0),
    outcomes.length,
  );
  const evaluation: Evaluation = { panel, policy: 'y', strategy: 'greedy', success, turnsOnSuccess: success, families: {}, outcomes };
  const { body } = records.iterations.at(-1) as RunRecords['iterations'][number];
  const greedy = body.reports['unseen greedy'];
  assert.ok(greedy);
  body.reports = { 'unseen greedy': { ...greedy, panel, success, evaluation: await store.putJson(evaluation) } };
  return records;
}

test('a run compared with one of another seed of training: recipe, parting and the paired gain', async () => {
  const a = await measured([0, 0, 1, 1], 'p');
  const b = await measured([1, 1, 1, 0], 'p');
  b.genesis.recipe = { ...b.genesis.recipe, seed: 2 };
  // The first outcome of b has another policy.
  const third = b.entries[2];
  assert.ok(third);
  third.entry = { ...third.entry, body: { ...third.entry.body, policy: 'another' } };
  third.ref = { ...third.ref, sha256: 'f'.repeat(64) };
  const comparison = await compareRuns(store, { runId: 'a', records: a }, { runId: 'b', records: b });
  assert.deepEqual(comparison.recipe, [{ path: 'seed', a: '1', b: '2' }]);
  assert.equal(comparison.parting?.index, 2);
  assert.equal(comparison.parting?.path, 'body.policy');
  // Differences by task: +1, +1, 0, -1, of which the mean is 1/4.
  assert.equal(comparison.reports[0]?.gain?.value, 0.25);
  assert.match(comparisonText(comparison).join('\n'), /they part in record 2 \(outcome of iteration 0\) at body\.policy/);
});

test('a run equals itself', async () => {
  const run = await measured([1, 0], 'p');
  const comparison = await compareRuns(store, { runId: 'a', records: run }, { runId: 'a', records: run });
  assert.deepEqual([comparison.recipe, comparison.parting, comparison.equalRecords], [[], null, run.entries.length]);
  assert.equal(comparison.reports[0]?.gain?.value, 0);
});

test('evaluations of different panels are refused', async () => {
  const [a, b] = [await measured([1, 0], 'p'), await measured([1, 0], 'q')];
  await assert.rejects(compareRuns(store, { runId: 'a', records: a }, { runId: 'b', records: b }), {
    type: 'BadInput',
    message: /equal panels/,
  });
});

test('a run without a closed iteration is bad input', async () => {
  const run = await measured([1], 'p');
  await assert.rejects(compareRuns(store, { runId: 'new', records: { ...run, iterations: [] } }, { runId: 'a', records: run }), {
    type: 'BadInput',
    message: /^run: "new"/,
  });
});
