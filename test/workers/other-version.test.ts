/** A run that another version of Ratchet began: its games and its models are refused where they are no longer the same, and nothing is played. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { runStage } from '../../activities/run-stage.ts';
import { closeDecoders, storeModel, warmDecoder } from '../../activities/stages/models.ts';
import { stages } from '../../activities/stages/registry.ts';
import type { Planned } from '../../activities/stages/rollouts.ts';
import { ArtifactStore } from '../../artifacts/store.ts';
import { storeConfigFromEnvironment } from '../../artifacts/store-config.ts';
import type { EpisodeShard, PanelTask, TaskPanel } from '../../core/nouns.ts';
import { worldNamed } from '../../environments/registry.ts';
import { tokenizerJson } from '../../environments/tokenizer.ts';
import { initModel, llamaConfig } from '../../learning/model.ts';

const world = worldNamed('household');
const store = ArtifactStore.connect(storeConfigFromEnvironment({ ...process.env, RATCHET_PREFIX: `test-other-version-${randomUUID()}` }));
after(async () => {
  await closeDecoders();
  store.close();
});

/** Plays a panel as a run does: planned, then the only shard. */
async function played(tasks: PanelTask[]): Promise<EpisodeShard> {
  const panel: TaskPanel = { role: 'train', environment: 'household', turnCap: 30, tasks };
  const deps = { stages, store, scope: randomUUID(), iteration: 0, fingerprint: 'test/1', checkpointIntervalMs: 0, warn: () => {} };
  const { plan } = await runStage<Planned>(
    'planRollouts',
    {
      environment: 'household',
      panel: await store.putJson(panel),
      from: 0,
      count: tasks.length,
      repeats: 1,
      slots: null,
      context: 384,
      actor: { kind: 'demonstrator', habits: 0, noise: 0 },
      key: ['test'],
      shardEpisodes: 8,
      liveEpisodes: 4,
    },
    deps,
  );
  return runStage<EpisodeShard>('rolloutShard', { plan, shard: 0 }, deps);
}

test('a shard is not played where the generator makes another game than the panel names', async () => {
  const [first, second] = world.tasks('train', 0, 2);
  assert.ok(first && second);
  assert.equal((await played([first, second])).completed, 2);
  await assert.rejects(played([first, { ...second, sha256: first.sha256 }]), {
    type: 'Corrupt',
    message: new RegExp(`${second.id}.*${first.sha256}.*${second.sha256}.*version that began it`),
  });
});

test('a model is only played by the codec whose words it was trained with', async () => {
  const { codec } = world;
  const size = { vocabulary: codec.vocabulary.length, layers: 1, width: 16, heads: 2, feedForward: 32, context: 64 };
  const model = initModel(llamaConfig(size), ['test']);
  const options = { codec, rows: 1, context: 64 };
  const [last, ...rest] = codec.vocabulary.toReversed();
  assert.ok(last);
  const swapped = { ...codec, vocabulary: [...rest.slice(1).toReversed(), last, rest[0] as string] };
  const fewer = { ...codec, vocabulary: rest.toReversed() };

  // The same words in other bytes: a tokenizer that somebody brought with a model.
  await warmDecoder(store, await storeModel(store, model, JSON.stringify(JSON.parse(tokenizerJson(codec)))), options);
  for (const other of [swapped, fewer]) {
    const ref = await storeModel(store, model, tokenizerJson(other));
    await assert.rejects(warmDecoder(store, ref, options), {
      type: 'Corrupt',
      message: new RegExp(`model ${ref.sha256}: tokenizer\\.json: .* codec ${codec.version} has .*version of Ratchet that began it`),
    });
  }
});
