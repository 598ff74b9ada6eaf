/** The tables of `history` and of the end of `start`, against the text that a person should see. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { historyRows, historyText } from '../../cli/history.ts';
import { sampleRecords } from './records.ts';

// The figures are those of test/cli/records.ts; digests of policies are SHA-256 of `"policy 0"` and `"policy 1"` (canonical JSON), their first 12 digits.
const WIDE = `demo   AgentPRM
recipe agentprm-household, scale tiny, seed 1; iteration 2 of 2 done; head HEAD

Success on 600 unseen games, % with 95 % interval (gain: points over the policy before, paired)
iteration  policy        greedy             gain                 sample T=1         gain                 best-of-4          turns
        0  8b6db6ef6284  65.2 [61.3, 68.9]  –                    52.0 [48.0, 56.0]  –                    –                   14.2
        1  cd53fee4882f  76.0 [72.4, 79.2]  +10.8 [+7.0, +14.6]  66.0 [62.0, 70.0]  +10.8 [+7.0, +14.6]  81.0 [77.0, 84.0]   12.9
        2  cd53fee4882f  76.0 [72.4, 79.2]  +10.8 [+7.0, +14.6]  66.0 [62.0, 70.0]  +10.8 [+7.0, +14.6]  81.0 [77.0, 84.0]   12.9

Reward model on held-out games (BCE in nats), its pairs (true difference in return, points), the gate
iteration  PRM BCE   base  corr.  pairs  pair truth (predicted)                decision (validation)
        1    0.401  0.512   0.61  3,412  +9.2 [+4.9, +13.5] (+11.3), 4.2 s.e.  promoted, step 80: 64.1 -> 72.3
        2    0.401  0.512   0.61  3,412  +9.2 [+4.9, +13.5] (+11.3), 4.2 s.e.  kept the old: 64.1 -> 64.0`;

test('the history of a run as a table of 140 columns', () => {
  const records = sampleRecords();
  const heads = records.iterations.map(({ head }) => head.sha256.slice(0, 12));
  const lines = historyText('demo', records, 140).map((line) =>
    line.replace(new RegExp(`  +(?:${heads.join('|')})$`), '').replace(/  +head$/, ''),
  );
  assert.equal(lines.join('\n').replace(heads.at(-1) as string, 'HEAD'), WIDE);
});

test('a narrow terminal first loses the digests, then gets one block of lines per iteration; no line is ever cut', () => {
  const records = sampleRecords();
  const narrower = historyText('demo', records, 120).join('\n');
  assert.ok(!narrower.includes('8b6db6ef6284') && narrower.includes('iteration  greedy             gain'));
  const blocks = historyText('demo', records, 80);
  assert.ok(blocks.includes('greedy      65.2 [61.3, 68.9]') && blocks.includes('best-of-4   81.0 [77.0, 84.0]'));
});

test('rows hold the figures themselves, by panel and strategy in the order of the recipe', () => {
  const [warmStart, first] = historyRows(sampleRecords());
  assert.deepEqual(
    first?.measured.map(({ panel, strategy }) => `${panel} ${strategy}`),
    ['unseen greedy', 'unseen sample T=1', 'unseen best-of-4'],
  );
  assert.equal(first?.pairTruth?.standardErrors, 4.21);
  assert.deepEqual(first?.rewardModel, { validationBce: 0.401, baseBce: 0.512, correlation: 0.614, episodes: 1200 });
  assert.equal(warmStart?.decision, null);
  assert.equal(warmStart?.rewardModel, null);
});
