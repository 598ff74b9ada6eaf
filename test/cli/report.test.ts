/** The report and the model card, against what the records of test/cli/records.ts say. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { historyRows } from '../../cli/history.ts';
import { divergences, reportFiles } from '../../cli/report.ts';
import { sampleRecords } from './records.ts';

test('a report holds the figures of the records and ends with the head they follow from', () => {
  const records = sampleRecords();
  const files = reportFiles('demo', records);
  assert.deepEqual(Object.keys(files), ['report.md', 'MODEL_CARD.md', 'success.svg', 'proxy.svg']);
  const report = files['report.md'] as string;
  assert.match(report, /\| 1 \| greedy \| 76\.0 \[72\.4, 79\.2\] \| \+10\.8 \[\+7\.0, \+14\.6\] \| 12\.9 \|/);
  assert.match(report, /\| 1 \| 64\.1 \| 72\.3 \| promoted, step 80 \|/);
  assert.match(report, /\| 1 \| 1,200 \| 1,200 \| 0 \| 0 \| 600 \|/);
  assert.match(report, new RegExp(`head \`${records.head.sha256}\``));
  assert.match(report, /By this rule: none\./);
  const card = files['MODEL_CARD.md'] as string;
  assert.match(card, /promoted in iteration 1\./);
  assert.match(card, new RegExp(records.iterations[1]?.body.policy.files.weights.sha256 as string));
});

test('equal records give equal bytes', () => {
  assert.deepEqual(reportFiles('demo', sampleRecords()), reportFiles('demo', sampleRecords()));
});

test('figures are well-formed, and every point of every series is drawn', () => {
  const { 'success.svg': svg = '' } = reportFiles('demo', sampleRecords());
  // Greedy and sampled in three iterations, best-of-4 from the first on: eight points, and a mark per series in the legend.
  assert.equal(svg.match(/<circle/g)?.length, 8 + 3);
  assert.doesNotMatch(svg, /NaN|undefined|Infinity/);
  assert.equal(svg.match(/<svg/g)?.length, svg.match(/<\/svg>/g)?.length);
});

test('what a reward model prefers and what is not better is called by the rule', () => {
  const records = sampleRecords();
  const rows = historyRows(records);
  const [, first] = rows;
  assert.ok(first?.pairTruth);
  first.pairTruth = { ...first.pairTruth, truth: { value: 0.02, low: -0.01, high: 0.05, n: 100 } };
  assert.deepEqual(divergences(rows, 'unseen'), ['iteration 1: promised +11.3, true +2.0 [-1.0, +5.0]']);
  const greedy = first.measured[0];
  assert.ok(greedy);
  greedy.gain = { value: -0.05, low: -0.08, high: -0.02, n: 600 };
  assert.equal(divergences(rows, 'unseen').length, 2);
});
