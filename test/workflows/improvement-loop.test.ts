/** What the loop decides, given what its stages answer. The stages are played here: only decisions are tested, and every number is chosen. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RecordEntry } from '../../artifacts/record.ts';
import { digestJson } from '../../core/digest.ts';
import type { ModelRef } from '../../core/nouns.ts';
import { loadRecipe } from '../../recipes/load.ts';
import { iterate, type LoopCalls, type LoopState, type Verdict } from '../../workflows/improvement-loop.ts';

const ref = (name: string) => ({ key: `objects/${digestJson(name)}`, sha256: digestJson(name), bytes: 1 });
const model = (name: string): ModelRef => ({
  sha256: digestJson(name),
  files: { config: ref('c'), weights: ref(name), tokenizer: ref('t') },
});
const panel = { ref: ref('panel'), tasks: 10 };
const STATE: LoopState = {
  iteration: 0,
  head: { index: 2, sha256: digestJson('head') },
  panels: { train: panel, validation: panel, seen: panel, unseen: panel },
  demonstrations: ref('demonstrations'),
  tasksUsed: 4000,
  policy: model('old'),
  reports: {},
};

/** Stages whose reward model has this correlation on held-out games, and whose one candidate solves 8 of 10 validation games where the old policy solves 5. */
function stages(correlation: number, approve: Verdict): { calls: LoopCalls; called: string[]; records: RecordEntry[] } {
  const called: string[] = [];
  const records: RecordEntry[] = [];
  const answers: Record<string, (input: never) => unknown> = {
    planRollouts: (input) => ({ plan: ref(JSON.stringify(input)), shards: 1, episodes: 1 }),
    rolloutShards: () => undefined,
    gatherRollouts: ({ plan }: { plan: object }) => ({ set: plan, account: {} }),
    makeLabels: () => ({ labels: ref('labels'), report: {} }),
    fitRewardModel: () => ({ rewardModel: model('prm'), report: { correlation } }),
    updatePolicy: () => ({ candidates: [{ step: 20, policy: model('new') }], pairs: null, report: {} }),
    evaluate: ({ policy }: { policy: string }) => ({
      success: { value: policy === model('new').sha256 ? 0.8 : 0.5, low: 0, high: 1, n: 10 },
    }),
    approve: () => approve,
    appendRecord: (entry: RecordEntry) => {
      records.push(entry);
      return { index: entry.index, sha256: digestJson(entry) };
    },
  };
  const calls = Object.fromEntries(
    Object.entries(answers).map(([name, answer]) => [
      name,
      async (input: never) => {
        called.push(name);
        return answer(input);
      },
    ]),
  ) as unknown as LoopCalls;
  return { calls, called, records };
}

const turn = async (overrides: string[], correlation: number, approve: Verdict = 'approved') => {
  const played = stages(correlation, approve);
  const recipe = loadRecipe('agentprm-household', { scale: 'tiny', overrides: ['pairTruth.pairs=0', ...overrides] });
  const state = await iterate(recipe, STATE, played.calls, () => {});
  const body = played.records.at(-1)?.body as { update: unknown; decision: { promoted: boolean; verdict?: string } };
  return { ...played, state, body };
};

test('a candidate that validation prefers is promoted, and nobody is asked where the recipe does not say so', async () => {
  const { state, body, called } = await turn([], 0.5);
  assert.equal(state.policy.sha256, model('new').sha256);
  assert.equal(body.decision.promoted, true);
  assert.ok(!called.includes('approve'));
});

test('no update is tried with a reward model that predicts nothing on held-out games', async () => {
  const { state, body, called } = await turn([], 0.02);
  assert.ok(!called.includes('updatePolicy'));
  assert.equal(state.policy.sha256, model('old').sha256);
  assert.deepEqual([body.update, body.decision.promoted], [null, false]);
});

test('the correlation does not matter to an update that asks no reward model', async () => {
  const rejection =
    'update={kind: rejection-sft, optimizer: adamw, steps: 10, batchEpisodes: 8, learningRate: 5.0e-4, observationWeight: 0, keepEvery: 10}';
  assert.ok((await turn([rejection], 0)).called.includes('updatePolicy'));
  assert.ok((await turn(['update.control=no-prm', 'update.outcomeWeight=1'], 0)).called.includes('updatePolicy'));
});

test('a person who is asked decides, within what validation would promote', async () => {
  const ask = 'gate.approval=person';
  assert.equal((await turn([ask], 0.5, 'approved')).body.decision.verdict, 'approved');
  const rejected = await turn([ask], 0.5, 'rejected');
  assert.deepEqual([rejected.body.decision.verdict, rejected.body.decision.promoted], ['rejected', false]);
  assert.equal(rejected.state.policy.sha256, model('old').sha256);
  // Stopped while it waited: nothing is promoted, and the record does not say that anybody rejected it.
  const unanswered = await turn([ask], 0.5, 'unanswered');
  assert.deepEqual([unanswered.body.decision.verdict, unanswered.body.decision.promoted], ['unanswered', false]);
  // Nothing to ask about: the gate wants more than the candidate gives.
  assert.ok(!(await turn([ask, 'gate.minGain=0.9'], 0.5)).called.includes('approve'));
});
