/** Online DPO on a handful of real episodes with models that were never trained: what may change and what must not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { demonstrate } from '../../agents/collector.ts';
import { Tokens } from '../../agents/tokens.ts';
import { onlineDpo, type OnlineDpoSpec } from '../../agents/updates/online-dpo.ts';
import { Random } from '../../core/random.ts';
import { worldNamed } from '../../environments/registry.ts';
import { initModel, llamaConfig, toScoreModel } from '../../learning/model.ts';
import type { Model } from '../../learning/types.ts';

const WIDTH = 16;

test('with LoRA only the named matrices of the candidates differ from the policy, by no more than the rank; same inputs, same bytes', async () => {
  const world = worldNamed('household');
  const slots = world.tasks('train', 0, 4).map(({ id, family }) => ({ task: id, family, repeat: 0 }));
  const episodes = demonstrate(slots, world, 'expert', ({ task }) => world.expert(task));
  const vocabulary = world.codec.vocabulary.length;
  const policy = initModel(llamaConfig({ vocabulary, width: WIDTH, layers: 1, heads: 2, feedForward: 24, context: 384 }), ['policy']);
  for (const [name, { data, shape }] of policy.tensors) {
    const random = new Random(['test', name]);
    if (shape.length === 2) for (let i = 0; i < data.length; i++) data[i] = 0.2 * random.normal(); // new models have zeros
  }
  const random = new Random(['test', 'score']);
  const rewardModel = toScoreModel(
    policy,
    Float32Array.from({ length: WIDTH }, () => random.normal()),
  );
  const spec: OnlineDpoSpec = {
    beta: 1,
    learningRate: 1e-2,
    weightDecay: 0,
    steps: 2,
    batchEpisodes: 2,
    candidates: 4,
    minProbability: 0.001,
    margin: 0,
    maxKl: 100,
    keepEvery: 1,
    outcomeWeight: 0,
    control: 'none',
    lora: { rank: 2, alpha: 4, targets: ['q_proj', 'down_proj'] },
  };
  const update = async (lanes: number): Promise<Model[]> => {
    const kept: Model[] = [];
    const keep = async (model: Model) => {
      kept.push(model);
      return { sha256: '', bytes: 0, key: '' } as never; // what the store would name; nobody reads it here
    };
    const checkpoints = { load: async () => null, save: async () => undefined, due: () => false };
    const hooks = {
      progress: () => undefined,
      checkpoints,
      stopIfRequested: () => undefined,
      signal: new AbortController().signal,
      outOfMemory: 0,
    };
    const inputs = { policy, rewardModel, episodes, tokens: new Tokens(world.codec), spec, key: ['test'], lanes, microBatches: 2, keep };
    const { report } = await onlineDpo(inputs, hooks);
    assert.ok(report.pairs > 0, 'there were pairs to learn from');
    return kept;
  };
  const candidates = await update(1);
  assert.equal(candidates.length, 2);
  for (const { tensors } of candidates) {
    const changed = [...tensors].filter(([name, { data }]) => data.some((value, i) => value !== policy.tensors.get(name)!.data[i]));
    assert.deepEqual(changed.map(([name]) => name).sort(), [
      'model.layers.0.mlp.down_proj.weight',
      'model.layers.0.self_attn.q_proj.weight',
    ]);
    for (const [name, { data, shape }] of changed) {
      const before = policy.tensors.get(name)!.data;
      const change = Array.from({ length: shape[0]! }, (_, row) =>
        Array.from({ length: shape[1]! }, (_, i) => data[row * shape[1]! + i]! - before[row * shape[1]! + i]!),
      );
      assert.ok(rank(change) <= 2, name);
    }
  }
  assert.deepEqual(await update(2), candidates);
});

/** Rows that are left by Gaussian elimination, of those above the rounding of float32 weights of about 1. */
function rank(rows: number[][]): number {
  const size = (row: number[]) => Math.max(...row.map(Math.abs));
  let left = rows.map((row) => [...row]);
  for (let found = 0; ; found++) {
    const pivot = left.reduce((best, row) => (size(row) > size(best) ? row : best), left[0]!);
    if (size(pivot) < 1e-6) return found;
    const at = pivot.findIndex((value) => Math.abs(value) === size(pivot));
    left = left.map((row) => row.map((value, i) => value - (row[at]! / pivot[at]!) * pivot[i]!));
  }
}
