/**
 * The improvement loop in one process: the newcomer's reading copy, and the baseline for what durability costs. It calls the same algorithm
 * (`workflows/improvement-loop.ts`) and the same stages as the durable loop, one after the other, with the same final digests; kill it and it starts its
 * current stage again. What it lacks is everything that Temporal is for.
 *
 *   node bench/inline-loop.ts [--recipe agentprm-household] [--scale micro] [--seed 1] [--set field=value ...] [--id run]
 *
 * The store is that of the environment (AWS_*, RATCHET_BUCKET), or the local server that `ratchet up` started.
 */
import { parseArgs } from 'node:util';
import { runStage, type StageRegistry } from '../activities/run-stage.ts';
import type { Progress } from '../activities/stage.ts';
import { closeDecoders } from '../activities/stages/models.ts';
import { stages as ratchetStages, type StageName } from '../activities/stages/registry.ts';
import { appendRecord, createRun } from '../artifacts/run-log.ts';
import type { RecordEntry } from '../artifacts/record.ts';
import { ArtifactStore } from '../artifacts/store.ts';
import { storeConfigFromEnvironment } from '../artifacts/store-config.ts';
import { ensureServers, type Servers } from '../infra/servers.ts';
import { endpointEnvironment } from '../infra/endpoints.ts';
import { badInput } from '../core/errors.ts';
import { numericFingerprint } from '../learning/compute/fingerprint.ts';
import { chooseGames, storeGames } from '../cli/games.ts';
import { loadRecipe } from '../recipes/load.ts';
import type { Recipe } from '../recipes/schema.ts';
import { iterate, warmStart, type LoopCalls, type LoopState, type Tell } from '../workflows/improvement-loop.ts';

/** How often progress within a stage is printed. */
const SHOW_EVERY_MS = 10_000;

export interface InlineRun {
  recipe: Recipe;
  store: ArtifactStore;
  runId: string;
  /** Where results of stages are remembered: normally the run itself; runs that share a scope share what they have in common. */
  scope?: string;
  /** Absent: those of Ratchet. */
  stages?: StageRegistry;
  tell?: Tell;
  onProgress?: (progress: Progress) => void;
}

/** Runs the whole loop and returns its last state. */
export async function inlineLoop({
  recipe,
  store,
  runId,
  scope = runId,
  stages = ratchetStages,
  tell = () => {},
  onProgress = () => {},
}: InlineRun): Promise<LoopState> {
  await createRun(store, runId, recipe);
  let iteration = 0;
  const call = (name: StageName) => (input: unknown) =>
    runStage(name, input, {
      stages,
      store,
      scope,
      iteration: scope === runId ? iteration : null,
      fingerprint: numericFingerprint(),
      onProgress,
    });
  const stageCalls = Object.fromEntries((Object.keys(stages) as StageName[]).map((name) => [name, oneAtATime(call(name))]));
  const calls = {
    ...stageCalls,
    rolloutShards: async ({ plan, shards }: Parameters<LoopCalls['rolloutShards']>[0]) => {
      for (let shard = 0; shard < shards; shard++) await stageCalls['rolloutShard']?.({ plan, shard });
    },
    appendRecord: (entry: RecordEntry) => appendRecord(store, runId, entry),
    approve: () => Promise.reject(badInput('gate.approval', 'person', 'none: a loop in one process has nobody to ask')),
  } as unknown as LoopCalls;

  try {
    let state = await warmStart(recipe, null, calls, tell);
    while (state.iteration < recipe.iterations) {
      iteration = state.iteration + 1;
      state = await iterate(recipe, state, calls, tell);
    }
    return state;
  } finally {
    await closeDecoders();
  }
}

/** The loop asks for many shards at once; one process plays them one after the other. */
let last: Promise<unknown> = Promise.resolve();
function oneAtATime<Input, Output>(call: (input: Input) => Promise<Output>): (input: Input) => Promise<Output> {
  return (input) => {
    const result = last.then(() => call(input));
    last = result.catch(() => {});
    return result;
  };
}

/**
 * The store of the environment, or of the servers of this folder, which are started if need be. `close` ends the use of both and leaves the servers
 * running; without it a process that watches over servers does not end.
 */
export async function openStore(): Promise<{ store: ArtifactStore; close: () => Promise<void> }> {
  let servers: Servers | null = null;
  if (!process.env['AWS_ENDPOINT_URL_S3'] && !process.env['AWS_ENDPOINT_URL']) {
    servers = await ensureServers({ home: '.ratchet', onProgress: ({ step, detail }) => console.error(`${step}: ${detail}`) });
    Object.assign(process.env, endpointEnvironment(servers.endpoints));
  }
  const store = ArtifactStore.connect(storeConfigFromEnvironment(process.env));
  return {
    store,
    async close() {
      store.close();
      await servers?.release();
    },
  };
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      recipe: { type: 'string', default: 'agentprm-household' },
      scale: { type: 'string', default: 'micro' },
      seed: { type: 'string' },
      set: { type: 'string', multiple: true, default: [] },
      id: { type: 'string', default: `inline-${process.pid}` },
    },
  });
  const asked = loadRecipe(values.recipe, {
    scale: values.scale,
    overrides: values.set,
    ...(values.seed ? { seed: Number(values.seed) } : {}),
  });
  const { store, close } = await openStore();
  const recipe = await storeGames(store, asked, chooseGames(asked));
  const started = performance.now();
  const clock = () => `${((performance.now() - started) / 1000).toFixed(1).padStart(7)} s`;
  let shown = started;
  const state = await inlineLoop({
    recipe,
    store,
    runId: values.id,
    tell: (phase) => console.log(`${clock()}  ${phase}`),
    onProgress: ({ phase, done, total, unit, metrics }) => {
      if (performance.now() - shown < SHOW_EVERY_MS) return;
      shown = performance.now();
      console.log(`${clock()}    ${phase}: ${done} of ${total} ${unit} ${metrics ? JSON.stringify(metrics) : ''}`);
    },
  });
  for (const [name, { success }] of Object.entries(state.reports)) {
    console.log(
      `${name.padEnd(24)} ${(100 * success.value).toFixed(1)} % [${(100 * success.low).toFixed(1)}, ${(100 * success.high).toFixed(1)}] of ${success.n}`,
    );
  }
  const requests = Object.values(store.requests);
  const total = (of: 'requests' | 'ms') => requests.reduce((sum, each) => sum + each[of], 0);
  console.log(`store: ${total('requests')} requests, ${(total('ms') / 1000).toFixed(1)} s`);
  console.log(`run ${values.id}: record ${state.head.index}, head ${state.head.sha256}`);
  await close();
}
