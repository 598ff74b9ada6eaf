/**
 * Rollouts: planned, played in shards, gathered. The plan fixes which episodes each shard holds before anything is dispatched, so that a shard gives
 * the same bytes whichever worker plays it, and a set of 10,000 shards is one object and never a list in a payload.
 */
import { readEpisodes, writeEpisodes } from '../../artifacts/episodes-file.ts';
import type { ArtifactStore } from '../../artifacts/store.ts';
import { collect, demonstrate, type Slot } from '../../agents/collector.ts';
import { needsScores, type StrategySpec } from '../../agents/strategy.ts';
import { Tokens } from '../../agents/tokens.ts';
import type { Account, ArtifactRef, Episode, EpisodeShard, ModelRef, TaskPanel } from '../../core/nouns.ts';
import type { RandomKey } from '../../core/random.ts';
import type { Stage, StageContext } from '../stage.ts';
import { worldOf } from './games.ts';
import { warmDecoder } from './models.ts';

/** Who plays. */
export type Actor =
  | { kind: 'demonstrator'; habits: number; noise: number }
  | { kind: 'policy'; policy: ModelRef; strategy: StrategySpec; rewardModel: ModelRef | null };

export interface RolloutRequest {
  environment: string;
  panel: ArtifactRef;
  /** Tasks `from` .. `from + count - 1` of the panel, each played `repeats` times; or the slots of a stored list, if `slots` is given. */
  from: number;
  count: number;
  repeats: number;
  slots: ArtifactRef | null;
  actor: Actor;
  /** Every draw of every episode is keyed by this, the task and the repeat. */
  key: RandomKey;
  shardEpisodes: number;
  liveEpisodes: number;
  context: number;
}

/** A plan as stored: the request and the slots of every shard as ranges [from, to) of the slot list. */
export interface RolloutPlan extends RolloutRequest {
  shards: [number, number][];
}

export interface Planned {
  plan: ArtifactRef;
  shards: number;
  episodes: number;
}

/** All episodes of a plan as stored: the shards in their order. */
export interface EpisodeSet {
  plan: ArtifactRef;
  /** Digest of the policy that acted, or the name of the scripted agent. */
  policy: string;
  account: Account;
  shards: EpisodeShard[];
}

export interface Gathered {
  set: ArtifactRef;
  account: Account;
}

export const planRollouts: Stage<RolloutRequest, Planned> = async (request, { store }) => {
  const episodes = request.slots ? (await store.getJson<Slot[]>(request.slots)).length : request.count * request.repeats;
  const shards: [number, number][] = [];
  for (let at = 0; at < episodes; at += request.shardEpisodes) shards.push([at, Math.min(episodes, at + request.shardEpisodes)]);
  const plan: RolloutPlan = { ...request, shards };
  return { plan: await store.putJson(plan), shards: shards.length, episodes };
};

export const rolloutShard: Stage<{ plan: ArtifactRef; shard: number }, EpisodeShard> = async ({ plan: planRef, shard }, context) => {
  const { store, progress, signal } = context;
  const plan = await store.getJson<RolloutPlan>(planRef);
  const [from, to] = plan.shards[shard] as [number, number];
  const panel = await store.getJson<TaskPanel>(plan.panel);
  const slots = (await slotsOf(store, plan, panel)).slice(from, to);
  const world = await worldOf(store, panel, slots);
  let done = 0;
  let solved = 0;
  const onEpisode = (episode: Episode) => {
    signal.throwIfAborted();
    // A shard is seconds of work: a draining worker gives it back at once instead of waiting for its end.
    context.stopIfRequested();
    solved += episode.outcome;
    progress({ phase: 'rollouts', done: ++done, total: slots.length, unit: 'episodes', metrics: { success: solved / done } });
  };
  const { actor } = plan;
  let episodes: Episode[];
  if (actor.kind === 'demonstrator') {
    const name = `demonstrator habits=${actor.habits} noise=${actor.noise}`;
    episodes = demonstrate(slots, world, name, (slot) => world.demonstrator(slot.task, [...plan.key, slot.task, slot.repeat], actor));
    episodes.forEach(onEpisode);
  } else {
    const size = { codec: world.codec, rows: plan.liveEpisodes, context: plan.context };
    const policy = await warmDecoder(store, actor.policy, size);
    const rewardModel = needsScores(actor.strategy) && actor.rewardModel ? await warmDecoder(store, actor.rewardModel, size) : null;
    progress({ phase: 'rollouts', done: 0, total: slots.length, unit: 'episodes' });
    episodes = await collect(slots, {
      world,
      tokens: new Tokens(world.codec),
      actor: {
        kind: 'policy',
        policy,
        policyDigest: actor.policy.sha256,
        strategy: actor.strategy,
        ...(rewardModel ? { rewardModel } : {}),
      },
      context: plan.context,
      key: plan.key,
      onEpisode,
    });
  }
  const files = writeEpisodes(episodes);
  const [episodesRef, turnsRef] = await Promise.all([store.put(files.episodes), store.put(files.turns)]);
  const ended = (kind: Episode['ending']['kind']) => episodes.filter((episode) => episode.ending.kind === kind).length;
  return {
    episodes: episodesRef,
    turns: turnsRef,
    dispatched: slots.length,
    completed: ended('completed'),
    failed: ended('failed'),
    abandoned: ended('abandoned'),
    successes: episodes.reduce((sum, episode) => sum + episode.outcome, 0),
    turnCount: episodes.reduce((sum, episode) => sum + episode.turns.length, 0),
  };
};

async function slotsOf(store: ArtifactStore, plan: RolloutPlan, panel: TaskPanel): Promise<Slot[]> {
  if (plan.slots) return store.getJson<Slot[]>(plan.slots);
  return panel.tasks
    .slice(plan.from, plan.from + plan.count)
    .flatMap(({ id, family }) => Array.from({ length: plan.repeats }, (_, repeat) => ({ task: id, family, repeat })));
}

export const gatherRollouts: Stage<{ plan: ArtifactRef }, Gathered> = async ({ plan: planRef }, { store, committed, progress }) => {
  const plan = await store.getJson<RolloutPlan>(planRef);
  const shards: EpisodeShard[] = [];
  for (let shard = 0; shard < plan.shards.length; shard++) {
    shards.push(await committed<EpisodeShard>('rolloutShard', { plan: planRef, shard }));
    progress({ phase: 'gathering', done: shards.length, total: plan.shards.length, unit: 'shards' });
  }
  const total = (field: keyof Account) => shards.reduce((sum, shard) => sum + shard[field], 0);
  const account: Account = {
    dispatched: total('dispatched'),
    completed: total('completed'),
    failed: total('failed'),
    abandoned: total('abandoned'),
    successes: total('successes'),
    turnCount: total('turnCount'),
  };
  const { actor } = plan;
  const policy = actor.kind === 'policy' ? actor.policy.sha256 : `demonstrator habits=${actor.habits} noise=${actor.noise}`;
  const set: EpisodeSet = { plan: planRef, policy, account, shards };
  return { set: await store.putJson(set), account };
};

/** All episodes of a set, in the plan's order. */
export async function loadEpisodes({ store, progress }: Pick<StageContext, 'store' | 'progress'>, setRef: ArtifactRef): Promise<Episode[]> {
  const set = await store.getJson<EpisodeSet>(setRef);
  const out: Episode[] = [];
  for (const shard of set.shards) {
    out.push(...(await readEpisodes(await store.get(shard.episodes), await store.get(shard.turns))));
    progress({ phase: 'loading episodes', done: out.length, total: set.account.dispatched, unit: 'episodes' });
  }
  return out;
}
