/**
 * The nouns of Ratchet, in the order in which data flows. Types only: each is defined once, here, and means the same everywhere.
 * Units: rewards, values and probabilities in [0, 1] (scores that are logits say `logit`); durations in milliseconds with suffix `Ms`; sizes in bytes.
 */
import type { Sha256 } from './digest.ts';

/** An immutable object in the store. The key follows from the digest; the digest follows from the bytes. */
export interface ArtifactRef {
  key: string;
  sha256: Sha256;
  bytes: number;
}

/** One task of a panel: what is to be solved, and the digest of everything that defines it. */
export interface PanelTask {
  /** Stable name, unique within the panel, e.g. `unseen/clean/000017`. The environment makes the task from it, or its file in the store says what it is. */
  id: string;
  /** Task family, e.g. `clean`. */
  family: string;
  /** Digest of everything that defines the task; where the task is a file, of its bytes. */
  sha256: Sha256;
  /** Size of the task's file in the store; absent for tasks that the environment makes by itself. */
  bytes?: number;
}

/**
 * An ordered list of tasks that an evaluation or a collection runs over. Two evaluations compare only if their panel digests are equal.
 * `train` feeds learning, `validation` decides gates, `seen` and `unseen` are only ever reported.
 */
export interface TaskPanel {
  role: 'train' | 'validation' | 'seen' | 'unseen';
  environment: string;
  /** Most turns that an episode may take. */
  turnCap: number;
  /** The seed that drew the tasks out of a larger list; absent where they are a stretch of a role's list. */
  seed?: number;
  tasks: PanelTask[];
}

/** One turn of an episode: what the agent saw, what it could do, what it did. */
export interface Turn {
  observation: string;
  /** The admissible commands, in the environment's order. */
  admissible: string[];
  /** The command that was executed; one of `admissible`. */
  action: string;
  /** Natural log of the probability that the acting policy gave to `action` at the temperature of collection. 0 for scripted agents and greedy play. */
  logProbability: number;
  /** Reward of this turn, in [0, 1]. */
  reward: number;
}

/** How an episode ended: exactly one of these. A failed or abandoned episode is data with a reason; it is never a zero reward. */
export type Ending = { kind: 'completed' } | { kind: 'failed'; reason: string } | { kind: 'abandoned'; reason: string };

export interface Episode {
  /** Unique within its stage, `<task id>#<repeat>`. */
  id: string;
  task: string;
  family: string;
  /** The instruction that the agent is given. */
  instruction: string;
  /** Which of the repeats of the same task. */
  repeat: number;
  /** Digest of the policy that acted (of its weights), or the name of the scripted agent. */
  policy: string;
  turns: Turn[];
  /** 1 solved, 0 not; only meaningful when `ending` is completed. */
  outcome: number;
  ending: Ending;
}

/** The exact account of a set of episodes: dispatched = completed + failed + abandoned. */
export interface Account {
  dispatched: number;
  completed: number;
  failed: number;
  abandoned: number;
  successes: number;
  /** Total turns taken. */
  turnCount: number;
}

/** Where the episodes of one shard lie, and their account. */
export interface EpisodeShard extends Account {
  /** Parquet, one row per episode. */
  episodes: ArtifactRef;
  /** Parquet, one row per turn. */
  turns: ArtifactRef;
}

/** A model in the Hugging Face layout. `sha256` names the model: the digest of the digests of its files. */
export interface ModelRef {
  sha256: Sha256;
  files: { config: ArtifactRef; weights: ArtifactRef; tokenizer: ArtifactRef };
}

/** What a PRM is taught about one (state, action): the mean discounted return-to-go over the visits. */
export interface Label {
  episode: string;
  turn: number;
  /** In [0, 1]. */
  value: number;
  /** How many visits of the same (state, action) the mean was taken over. */
  visits: number;
}

/** A proportion or mean with its 95 % interval. */
export interface Estimate {
  value: number;
  low: number;
  high: number;
  n: number;
}
