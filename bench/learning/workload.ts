/** What is trained on and played. Token sequences are written to a file that both contestants read. */
import { Tokens, encodeEpisode } from '../../agents/tokens.ts';
import { demonstrate } from '../../agents/collector.ts';
import { Random } from '../../core/random.ts';
import { worldNamed } from '../../environments/registry.ts';

export interface Sequence {
  ids: number[];
  /** Places whose token is to be predicted from those before it (never 0). */
  targets: number[];
}

/** Sequences of one length in which every token but the first counts. */
export function denseBatch(sequences: number, tokens: number, vocabulary: number): Sequence[] {
  const random = new Random(['bench', 'dense', sequences, tokens, vocabulary]);
  return Array.from({ length: sequences }, () => ({
    ids: Array.from({ length: tokens }, () => random.below(vocabulary)),
    targets: Array.from({ length: tokens - 1 }, (_, i) => i + 1),
  }));
}

/** Demonstrations of the household world, of the lengths that they have; only the tokens of the commands count. */
export function raggedBatch(episodes: number): Sequence[] {
  const world = worldNamed('household');
  const tokens = new Tokens(world.codec);
  const slots = world.tasks('train', 0, episodes).map(({ id, family }) => ({ task: id, family, repeat: 0 }));
  const played = demonstrate(slots, world, 'demonstrator', ({ task }) =>
    world.demonstrator(task, ['bench', task], { habits: 0.65, noise: 0.05 }),
  );
  return played.map((episode) => {
    const { ids, decisions, actionEnds } = encodeEpisode(tokens, episode);
    const targets = decisions.flatMap((decision, turn) => Array.from({ length: actionEnds[turn]! - decision }, (_, i) => decision + 1 + i));
    return { ids, targets };
  });
}

/** The shape of a rollout: tokens before the first turn, then about `observation` tokens seen and `action` tokens said a turn, up to `context`. */
export const ROLLOUT = { rows: 64, start: 60, observation: 30, action: 5, context: 512 };
/** Turns until the context is full. */
export const CYCLE = Math.floor((ROLLOUT.context - ROLLOUT.start) / (ROLLOUT.observation + ROLLOUT.action));
const COMMANDS = 20;

const tokensOf = (random: Random, count: number, vocabulary: number) => Array.from({ length: count }, () => random.below(vocabulary));

/** Observations of 20 to 40 tokens. */
export function observation(random: Random, vocabulary: number): number[] {
  return tokensOf(random, ROLLOUT.observation - 10 + random.below(21), vocabulary);
}

/** Commands of about 5 tokens as a household has them: a verb, a thing, its number, perhaps a place and its number. Distinct, none a prefix of another. */
export function commands(random: Random): number[][] {
  const verbs = 6;
  const seen = new Map<string, number[]>();
  while (seen.size < COMMANDS) {
    const verb = random.below(verbs);
    const noun = () => [100 + random.below(12), 10 + random.below(4)];
    const words = verb < 2 ? [verb, 20, ...noun(), 30] : [verb, ...noun(), 40 + verb, ...noun()];
    seen.set(words.join(), words);
  }
  return [...seen.values()];
}
