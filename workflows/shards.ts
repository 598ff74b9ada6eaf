/**
 * Who asks for the shards of a rollout, so that no history grows with their number: the loop itself for the first two hundred of an iteration, and for all
 * others child workflows, each with a stretch of them in a history of its own. Which episodes a shard holds was planned before, and its result is found in
 * the store by what was asked; so records do not depend on who asked.
 */
import { executeChild, ParentClosePolicy, uuid4, workflowInfo } from '@temporalio/workflow';
import type { StageCall } from '../activities/stage-runner.ts';
import type { Account, ArtifactRef, EpisodeShard } from '../core/nouns.ts';
import type { LoopCalls } from './improvement-loop.ts';
import { proxyQueue } from './stage-proxies.ts';

/**
 * Shards that one history asks for: the loop's of an iteration, and each child's. A shard is three events and at most three more for a decision of its own, so
 * this is 1,200 where Temporal suggests to begin a new one at 4,096; and pending at once they are far below its limit of 2,000. Most rollouts of the recipes that
 * come with Ratchet fit into the loop's own history, which shows their shards one by one.
 */
export const SHARDS_PER_HISTORY = 200;
/**
 * Histories of children that are pending at once: the next child begins while the last shards of the one before are played. What is pending finishes when
 * the run is paused, so it should not be more.
 */
const HANDED_AT_ONCE = 2;

/** The shards `from` .. `to - 1` of a plan. */
export interface Stretch {
  plan: ArtifactRef;
  from: number;
  to: number;
}

export interface ShardCalls {
  rolloutShard(input: { plan: ArtifactRef; shard: number }): Promise<unknown>;
  playStretch(input: Stretch): Promise<unknown>;
}

/** The child workflow: every shard of a stretch once. What comes back is for whoever watches. */
export async function playShards({ scope, iteration, input }: StageCall<Stretch>): Promise<Pick<Account, 'dispatched' | 'successes'>> {
  const { plan, from, to } = input;
  const { rolloutShard } = proxyQueue<{ rolloutShard: (call: object) => Promise<EpisodeShard> }>('cpu');
  const shards = await Promise.all(
    upTo(to - from).map((place) => rolloutShard({ scope, iteration, input: { plan, shard: from + place } })),
  );
  const total = (field: 'dispatched' | 'successes') => shards.reduce((sum, shard) => sum + shard[field], 0);
  return { dispatched: total('dispatched'), successes: total('successes') };
}

/** Hands a stretch to a child of this workflow, which is cancelled with it. */
export async function playStretch(scope: string, iteration: number, input: Stretch): Promise<void> {
  await executeChild<typeof playShards>('playShards', {
    // Not named by the plan: one policy may be measured twice at the same time.
    workflowId: `${workflowInfo().workflowId}/shards/${uuid4()}`,
    args: [{ scope, iteration, input }],
    parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL,
    staticSummary: `shards ${input.from} to ${input.to - 1}`,
  });
}

/** To be called once per workflow execution: it counts what that execution has asked for. */
export function handOutShards(
  { rolloutShard, playStretch: play }: ShardCalls,
  shardsPerHistory = SHARDS_PER_HISTORY,
): LoopCalls['rolloutShards'] {
  const asChild = limited(HANDED_AT_ONCE * shardsPerHistory);
  let left = shardsPerHistory;
  return async ({ plan, shards }) => {
    if (shards <= left) {
      left -= shards;
      await Promise.all(upTo(shards).map((shard) => rolloutShard({ plan, shard })));
      return;
    }
    const stretches = upTo(Math.ceil(shards / shardsPerHistory)).map((place): Stretch => {
      const from = place * shardsPerHistory;
      return { plan, from, to: Math.min(shards, from + shardsPerHistory) };
    });
    await Promise.all(stretches.map((stretch) => asChild(stretch.to - stretch.from, () => play(stretch))));
  };
}

/** Runs what it is given, in its order, so that the sizes of what is under way add up to at most `most`. */
function limited(most: number): (size: number, work: () => Promise<unknown>) => Promise<void> {
  let free = most;
  const waiting: { size: number; begin: () => void }[] = [];
  const admit = (): void => {
    for (let next = waiting[0]; next && next.size <= free; next = waiting[0]) {
      waiting.shift();
      free -= next.size;
      next.begin();
    }
  };
  return async (size, work) => {
    await new Promise<void>((begin) => {
      waiting.push({ size, begin });
      admit();
    });
    try {
      await work();
    } finally {
      free += size;
      admit();
    }
  };
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, place) => place);
}
