/** The transcripts of `episodes`: the text itself, and that a step's score is what the reward model says of the steps up to it and of nothing after. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { saveModel } from '../../activities/stages/models.ts';
import { demonstrate } from '../../agents/collector.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import { transcript } from '../../cli/commands/episodes.ts';
import { scoreEpisodes } from '../../cli/scores.ts';
import type { Episode } from '../../core/nouns.ts';
import { Random } from '../../core/random.ts';
import { worldNamed } from '../../environments/registry.ts';
import { initModel, llamaConfig, toScoreModel } from '../../learning/model.ts';

const WIDTH = 32;

test('the score of a step depends on the steps up to it alone, whatever else is scored', async () => {
  const world = worldNamed('household');
  const [task] = world.tasks('train', 0, 1);
  assert.ok(task);
  const [episode] = demonstrate([{ task: task.id, family: task.family, repeat: 0 }], world, 'expert', (slot) => world.expert(slot.task));
  assert.ok(episode && episode.turns.length >= 3);
  const size = { vocabulary: world.codec.vocabulary.length, layers: 2, width: WIDTH, heads: 2, feedForward: 64, context: 384 };
  const random = new Random(['test', 'head']);
  const head = Float32Array.from({ length: WIDTH }, () => random.normal());
  const store = ArtifactStore.connect(storeConfigFromEnvironment({ ...process.env, RATCHET_PREFIX: `test-cli-${randomUUID()}` }));
  try {
    const rewardModel = await saveModel(store, toScoreModel(initModel(llamaConfig(size), ['test', 'model']), head), world);
    const beginnings = episode.turns.map((_, turn): Episode => ({ ...episode, turns: episode.turns.slice(0, turn + 1) }));
    const scores = await scoreEpisodes(store, 'household', rewardModel, [episode, ...beginnings]);
    assert.ok(scores);
    const [whole, ...parts] = scores as number[][];
    assert.equal(whole?.length, episode.turns.length);
    assert.ok(whole?.every((score) => score > 0 && score < 1));
    parts.forEach((part, turn) => assert.ok(Math.abs((part[turn] as number) - (whole?.[turn] as number)) < 1e-5));
    assert.ok(new Set(whole?.map((score) => score.toFixed(6))).size > 1, 'different steps are told apart');
    assert.equal(await scoreEpisodes(store, 'household', null, [episode]), null);
  } finally {
    store.close();
  }
});

test('a transcript', () => {
  const turn = { admissible: ['look'], reward: 0 };
  const episode: Episode = {
    id: 'train/clean/000001#0',
    task: 'train/clean/000001',
    family: 'clean',
    instruction: 'Put a clean mug in the cabinet.',
    repeat: 0,
    policy: 'p',
    turns: [
      {
        ...turn,
        observation: 'You are in a room.\n\nYour task is to: put a clean mug in the cabinet.',
        action: 'go to shelf 1',
        logProbability: Math.log(0.5),
      },
      { ...turn, observation: 'You arrive at shelf 1.', action: 'take mug 1 from shelf 1', logProbability: 0 },
    ],
    outcome: 1,
    ending: { kind: 'completed' },
  };
  assert.deepEqual(transcript(episode, [0.1234, null]), [
    'train/clean/000001#0  (clean)  solved in 2 turns',
    'task: Put a clean mug in the cabinet.',
    '      You are in a room.',
    '      Your task is to: put a clean mug in the cabinet.',
    '  1 > go to shelf 1   Q 0.123   p 0.50',
    '      You arrive at shelf 1.',
    '  2 > take mug 1 from shelf 1',
  ]);
});
