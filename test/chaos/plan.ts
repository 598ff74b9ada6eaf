/**
 * What is done to which run, and when: all of it drawn by one seed from the keyed generator, before anything runs. Moments are counts of progress, results
 * and records, so a seed hits the same places again. Nothing is started or hurt here.
 */
import { badInput } from '../../core/errors.ts';
import { Random } from '../../core/random.ts';
import type { Event, Moment } from '../support/strike-at.ts';

/** Where the servers of a run are: brought up and watched over by `ratchet start` itself, or elsewhere, behind proxies that can fail. */
export type Setting = 'one machine' | 'servers elsewhere';

/** Every kind of hurt, what it does, and in which settings it can be done. */
export const KINDS = {
  'kill-child': { what: 'SIGKILL of a compute child', settings: ['one machine', 'servers elsewhere'] },
  'kill-worker': { what: 'SIGKILL of the worker', settings: ['one machine', 'servers elsewhere'] },
  'kill-temporal': { what: 'SIGKILL of Temporal', settings: ['one machine', 'servers elsewhere'] },
  'kill-s3': { what: 'SIGKILL of the S3 server', settings: ['one machine', 'servers elsewhere'] },
  'kill-tree': { what: 'SIGKILL of everything of this machine; `ratchet start` again', settings: ['one machine', 'servers elsewhere'] },
  'stop-child': { what: 'SIGSTOP of a compute child beyond the heartbeat timeout, SIGCONT', settings: ['one machine'] },
  'stop-worker': { what: 'SIGSTOP of the only worker beyond the heartbeat timeout, SIGCONT', settings: ['one machine'] },
  zombie: { what: 'SIGSTOP of a worker until another one has taken over its call, SIGCONT', settings: ['servers elsewhere'] },
  's3-faults': { what: 'S3 answers 500, 503, nothing, half of it, or too late to be heard', settings: ['servers elsewhere'] },
  'stop-temporal': { what: 'Temporal stopped (SIGSTOP), its connections open', settings: ['one machine'] },
  'temporal-refused': { what: 'Temporal unreachable: connections cut and refused', settings: ['servers elsewhere'] },
  'old-database': { what: "an older copy of Temporal's database put back", settings: ['one machine'] },
  'disk-full': { what: 'the disk of the S3 server full (a tmpfs of fixed size)', settings: ['one machine'] },
  'clock-jump': { what: "our processes' wall clock jumps by 10 minutes or an hour", settings: ['one machine'] },
} as const satisfies Record<string, { what: string; settings: readonly Setting[] }>;

export type Kind = keyof typeof KINDS;
export const ALL_KINDS = Object.keys(KINDS) as Kind[];

export interface Hurt {
  kind: Kind;
  moment: Moment;
  /** `old-database`: when the copy is taken. */
  copyAt?: Moment;
  /** How long it lasts, in milliseconds, where it lasts: stops, outages, a full disk. */
  forMs?: number;
  /** `clock-jump`: how far ahead of the machine's clock, in milliseconds. */
  aheadMs?: number;
  /** `s3-faults`: what the next requests are answered, in their order of arrival. */
  faults?: Fault[];
}

/** - `hang`: no answer until the client gives up. - `cut`: half of the answer. - `before`: cut before the server saw it. - `after`: done, and the answer lost. */
export const FAULTS = ['500', '503', 'hang', 'cut', 'before', 'after'] as const;
export type Fault = (typeof FAULTS)[number];

export interface PlannedRun {
  /** From 1. */
  run: number;
  setting: Setting;
  /** Milliseconds between checkpoints; null: as users have it. Stages of the smallest scale end before that, so half of its runs save often. */
  checkpointMs: number | null;
  hurts: Hurt[];
}

/** What an undisturbed run of the recipe does: what moments are drawn from. */
export interface Profile {
  head: string;
  /** In order of stage and intent, which does not depend on who was faster. */
  calls: {
    stage: string;
    intent: string;
    /** The phase that it ended in, whose last message is always told; earlier ones may pass within the interval of such messages. Null where it tells none. */
    last: { phase: string; total: number } | null;
  }[];
  records: number;
}

/** Longer than the heartbeat timeout of 10 s (workflows/stage-proxies.ts): Temporal gives the work to somebody else meanwhile. */
const STOP_MS = [12_000, 16_000] as const;
/** Longer than a call is patient with a full store (20 s), or shorter. */
const FULL_MS = [4_000, 24_000] as const;
const JUMPS_MS = [-3_600_000, -600_000, 600_000, 3_600_000];
const FAULT_COUNT = [4, 16] as const;
const FREQUENT_CHECKPOINT_MS = 200;
/** Hurts per run. */
const FEWEST = 4;
const MOST = 5;
/** The hurts of a run hit different calls and records where there are enough: one that hits what another has just killed hurts nobody. */
const APART_TRIES = 20;
/** Of moments: at a record (of those that can be there), at the commit of a result; the others are within a stage. */
const RECORD_SHARE = 0.15;
const COMMIT_SHARE = 0.15;

export interface CampaignOptions {
  seed: number;
  kills: number;
  kinds: readonly Kind[];
  scale: string;
  /** Of Temporal, in milliseconds. */
  outageMs: number;
}

/** The whole campaign; the same options and profile give the same one. Throws BadInput for no kinds or a count below 1. */
export function planCampaign(profile: Profile, { seed, kills, kinds, scale, outageMs }: CampaignOptions): PlannedRun[] {
  if (!Number.isInteger(kills) || kills < 1) throw badInput('--kills', kills, 'a whole number of at least 1');
  if (kinds.length === 0) throw badInput('--only', '', ALL_KINDS.join(', '));
  const possible = (setting: Setting) => kinds.filter((kind) => (KINDS[kind].settings as readonly Setting[]).includes(setting));
  const decks = { 'one machine': deck(seed, 'one machine'), 'servers elsewhere': deck(seed, 'servers elsewhere') };
  const runs: PlannedRun[] = [];
  for (let left = kills; left > 0;) {
    const run = runs.length + 1;
    const random = new Random([seed, 'chaos', 'run', run]);
    // More kinds are done on one machine.
    const drawn = random.below(5) < 3 ? 'one machine' : 'servers elsewhere';
    const setting = possible(drawn).length > 0 ? drawn : drawn === 'one machine' ? 'servers elsewhere' : 'one machine';
    const count = Math.min(left, FEWEST + random.below(MOST - FEWEST + 1));
    const hurts: Hurt[] = [];
    while (hurts.length < count) {
      const random = new Random([seed, 'chaos', 'run', run, hurts.length]);
      const kind = decks[setting](possible(setting));
      let hurt = drawHurt(random, profile, kind, outageMs);
      for (let again = 0; again < APART_TRIES && hurts.some(({ moment }) => placeOf(moment) === placeOf(hurt.moment)); again++)
        hurt = drawHurt(random, profile, kind, outageMs);
      hurts.push(hurt);
    }
    const checkpointMs = scale === 'micro' && random.below(2) === 0 ? FREQUENT_CHECKPOINT_MS : null;
    runs.push({ run, setting, checkpointMs, hurts });
    left -= count;
  }
  return runs;
}

function placeOf(moment: Moment): string {
  return moment.at === 'record' ? `record ${moment.index}` : (moment.intent ?? '');
}

/** Deals kinds so that each comes as often as the others: all of them in random order, then again. */
function deck(seed: number, name: string): (kinds: readonly Kind[]) => Kind {
  const random = new Random([seed, 'chaos', 'deck', name]);
  let cards: Kind[] = [];
  return (kinds) => {
    if (cards.length === 0) cards = random.shuffled(kinds);
    return cards.pop() as Kind;
  };
}

function drawHurt(random: Random, profile: Profile, kind: Kind, outageMs: number): Hurt {
  const between = ([low, high]: readonly [number, number]) => low + random.below(high - low + 1);
  const inChild = kind === 'kill-child' || kind === 'stop-child' || kind === 'zombie';
  const moment = drawMoment(random, profile, !inChild);
  switch (kind) {
    case 'stop-child':
    case 'stop-worker':
      return { kind, moment, forMs: between(STOP_MS) };
    case 'disk-full':
      return { kind, moment, forMs: between(FULL_MS) };
    case 'stop-temporal':
    case 'temporal-refused':
      return { kind, moment, forMs: outageMs };
    case 'clock-jump':
      return { kind, moment, aheadMs: random.pick(JUMPS_MS) };
    case 's3-faults':
      return { kind, moment, faults: drawFaults(random, between(FAULT_COUNT)) };
    case 'old-database':
      return { kind, ...drawRollback(random, profile) };
    default:
      return { kind, moment };
  }
}

/** Stages are equally likely, however many calls they have; so short ones are hit too. */
function drawMoment(random: Random, { calls, records }: Profile, mayBeRecord: boolean): Moment {
  const share = random.uniform();
  const when = random.pick(['asked', 'answered'] as const);
  if (mayBeRecord && share < RECORD_SHARE) return { at: 'record', index: random.below(records), when };
  const told = share > 1 - COMMIT_SHARE ? calls : calls.filter(({ last }) => last !== null);
  const stage = random.pick([...new Set(told.map((call) => call.stage))]);
  const { intent, last } = random.pick(told.filter((call) => call.stage === stage));
  if (last === null || share > 1 - COMMIT_SHARE) return { at: 'commit', intent, when };
  // At its very first sign of life, or somewhere in what it does last and longest: train, play, read.
  if (random.below(4) === 0) return { at: 'progress', stage, intent, done: 0 };
  return { at: 'progress', stage, intent, phase: last.phase, done: 1 + random.below(last.total) };
}

/** A hang costs the client's idle timeout, so it comes once at most. */
export function drawFaults(random: Random, count: number): Fault[] {
  let hangs = 0;
  return Array.from({ length: count }, () => {
    const fault = random.pick(FAULTS);
    return fault === 'hang' && hangs++ > 0 ? '503' : fault;
  });
}

/** Copied when a record is there, put back at a later record or within a stage that only comes after it. */
function drawRollback(random: Random, { calls, records }: Profile): { copyAt: Moment; moment: Moment } {
  // 1 is the intent of the warm start, 3 that of the first iteration.
  const index = random.pick(records > 5 ? [1, 3] : [1]);
  const copyAt: Moment = { at: 'record', index, when: 'answered' };
  const only =
    index === 1 ? ['warmStart', 'makeLabels', 'fitRewardModel', 'updatePolicy'] : ['makeLabels', 'fitRewardModel', 'updatePolicy'];
  const later = { calls: calls.filter(({ stage }) => only.includes(stage)), records: records - index - 1 };
  const moment = drawMoment(random, { head: '', ...later }, true);
  return { copyAt, moment: moment.at === 'record' ? { ...moment, index: moment.index + index + 1 } : moment };
}

/** What an undisturbed run's children told, as far as it does not depend on time. */
export function profileOf(events: readonly Event[], head: string, records: number): Profile {
  const calls = new Map<string, Profile['calls'][number]>();
  for (const { what, stage, intent, phase, total } of events) {
    if (intent === '') continue;
    const call = calls.get(intent) ?? { stage, intent, last: null };
    calls.set(intent, call);
    if (what === 'progress' && phase !== undefined && total !== undefined && total > 0) call.last = { phase, total };
  }
  const order = (call: Profile['calls'][number]) => `${call.stage} ${call.intent}`;
  const sorted = [...calls.values()].sort((a, b) => (order(a) < order(b) ? -1 : 1));
  return { head, calls: sorted, records };
}
