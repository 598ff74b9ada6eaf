/**
 * Launching a run: the recipe and the model it starts from are checked in full, then Temporal and the store are tried, and only then is anything
 * written. A run id belongs to one recipe for good; launching it again goes on where its records and committed stages end.
 */
import { WorkflowExecutionAlreadyStartedError, type Client } from '@temporalio/client';
import { existsSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { storeModel } from '../activities/stages/models.ts';
import { panelsGiven } from '../activities/stages/panels.ts';
import { forgetEnding } from '../artifacts/ending.ts';
import type { ForkPoint } from '../artifacts/record.ts';
import { requireBulk } from '../artifacts/retention.ts';
import { createRun, listRuns, readRun } from '../artifacts/run-log.ts';
import type { ArtifactStore } from '../artifacts/store.ts';
import { digestJson } from '../core/digest.ts';
import { badInput, RatchetError } from '../core/errors.ts';
import type { ModelRef } from '../core/nouns.ts';
import { worldNamed } from '../environments/registry.ts';
import { vocabularyDifference } from '../environments/tokenizer.ts';
import { readModelFolder } from '../learning/model-files.ts';
import type { LlamaConfig, Model } from '../learning/types.ts';
import { loadRecipe } from '../recipes/load.ts';
import type { Amendment } from '../recipes/amend.ts';
import type { Recipe } from '../recipes/schema.ts';
import { RECIPE, type LoopInput } from '../workflows/durable-loop.ts';
import type { improvementLoop } from '../workflows/index.ts';
import { DEFAULT_FLEET, taskQueue } from '../workflows/task-queues.ts';
import { chooseGames, storeGames, type ChosenGames } from './games.ts';
import { isFinished, loopStateOf, recipeAfter, stateAfter, type RunRecords } from './records.ts';
import { recordsOf, requireRecords } from './runs.ts';
import { ask, type Session } from './session.ts';

export interface LaunchOptions {
  scale: string;
  seed?: number;
  set: string[];
}

/** A recipe that could run, with the games from a folder and the model it starts from. */
export interface Prepared {
  recipe: Recipe;
  games: ChosenGames | null;
  initial: { model: Model; tokenizerJson: string } | null;
}

/** Checks everything that can be checked without a server. Throws BadInput naming the field. */
export function prepare(nameOrPath: string, { scale, seed, set }: LaunchOptions): Prepared {
  const recipe = loadRecipe(nameOrPath, { scale, overrides: set, ...(seed !== undefined && { seed }) });
  worldNamed(recipe.environment.name);
  return { recipe, games: chooseGames(recipe), initial: recipe.policy.initial === null ? null : readInitial(recipe) };
}

function readInitial({ policy, environment }: Recipe): { model: Model; tokenizerJson: string } {
  const field = 'policy.initial';
  const directory = resolve(policy.initial as string);
  if (!existsSync(directory) || !statSync(directory).isDirectory())
    throw badInput(field, policy.initial, 'a folder with config.json, weights and tokenizer.json (relative to where the command is run)');
  const { model, tokenizerJson } = readModelFolder(directory);
  if (tokenizerJson === null) throw badInput(field, policy.initial, 'the folder lacks tokenizer.json');
  checkShape(policy, model.config, `${field} (${directory})`);
  checkVocabulary(tokenizerJson, environment.name, `${field} (${directory})`);
  return { model, tokenizerJson };
}

/** The model must be the one that the recipe describes: training goes on with its shapes. */
function checkShape(policy: Recipe['policy'], config: LlamaConfig, where: string): void {
  if (config.architectures[0] !== 'LlamaForCausalLM') throw badInput(`${where}: architectures`, config.architectures, 'LlamaForCausalLM');
  const asked: [string, unknown, string, unknown][] = [
    ['hidden_size', config.hidden_size, 'policy.width', policy.width],
    ['num_hidden_layers', config.num_hidden_layers, 'policy.layers', policy.layers],
    ['num_attention_heads', config.num_attention_heads, 'policy.heads', policy.heads],
    ['intermediate_size', config.intermediate_size, 'policy.feedForward', policy.feedForward],
  ];
  for (const [name, value, field, wanted] of asked)
    if (value !== wanted) throw badInput(`${where}: ${name}`, value, `the recipe says ${field} ${String(wanted)}`);
  if (config.max_position_embeddings < policy.context)
    throw badInput(
      `${where}: max_position_embeddings`,
      config.max_position_embeddings,
      `at least the recipe's policy.context ${policy.context}`,
    );
}

/** A model is only ever fed by the codec that it was trained with: same words, same numbers. */
function checkVocabulary(tokenizerJson: string, environment: string, where: string): void {
  const difference = vocabularyDifference(tokenizerJson, worldNamed(environment).codec, where);
  if (difference !== null)
    throw new RatchetError('BadInput', `${where}: tokenizer.json: ${difference}; the model was trained with another codec`);
}

/** Tries the store (an address, credentials, conditional writes) and Temporal. Throws Unavailable saying what to do. */
export async function probe({ store, temporal }: Session): Promise<void> {
  await store.probe();
  const client = await temporal();
  await ask(client, () => client.workflowService.describeNamespace({ namespace: client.options.namespace }));
}

export interface Launched {
  runId: string;
  /** `started` anew, `resumed` from what is stored, `attached` to a run under way, or `finished` already. */
  how: 'started' | 'resumed' | 'attached' | 'finished';
}

/** Launches a prepared recipe under `runId`, or under the next free id. Throws Conflict when the id belongs to another recipe. */
export async function launch(session: Session, { recipe: asked, games, initial: given }: Prepared, runId?: string): Promise<Launched> {
  const { store } = session;
  await panelsGiven(store, asked);
  const initial = given && (await storeModel(store, given.model, given.tokenizerJson));
  const played = await storeGames(store, asked, games);
  const recipe: Recipe = initial ? { ...played, policy: { ...played.policy, initial: initial.sha256 } } : played;
  if (runId !== undefined) {
    const { created } = await createRun(store, runId, recipe);
    return created ? begin(session, fresh(runId, recipe, initial), 'started') : takeUp(session, runId, recipe, initial);
  }
  for (let number = await nextNumber(store, recipe); ; number++) {
    const id = `${idBase(recipe)}${number}`;
    // Somebody who launches at the same moment may have taken the number, with this recipe or another.
    const created = await createRun(store, id, recipe).catch((error: unknown) => {
      if (error instanceof RatchetError && error.type === 'Conflict') return { created: false };
      throw error;
    });
    if (created.created) return begin(session, fresh(id, recipe, initial), 'started');
  }
}

/** A run that exists: attaches to it while it goes on, else starts it again after its last closed iteration; committed work is not done twice. */
export async function takeUp(session: Session, runId: string, recipe: Recipe, initial: ModelRef | null): Promise<Launched> {
  const client = await session.temporal();
  const state = await executionState(client, runId);
  if (state === 'RUNNING' || state === 'PAUSED') return { runId, how: 'attached' };
  const records = await recordsOf(session.store, runId);
  if (records && isFinished(records)) return { runId, how: 'finished' };
  await requireBulk(session.store, runId);
  const { parent } = (await readRun(session.store, runId)) ?? {};
  if (records === null && parent) {
    const { origin } = await forkedFrom(session.store, parent);
    await forgetEnding(session.store, runId);
    return begin(session, { ...fresh(runId, recipe, null), ...origin }, 'resumed');
  }
  const amended = records ? recipeAfter(records) : { recipe, pending: [] };
  const known = initial ?? records?.genesis.initial ?? null;
  if (recipe.policy.initial !== null && known === null)
    throw badInput(
      'policy.initial',
      recipe.policy.initial,
      `run ${runId} has not begun; give the model's directory again with --set policy.initial=<directory>`,
    );
  const beginning = {
    runId,
    recipe: amended.recipe,
    recipeSha256: digestJson(recipe),
    initial: known,
    state: records && loopStateOf(records),
  };
  await forgetEnding(session.store, runId);
  return begin(session, beginning, 'resumed', amended.pending);
}

/** What a fork goes on from, and the parent's records. Throws BadInput where the parent has not closed that iteration. */
export async function forkedFrom(
  store: ArtifactStore,
  { runId, iteration }: ForkPoint,
): Promise<{ records: RunRecords; origin: Pick<Beginning, 'initial' | 'state' | 'fork'> }> {
  const records = await requireRecords(store, runId);
  await requireBulk(store, runId);
  const state = stateAfter(records, iteration);
  const closed = records.iterations.map((each) => each.iteration);
  if (!state) throw badInput('--at-iteration', iteration, `a closed iteration of ${runId}: ${closed.join(', ') || 'there is none yet'}`);
  return { records, origin: { initial: records.genesis.initial, state, fork: true } };
}

/** Temporal's word for the newest execution of a run; null where it knows none. */
export async function executionState(client: Client, runId: string): Promise<string | null> {
  try {
    return (await ask(client, () => client.workflow.getHandle(runId).describe())).status.name;
  } catch (error) {
    if (error instanceof RatchetError && error.type === 'BadInput') return null;
    throw error;
  }
}

/** The queue of the workers of this installation. */
export function loopQueue(): string {
  return taskQueue('loop', process.env['RATCHET_FLEET'] || DEFAULT_FLEET);
}

type Beginning = Pick<LoopInput, 'runId' | 'recipe' | 'recipeSha256' | 'initial' | 'state' | 'fork'>;

const fresh = (runId: string, recipe: Recipe, initial: ModelRef | null): Beginning => ({
  runId,
  recipe,
  recipeSha256: digestJson(recipe),
  initial,
  state: null,
});

/** Starts the workflow. Throws what Temporal answers, in our terms. */
export async function begin(
  session: Session,
  beginning: Beginning,
  how: 'started' | 'resumed',
  amendments: Amendment[] = [],
): Promise<Launched> {
  const client = await session.temporal();
  const { runId, recipe } = beginning;
  const { name, method, scale, seed } = recipe;
  const input: LoopInput = { ...beginning, control: { paused: false, stopping: false, amendments } };
  try {
    await ask(client, () =>
      client.workflow.start<typeof improvementLoop>('improvementLoop', {
        workflowId: runId,
        taskQueue: loopQueue(),
        args: [input],
        workflowIdReusePolicy: how === 'started' ? 'REJECT_DUPLICATE' : 'ALLOW_DUPLICATE',
        workflowIdConflictPolicy: 'FAIL',
        typedSearchAttributes: [{ key: RECIPE, value: name }],
        memo: { method, scale, seed },
        staticSummary: `${name} ${scale} seed ${seed}`,
      }),
    );
    return { runId, how };
  } catch (error) {
    // Somebody else launched it between the question and the start.
    if (error instanceof WorkflowExecutionAlreadyStartedError) return { runId, how: 'attached' };
    throw error;
  }
}

function idBase({ name, scale, seed }: Recipe): string {
  return `${name}-${scale}-s${seed}-`;
}

/** The id that a run of this recipe gets when nobody names one. */
export async function freeRunId(store: ArtifactStore, recipe: Recipe): Promise<string> {
  return `${idBase(recipe)}${await nextNumber(store, recipe)}`;
}

async function nextNumber(store: ArtifactStore, recipe: Recipe): Promise<number> {
  const base = idBase(recipe);
  const numbers = (await listRuns(store)).filter((id) => id.startsWith(base)).map((id) => Number(id.slice(base.length)));
  return 1 + Math.max(0, ...numbers.filter(Number.isInteger));
}
