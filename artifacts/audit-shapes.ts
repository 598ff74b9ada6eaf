/**
 * What the audit recognises in JSON that it did not write: references, models, sets of episodes, evaluations. It goes by shape alone, so that it needs
 * none of the code that made them, and takes nothing for granted that it has not checked.
 */
import type { Sha256 } from '../core/digest.ts';
import type { ArtifactRef, EpisodeShard, ModelRef } from '../core/nouns.ts';

/** A reference as met: some places name an object by its digest alone. */
export type Link = Pick<ArtifactRef, 'key' | 'sha256'> & { bytes: number | null };

/** The counts of a set of episodes. */
export const COUNTS = ['dispatched', 'completed', 'failed', 'abandoned', 'successes', 'turnCount'] as const;
export type Account = Record<(typeof COUNTS)[number], number>;

/** The stored list of a stage's shards of episodes, in the order of its plan. */
export interface EpisodeSet {
  plan: ArtifactRef;
  /** Digest of the policy that acted, or the name of the scripted agent. */
  policy: string;
  account: Account;
  shards: EpisodeShard[];
}

/** The part of a rollout plan that its episodes can be held against. */
export interface Plan {
  panel: ArtifactRef;
  /** `policy.sha256` is there when a model acts. */
  actor: { policy?: { sha256: Sha256 } };
  /** Ranges [from, to) of episodes. */
  shards: [number, number][];
}

/** An evaluation as a record tells it; the whole is behind `evaluation`. */
export interface Evaluated {
  evaluation: ArtifactRef;
  panel: Sha256;
  /** The episode set that its numbers come from. */
  episodes: Sha256 | ArtifactRef;
  policy: Sha256;
  success: { value: number; n: number };
}

/** An evaluation as stored. */
export interface Evaluation {
  panel: Sha256;
  policy: Sha256;
  success: { value: number; n: number };
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function isDigest(value: unknown): value is Sha256 {
  return typeof value === 'string' && /^[0-9a-f]{64}$/.test(value);
}

/** Exactly `key`, `sha256` and `bytes`. */
export function isRef(value: unknown): value is ArtifactRef {
  if (!isObject(value) || Object.keys(value).length !== 3) return false;
  return typeof value['key'] === 'string' && isDigest(value['sha256']) && Number.isSafeInteger(value['bytes']);
}

export function isModel(value: unknown): value is ModelRef {
  if (!isObject(value) || !isDigest(value['sha256']) || !isObject(value['files'])) return false;
  const { config, weights, tokenizer } = value['files'];
  return isRef(config) && isRef(weights) && isRef(tokenizer);
}

export function isAccount(value: unknown): value is Account {
  return isObject(value) && COUNTS.every((count) => Number.isSafeInteger(value[count]));
}

export function isEpisodeSet(value: unknown): value is EpisodeSet {
  if (!isObject(value) || !isRef(value['plan']) || typeof value['policy'] !== 'string' || !isAccount(value['account'])) return false;
  return Array.isArray(value['shards']) && value['shards'].every(isShard);
}

function isShard(value: unknown): value is EpisodeShard {
  return (
    isObject(value) &&
    isAccount(value) &&
    isRef((value as Record<string, unknown>)['episodes']) &&
    isRef((value as Record<string, unknown>)['turns'])
  );
}

export function isPlan(value: unknown): value is Plan {
  return isObject(value) && isRef(value['panel']) && isObject(value['actor']) && Array.isArray(value['shards']);
}

export function isEvaluated(value: unknown): value is Evaluated {
  if (!isObject(value) || !isRef(value['evaluation'])) return false;
  return isEvaluation(value) && (isDigest(value['episodes']) || isRef(value['episodes']));
}

export function isEvaluation(value: unknown): value is Evaluation {
  if (!isObject(value) || !isDigest(value['panel']) || !isDigest(value['policy'])) return false;
  const { success } = value;
  return isObject(success) && typeof success['value'] === 'number' && Number.isInteger(success['n']);
}

/** A set of episodes as a record tells it: where it is, and its counts again. */
export function isGathered(value: unknown): value is { set: ArtifactRef; account: Account } {
  return isObject(value) && isRef(value['set']) && isAccount(value['account']);
}

/** Calls `visit` for every object in a JSON value, the value itself included, outermost first. */
export function walk(value: unknown, visit: (found: Record<string, unknown>) => void): void {
  if (Array.isArray(value)) {
    for (const item of value) walk(item, visit);
  } else if (isObject(value)) {
    visit(value);
    for (const item of Object.values(value)) walk(item, visit);
  }
}
