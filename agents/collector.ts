/**
 * The collector: lets an agent act in many episodes at once and returns them, each with exactly one ending.
 * The composition of a batch follows from the slots alone (finished rows are refilled in the order of the slots), never from timing, so that the same
 * slots give the same bytes on any worker.
 */
import { RatchetError } from '../core/errors.ts';
import type { Ending, Episode, Turn } from '../core/nouns.ts';
import { Random, type RandomKey } from '../core/random.ts';
import type { Environment, ScriptedAgent, World } from '../environments/environment.ts';
import { actionTree, candidateAppend, commandLogProbabilities, decisionAppend, type ActionTree } from '../learning/action-tree.ts';
import { logSoftmaxOver } from '../learning/sampling.ts';
import type { Append, Decoder } from '../learning/types.ts';
import { choose, needsScores, propose, temperatureOf, type Decision, type StrategySpec } from './strategy.ts';
import type { Tokens } from './tokens.ts';

/** One episode to be played. */
export interface Slot {
  task: string;
  family: string;
  repeat: number;
  /** Commands to replay before the agent acts (a branch from the middle of an episode); their turns are part of the episode. */
  prefix?: string[];
}

/** Who acts: a policy under a strategy, with the reward model that the strategy asks. Decoders have one row per live episode. */
export interface PolicyActor {
  kind: 'policy';
  policy: Decoder;
  policyDigest: string;
  rewardModel?: Decoder;
  strategy: StrategySpec;
}

export interface CollectOptions {
  world: World;
  tokens: Tokens;
  actor: PolicyActor;
  /** Longest sequence that the policy can read, in tokens; an episode that outgrows it fails with reason `context-overflow`. */
  context: number;
  /** Every draw is keyed by this, the task and the repeat. */
  key: RandomKey;
  onEpisode?: (episode: Episode) => void;
}

/** Room that a decision needs beyond what was seen: the tokens of any command. */
const LONGEST_COMMAND = 8;

interface Live {
  slot: Slot;
  row: number;
  environment: Environment;
  turns: Turn[];
  /** Tokens that the decoders have not been fed yet; ends with the decision token. */
  pending: number[];
  random: Random;
}

/** The turn that is about to be taken; its reward is known only after the step. */
function turnOf(environment: Environment, action: string, logProbability: number): Turn {
  return { observation: environment.observation, admissible: [...environment.admissible], action, logProbability, reward: 0 };
}

export function episodeId(slot: Slot): string {
  return `${slot.task}#${slot.repeat}`;
}

/** Plays every slot, `actor.policy.rows` at a time, and returns the episodes in the order of the slots. */
export async function collect(slots: readonly Slot[], options: CollectOptions): Promise<Episode[]> {
  const { world, tokens, actor } = options;
  if (needsScores(actor.strategy) && !actor.rewardModel)
    throw new RatchetError('BadInput', `strategy ${actor.strategy.kind}: a reward model is needed and none was given`);
  const episodes = new Map<Slot, Episode>();
  const finish = (slot: Slot, instruction: string, turns: Turn[], outcome: number, ending: Ending) => {
    const { task, family, repeat } = slot;
    const episode: Episode = { id: episodeId(slot), task, family, instruction, repeat, policy: actor.policyDigest, turns, outcome, ending };
    episodes.set(slot, episode);
    options.onEpisode?.(episode);
  };

  /** The row is free again; clearing it at once lets the decoders pack the others. */
  const release = (row: number) => {
    actor.policy.clear(row);
    actor.rewardModel?.clear(row);
    freeRows.push(row);
  };

  let next = 0;
  let live: Live[] = [];
  const freeRows = Array.from({ length: actor.policy.rows }, (_, row) => row);
  while (next < slots.length || live.length > 0) {
    while (freeRows.length > 0 && next < slots.length) {
      const slot = slots[next++] as Slot;
      const started = start(slot, freeRows[0] as number, world, tokens, options.key);
      if ('failed' in started) {
        finish(slot, started.instruction, started.turns, 0, { kind: 'failed', reason: started.failed });
      } else if (started.environment.done) {
        finish(slot, started.environment.instruction, started.turns, started.environment.outcome, { kind: 'completed' });
      } else {
        freeRows.shift();
        live.push(started);
      }
    }
    const reading: Live[] = [];
    for (const one of live) {
      if (actor.policy.length(one.row) + one.pending.length + LONGEST_COMMAND <= options.context) reading.push(one);
      else {
        finish(one.slot, one.environment.instruction, one.turns, 0, { kind: 'failed', reason: 'context-overflow' });
        release(one.row);
      }
    }
    const chosen = await decideAll(reading, options);
    live = [];
    reading.forEach((one, i) => {
      act(one, chosen[i] as Chosen, tokens);
      if (one.environment.done) {
        finish(one.slot, one.environment.instruction, one.turns, one.environment.outcome, { kind: 'completed' });
        release(one.row);
      } else live.push(one);
    });
    freeRows.sort((a, b) => a - b);
  }
  return slots.map((slot) => episodes.get(slot) as Episode);
}

/** Opens the slot's game and replays its prefix. */
function start(
  slot: Slot,
  row: number,
  world: World,
  tokens: Tokens,
  key: RandomKey,
): Live | { failed: string; instruction: string; turns: Turn[] } {
  const environment = world.open(slot.task);
  const turns: Turn[] = [];
  const pending = tokens.start(environment.instruction, environment.observation);
  for (const command of slot.prefix ?? []) {
    if (!environment.admissible.includes(command)) return { failed: 'prefix-not-admissible', instruction: environment.instruction, turns };
    turns.push(turnOf(environment, command, 0));
    environment.step(command);
    if (environment.done) (turns.at(-1) as Turn).reward = environment.outcome;
    else pending.push(...tokens.command(command), ...tokens.feedback(command, environment.observation));
  }
  return { slot, row, environment, turns, pending, random: new Random([...key, slot.task, slot.repeat]) };
}

interface Chosen {
  command: string;
  logProbability: number;
}

/** One decision for every live episode: one pass of the policy, and where the strategy asks for it one pass of the reward model. */
async function decideAll(live: readonly Live[], options: CollectOptions): Promise<Chosen[]> {
  const { actor, tokens } = options;
  if (live.length === 0) return [];
  const commandIds = live.map((one) => one.environment.admissible.map((command) => tokens.command(command)));
  const trees = commandIds.map((ids) => actionTree(ids));
  const outputs = await actor.policy.step(live.map((one, i) => policyAppend(one, trees[i] as ActionTree)));
  const temperature = temperatureOf(actor.strategy);
  let at = 0;
  const decisions = live.map((one, i): Decision => {
    const tree = trees[i] as ActionTree;
    const options = tree.points.map((point) => logSoftmaxOver(outputs[at++] as Float32Array, point.allowed, temperature));
    return { tree, options, logProbabilities: commandLogProbabilities(tree, options), random: one.random };
  });
  const proposed = decisions.map((decision) => propose(actor.strategy, decision));
  const scoreLogits = actor.rewardModel ? await scoreProposed(live, commandIds, proposed, actor.rewardModel) : [];
  return live.map((one, i) => {
    const candidates = proposed[i] as number[];
    const decision = decisions[i] as Decision;
    const index =
      candidates.length === 1 ? (candidates[0] as number) : choose(actor.strategy, decision, candidates, scoreLogits[i] as number[]);
    const logProbability = actor.strategy.kind === 'greedy' ? 0 : (decision.logProbabilities[index] as number);
    return { command: one.environment.admissible[index] as string, logProbability };
  });
}

function policyAppend(one: Live, tree: ActionTree): Append {
  return { row: one.row, ...decisionAppend(one.pending, tree), keep: one.pending.length };
}

/** Score logits of the proposed commands of every episode; every episode is fed, so that the reward model's cache stays beside the policy's. */
async function scoreProposed(
  live: readonly Live[],
  commandIds: number[][][],
  proposed: number[][],
  rewardModel: Decoder,
): Promise<number[][]> {
  const appends = live.map((one, i): Append => {
    const candidates = proposed[i] as number[];
    const asked = candidates.length > 1 ? candidates.map((index) => (commandIds[i] as number[][])[index] as number[]) : [];
    const { ids, parents, nodes } = candidateAppend(one.pending, asked);
    return { row: one.row, ids, parents, reads: nodes.map((path) => path.at(-1) as number), keep: one.pending.length };
  });
  const outputs = await rewardModel.step(appends);
  let at = 0;
  return appends.map((append) => append.reads.map(() => (outputs[at++] as Float32Array)[0] as number));
}

function act(one: Live, chosen: Chosen, tokens: Tokens): void {
  const { environment } = one;
  one.turns.push(turnOf(environment, chosen.command, chosen.logProbability));
  environment.step(chosen.command);
  if (environment.done) (one.turns.at(-1) as Turn).reward = environment.outcome;
  else one.pending = [...tokens.command(chosen.command), ...tokens.feedback(chosen.command, environment.observation)];
}

/** Lets a scripted agent play every slot. An episode that it ends by itself before it is solved is completed with outcome 0. */
export function demonstrate(slots: readonly Slot[], world: World, name: string, agentOf: (slot: Slot) => ScriptedAgent): Episode[] {
  return slots.map((slot) => {
    const environment = world.open(slot.task);
    const agent = agentOf(slot);
    const turns: Turn[] = [];
    while (!environment.done) {
      const command = agent.act(environment);
      if (command === null) break;
      turns.push(turnOf(environment, command, 0));
      environment.step(command);
    }
    const last = turns.at(-1);
    if (last) last.reward = environment.outcome;
    const { task, family, repeat } = slot;
    return {
      id: episodeId(slot),
      task,
      family,
      instruction: environment.instruction,
      repeat,
      policy: name,
      turns,
      outcome: environment.outcome,
      ending: { kind: 'completed' },
    };
  });
}
