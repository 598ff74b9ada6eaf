/** A small run in a store, made with the same calls as a real one: two iterations, failed and abandoned episodes, models, evaluations, attestations. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { signingKey } from '../../artifacts/attestation.ts';
import { writeEpisodes } from '../../artifacts/episodes-file.ts';
import { appendRecord, attest, commitStage, createRun } from '../../artifacts/run-log.ts';
import type { RecordEntry, RecordRef } from '../../artifacts/record.ts';
import type { ArtifactStore } from '../../artifacts/store.ts';
import { writeTable } from '../../artifacts/table.ts';
import { digestJson, sha256 } from '../../core/digest.ts';
import type { ArtifactRef, Ending, Episode, EpisodeShard, ModelRef, TaskPanel } from '../../core/nouns.ts';

const ROLES = ['train', 'validation', 'seen', 'unseen'] as const;

/** Signs the attestations of sample runs. */
export const SAMPLE_KEY_FILE = join(tmpdir(), `ratchet-test-key-${process.pid}.pem`);

export interface Changes {
  /** Applied to the episodes of a shard before they are stored, after they are counted. */
  episodes?: (episodes: Episode[]) => Episode[];
  /** Applied to the account of a shard. */
  shard?: (shard: EpisodeShard) => EpisodeShard;
  /** Applied to every evaluation as the records tell it. */
  evaluated?: (evaluated: Record<string, unknown>) => Record<string, unknown>;
  /** Applied to the last intent; `other` is a model that is not the policy. */
  intent?: (body: { from: ModelRef }, other: ModelRef) => object;
  /** Applied to the last outcome; `other` is a set of episodes that its policy did not play. */
  outcome?: (body: Record<string, unknown>, other: object) => object;
}

/** Writes the run and returns the head of its chain. */
export async function writeSampleRun(store: ArtifactStore, runId: string, changes: Changes = {}): Promise<RecordRef> {
  const same = <T>(value: T) => value;
  const { episodes: alter = same, shard: alterShard = same, evaluated: alterEvaluated = same, outcome: alterOutcome = same } = changes;
  let at = 0;
  const stage = async <T>(name: string, input: unknown, output: T): Promise<T> => {
    await commitStage(store, runId, at, { stage: name, input, output });
    return output;
  };

  const recipe = { name: 'sample', seed: 1, note: 'äöü 😀' };
  await createRun(store, runId, recipe);
  const panelEntries = ROLES.map(async (role) => {
    const tasks = Array.from({ length: 6 }, (_, i) => ({ id: `${role}/clean/${i}`, family: 'clean', sha256: sha256(`${role} ${i}`) }));
    const panel: TaskPanel = { role, environment: 'household', turnCap: 30, tasks };
    return [role, { ref: await store.putJson(panel), tasks: tasks.length }] as const;
  });
  const panels = await stage('makePanels', { seed: 1 }, Object.fromEntries(await Promise.all(panelEntries)));

  const model = async (name: string): Promise<ModelRef> => {
    const config = await store.put(Buffer.from(JSON.stringify({ architectures: ['LlamaForCausalLM'], name }, null, 2)));
    const weights = await store.put(Buffer.from(`\x10\0\0\0\0\0\0\0{"__metadata__"} weights of ${name}`.repeat(20)));
    const tokenizer = await store.putJson({ model: 'WordLevel', vocab: { '<pad>': 0 } });
    return { sha256: digestJson([config.sha256, weights.sha256, tokenizer.sha256]), files: { config, weights, tokenizer } };
  };
  const gather = async (panel: ArtifactRef, policy: ModelRef | null, purpose: string, role: string) => {
    const name = policy?.sha256 ?? 'demonstrator habits=1 noise=0.1';
    const plan = await store.putJson({
      panel,
      key: [1, purpose],
      actor: policy ? { kind: 'policy', policy } : { kind: 'demonstrator' },
      shards: [
        [0, 3],
        [3, 6],
      ],
    });
    await stage('planRollouts', { purpose }, { plan, shards: 2, episodes: 6 });
    const shards: EpisodeShard[] = [];
    for (const index of [0, 1]) {
      const played = Array.from({ length: 3 }, (_, i) => episode(role, index * 3 + i, name, purpose));
      const files = writeEpisodes(alter(played));
      const count = (kind: Ending['kind']) => played.filter(({ ending }) => ending.kind === kind).length;
      const shard = alterShard({
        episodes: await store.put(files.episodes),
        turns: await store.put(files.turns),
        dispatched: 3,
        completed: count('completed'),
        failed: count('failed'),
        abandoned: count('abandoned'),
        successes: played.reduce((sum, { outcome }) => sum + outcome, 0),
        turnCount: played.reduce((sum, { turns }) => sum + turns.length, 0),
      });
      shards.push(await stage('rolloutShard', { plan, shard: index }, shard));
    }
    const total = (field: 'dispatched' | 'completed' | 'failed' | 'abandoned' | 'successes' | 'turnCount') =>
      shards.reduce((sum, shard) => sum + shard[field], 0);
    const account = {
      dispatched: total('dispatched'),
      completed: total('completed'),
      failed: total('failed'),
      abandoned: total('abandoned'),
      successes: total('successes'),
      turnCount: total('turnCount'),
    };
    return stage('gatherRollouts', { plan }, { set: await store.putJson({ plan, policy: name, account, shards }), account });
  };
  const measure = async (role: (typeof ROLES)[number], policy: ModelRef, purpose: string) => {
    const panel = panels[role]?.ref as ArtifactRef;
    const { set, account } = await gather(panel, policy, purpose, role);
    const success = { value: account.successes / account.completed, low: 0, high: 1, n: account.completed };
    const stated = { panel: panel.sha256, policy: policy.sha256, strategy: 'greedy', success };
    const evaluation = await store.putJson({ ...stated, outcomes: [1, 0, null] });
    return stage('evaluate', { set }, alterEvaluated({ evaluation, episodes: set.sha256, ...stated }));
  };

  const key = signingKey(SAMPLE_KEY_FILE);
  let head: RecordRef | null = null;
  const append = async (kind: RecordEntry['kind'], iteration: number, body: object) => {
    at = iteration;
    head = await appendRecord(store, runId, {
      index: head === null ? 0 : head.index + 1,
      kind,
      iteration,
      previous: head?.sha256 ?? null,
      body,
    });
    const versions = { node: process.versions.node };
    await attest(
      store,
      runId,
      { record: head, at: '2026-01-01T00:00:00Z', host: 'test', pid: 1, versions, attempts: 1, durationMs: 5, steering: [] },
      key,
    );
    return head;
  };
  await append('genesis', 0, { recipe, initial: null, panels });
  await append('intent', 0, { from: null, seed: 1 });
  const demonstrations = await gather(panels['train']?.ref as ArtifactRef, null, 'demonstrate', 'train');
  const first = await stage(
    'warmStart',
    { set: demonstrations.set },
    { policy: await model('warm start'), report: { steps: 3, loss: 0.5 } },
  );
  await append('outcome', 0, { ...first, demonstrations, reports: { 'unseen greedy': await measure('unseen', first.policy, 'report 0') } });

  await append('intent', 1, changes.intent ? changes.intent({ from: first.policy }, await model('other')) : { from: first.policy });
  const rollouts = await gather(panels['train']?.ref as ArtifactRef, first.policy, 'collect', 'train');
  const table = writeTable({ episode: 'string', turn: 'int', value: 'double' }, { episode: ['a', 'b'], turn: [0, 1], value: [0.5, 1] });
  const labels = await stage('makeLabels', { set: rollouts.set }, { labels: await store.put(table), report: { states: 2 } });
  const update = await stage(
    'updatePolicy',
    { labels },
    { candidates: [{ step: 1, policy: await model('updated'), kl: 0.01 }], pairs: null },
  );
  const policy = update.candidates[0]?.policy as ModelRef;
  const validation = await measure('validation', policy, 'validate 1');
  const reports = { 'unseen greedy': await measure('unseen', policy, 'report 1') };
  return append(
    'outcome',
    1,
    alterOutcome({ policy, rollouts, labels, update, validation, decision: { promoted: true }, reports }, demonstrations),
  );
}

/** Of six, one fails, one is abandoned, and every second of the others succeeds. */
function episode(role: string, i: number, policy: string, purpose: string): Episode {
  const ending: Ending =
    i === 1 ? { kind: 'failed', reason: 'context-overflow' } : i === 4 ? { kind: 'abandoned', reason: 'stopped' } : { kind: 'completed' };
  return {
    id: `${role}/clean/${i}#0`,
    task: `${role}/clean/${i}`,
    family: 'clean',
    instruction: 'Put a clean mug in the cabinet.',
    repeat: 0,
    policy,
    turns: Array.from({ length: i + 1 }, (_, t) => ({
      observation: `${purpose}: you see a mug ${t}.`,
      admissible: ['look', 'take mug'],
      action: 'look',
      logProbability: -0.7,
      reward: 0,
    })),
    outcome: ending.kind === 'completed' && i % 2 === 0 ? 1 : 0,
    ending,
  };
}
