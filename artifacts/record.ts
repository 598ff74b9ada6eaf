/**
 * The records of a run: genesis, then per iteration an intent (written before the work) and an outcome (after it), each holding the digest of the one
 * before. A record says what was computed from what and is deterministic: no times, hosts, attempts or run ids; those are in attestations.
 */
import type { Sha256 } from '../core/digest.ts';
import type { ArtifactRef } from '../core/nouns.ts';

export interface RecordEntry {
  /** Place in the chain, from 0. */
  index: number;
  kind: 'genesis' | 'intent' | 'outcome';
  /** SHA-256 of the canonical bytes of the record before; null only for genesis. */
  previous: Sha256 | null;
  /** 0 is the warm start. */
  iteration: number;
  /**
   * Anything that JSON holds. What it refers to is found by shape: every object with exactly `key`, `sha256` and `bytes` is a reference that the audit
   * follows, and `audit-shapes.ts` lists the shapes whose numbers it recounts.
   */
  body: object;
  /** Only in outcomes, written by `appendRecord`: the results of all stages that were committed since the outcome before. Refers to a `StageIndex`. */
  stages?: ArtifactRef;
}

/** Name of a stage call (digest of stage and input) to the SHA-256 of its manifest, so that the chain holds what every stage gave. */
export type StageIndex = Record<Sha256, Sha256>;

/** Names a record, and with it everything before it. */
export interface RecordRef {
  index: number;
  sha256: Sha256;
}

/** `runs/<run>/run.json`: which recipe a run id belongs to, for good. */
export interface RunManifest {
  recipe: ArtifactRef;
  recipeSha256: Sha256;
  /** Only of a run that forks: so it is taken up as one, also where its launch died before the first record. */
  parent?: ForkPoint;
}

/** A closed iteration of another run in the same store. */
export interface ForkPoint {
  runId: string;
  iteration: number;
}

/**
 * `runs/<run>/stages/<digest of stage and input>.json`: what one stage call gave. Sealed (`run-log.ts`), and named in the outcome by the digest of these
 * three fields alone: under what it was computed stands beside them and does not change what it is.
 */
export interface StageManifest {
  stage: string;
  input: unknown;
  output: unknown;
}

/** `runs/<run>/attestations/<index>.json`: when and where a record was closed, as a signed statement (`attestation.ts`). Says nothing of what came out. */
export interface Attestation {
  record: RecordRef;
  /** ISO 8601, UTC. */
  at: string;
  host: string;
  pid: number;
  /** Program or library to version, e.g. `{ node: '24.21.0', ratchet: '0.1.0' }`. */
  versions: Record<string, string>;
  /** How often the closing itself was tried. */
  attempts: number;
  /** Since the record before was closed, pauses and outages included. */
  durationMs: number;
  /** What operators did since the record before. What it changed is in the records. */
  steering: Steering[];
  /** Whatever else is worth knowing and decides nothing. */
  details?: object;
}

/** One act of an operator. */
export interface Steering {
  /** `pause`, `resume`, `stop`, `amend <field>=<value>, ...`, `approve <policy>` or `reject <policy>`. */
  what: string;
  by: string;
  reason: string | null;
  /** ISO 8601, UTC. */
  at: string;
}
