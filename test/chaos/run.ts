/**
 * One run under hurts: `ratchet start` in a fresh folder, each hurt at its moment, `ratchet start` again where everything died; then what must be true of
 * the result. It measures and judges; it draws nothing, and shows nothing.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { eventsOf, type Started } from '../support/loop.ts';
import type { Strike, Struck } from '../support/strike-at.ts';
import { copyDatabase, HURTS, TARGETS, wasToDie } from './hurts.ts';
import { measure, type Counts } from './measure.ts';
import { profileOf, type Hurt, type PlannedRun, type Profile } from './plan.ts';
import { Site } from './site.ts';

export interface HurtResult extends Hurt {
  /** Where it hit; null where its moment did not come. `atS`: seconds since the run was started. */
  struck: { stage: string; phase: string; done: number; atS: number } | null;
  /** How long it lasted, in seconds. */
  lastedS: number;
  lostS: number | null;
  againS: number | null;
}

export interface RunResult extends Omit<PlannedRun, 'hurts'> {
  hurts: HurtResult[];
  /** What was not as it must be, each in a sentence; empty for a run that passed. */
  problems: string[];
  counts: Omit<Counts, 'problems'>;
  /** How often `ratchet start` was given. */
  starts: number;
  wallS: number;
  /** The folder that was kept for a look, of a run that failed. */
  folder: string | null;
}

export interface RunOptions {
  scale: string;
  /** After so long without an end a run is given up, in milliseconds. */
  boundMs: number;
  /** Told of each hurt as it strikes. */
  onStrike?: (hurt: Hurt) => void;
  /** Aborted by a person: everything is taken down, and the reason thrown. */
  signal: AbortSignal;
}

/** Often enough that a strike is answered within the step of training in which it came. */
const LOOK_EVERY_MS = 5;
/** A drained worker ends within its stop bound of 20 s and 6 s more. */
const DRAIN_BOUND_MS = 40_000;
const CHECKPOINTS_AS_USERS = null;

/** An undisturbed run, which says what there is to be hurt and which head must come out. */
export async function undisturbed({ scale, boundMs, signal }: RunOptions): Promise<Profile> {
  const plain = { strikes: [], checkpointMs: CHECKPOINTS_AS_USERS, smallDisk: false, movableClock: false };
  const site = await Site.open({ setting: 'one machine', scale, boundMs, signal, ...plain });
  try {
    const run = site.start();
    if ((await site.ended(run)).code !== 0) throw new Error(`the undisturbed run failed:\n${run.output()}`);
    const { head, counts } = await verified(site);
    return profileOf(eventsOf(site.strikes), head.sha256, counts.records);
  } finally {
    await site.close(false);
  }
}

export async function hurtRun(planned: PlannedRun, profile: Profile, options: RunOptions): Promise<RunResult> {
  const { hurts } = planned;
  const strikes = hurts.map(({ kind, moment }): Strike => ({ target: TARGETS[kind] ?? 'harness', moment }));
  // Behind the hurts: when copies of the database are taken.
  const copies = hurts.filter(({ copyAt }) => copyAt !== undefined);
  for (const { copyAt } of copies) strikes.push({ target: 'harness', moment: copyAt! });
  const has = (kind: Hurt['kind']) => hurts.some((hurt) => hurt.kind === kind);
  const site = await Site.open({ ...planned, ...options, strikes, smallDisk: has('disk-full'), movableClock: has('clock-jump') });
  const drive = new Drive(site, hurts, copies, options);
  const startedT = Date.now();
  const problems: string[] = [];
  try {
    problems.push(...(await drive.toEnd()));
    if (problems.length === 0) problems.push(...(await judge(site, profile)));
  } catch (error) {
    if (options.signal.aborted) {
      await site.close(false);
      throw error;
    }
    problems.push(`the harness: ${(error as Error).message}`);
  }
  const struck = hurts.map((_, i) => struckAt(site, i));
  struck.forEach((one, i) => {
    if (!one) problems.push(`hurt ${i + 1} (${hurts[i]?.kind}) did not strike`);
  });
  const traces = drive.output().match(/^\s+at .+:\d+:\d+\)?$/gm);
  if (traces) problems.push(`the command line showed a stack trace: ${traces[0].trim()}`);
  const hits = struck.map((one, i) => one && { struck: one, endedT: drive.endedT[i] ?? one.t });
  const { costs, counts } = measure(
    eventsOf(site.strikes),
    hits.filter((hit) => hit !== null),
  );
  problems.push(...counts.problems);
  if (problems.length > 0) writeFileSync(join(site.root, 'output.txt'), drive.output());
  const keep = problems.length > 0;
  const left = await site.close(keep);
  problems.push(...left.map((process) => `left behind: process ${process}`));
  const costOf = hits.map((hit, i) => (hit ? costs[hits.slice(0, i).filter((each) => each !== null).length] : undefined));
  const { problems: _, ...counted } = counts;
  return {
    ...planned,
    hurts: hurts.map((hurt, i) => ({
      ...hurt,
      struck: where(struck[i] ?? null, startedT),
      lastedS: hits[i] ? (hits[i].endedT - hits[i].struck.t) / 1000 : 0,
      lostS: costOf[i]?.lostS ?? null,
      againS: costOf[i]?.againS ?? null,
    })),
    problems,
    counts: counted,
    starts: drive.starts,
    wallS: (Date.now() - startedT) / 1000,
    folder: keep ? site.root : null,
  };
}

function where(struck: Struck | null, startedT: number): HurtResult['struck'] {
  return struck && { stage: struck.stage || 'record', phase: struck.phase, done: struck.done, atS: (struck.t - startedT) / 1000 };
}

/** Null where it has not struck, or its file is being written at this moment. */
function struckAt(site: Site, index: number): Struck | null {
  const path = join(site.strikes, `${index}.struck`);
  const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
  return text === '' ? null : (JSON.parse(text) as Struck);
}

/** Brings a run to its end, answering the strikes on the way. */
class Drive {
  /** Of each hurt, when it was over; milliseconds since 1970. */
  readonly endedT: (number | undefined)[] = [];
  starts = 0;
  readonly #site: Site;
  readonly #hurts: readonly Hurt[];
  readonly #copies: readonly Hurt[];
  readonly #options: RunOptions;
  readonly #over = new AbortController();
  readonly #doing: Promise<void>[] = [];
  readonly #said: Started[] = [];
  readonly #helpers: Started[] = [];
  #run: Started | null = null;
  #treeDied = false;

  constructor(site: Site, hurts: readonly Hurt[], copies: readonly Hurt[], options: RunOptions) {
    this.#site = site;
    this.#hurts = hurts;
    this.#copies = copies;
    this.#options = options;
  }

  output(): string {
    return this.#said.map((each) => each.output()).join('\n');
  }

  /** What was not as it must be. */
  async toEnd(): Promise<string[]> {
    try {
      const problem = await this.#untilEnded();
      if (problem !== null) return [problem];
    } finally {
      // However it ends: nothing is done to a site that is being taken down.
      this.#over.abort();
      await Promise.all(this.#doing);
    }
    const { code, signal } = await this.#run!.exited;
    const problems = code === 0 ? [] : [`\`ratchet start\` ended with ${signal ?? `code ${code}`}: ${this.#end()}`];
    return [...problems, ...(await this.#dismiss())];
  }

  async #untilEnded(): Promise<string | null> {
    const answered = new Set<number>();
    let failed: unknown = null;
    const until = performance.now() + this.#options.boundMs;
    this.#start();
    while (!this.#run!.ended() || this.#treeDied) {
      this.#options.signal.throwIfAborted();
      for (let i = 0; i < this.#hurts.length + this.#copies.length; i++) {
        const struck = answered.has(i) ? null : struckAt(this.#site, i);
        if (!struck) continue;
        answered.add(i);
        const done = this.#answer(i, struck).catch((error: unknown) => (failed ??= error));
        this.#doing.push(done.then(() => undefined));
      }
      if (failed) throw failed;
      if (performance.now() > until) return `not finished after ${this.#options.boundMs / 1000} s; the end of its output: ${this.#end()}`;
      await delay(LOOK_EVERY_MS);
    }
    return null;
  }

  #start(): void {
    this.starts++;
    this.#run = this.#site.start();
    this.#said.push(this.#run);
  }

  #end(): string {
    return (this.#run?.output() ?? '').trimEnd().split('\n').slice(-4).join(' / ');
  }

  async #answer(index: number, struck: Struck): Promise<void> {
    const go = () => writeFileSync(join(this.#site.strikes, `${index}.go`), '');
    const copy = this.#copies[index - this.#hurts.length];
    if (copy) {
      await copyDatabase(this.#site, copy);
      return go();
    }
    const hurt = this.#hurts[index] as Hurt;
    this.#options.onStrike?.(hurt);
    if (hurt.kind === 'kill-tree') await this.#killTree();
    else if (hurt.kind in HURTS) {
      const act = { site: this.#site, hurt, struck, go, over: this.#over.signal, helper: (worker: Started) => this.#help(worker) };
      await HURTS[hurt.kind as keyof typeof HURTS](act);
      this.endedT[index] = performance.timeOrigin + performance.now();
    }
  }

  #help(worker: Started): void {
    this.#said.push(worker);
    this.#helpers.push(worker);
  }

  async #killTree(): Promise<void> {
    this.#treeDied = true;
    await this.#site.killTree();
    await this.#run!.exited;
    this.#start();
    this.#treeDied = false;
  }

  /** Workers that were brought in drain and end with code 0, unless a hurt has killed them. */
  async #dismiss(): Promise<string[]> {
    const struck = this.#hurts.map((_, i) => struckAt(this.#site, i));
    const problems = this.#helpers.map(async (worker) => {
      if (!worker.ended()) process.kill(worker.pid, 'SIGTERM');
      const late = delay(DRAIN_BOUND_MS, null, { ref: false });
      const end = await Promise.race([this.#site.ended(worker), late]);
      if (end?.code === 0 || (end?.signal === 'SIGKILL' && wasToDie(worker.pid, this.#hurts, struck))) return [];
      return [
        `a worker that was asked to drain ended with ${end ? (end.signal ?? `code ${end.code}`) : 'nothing'}: ${worker.output().slice(-500)}`,
      ];
    });
    return (await Promise.all(problems)).flat();
  }
}

interface Verified {
  ok: boolean;
  head: { sha256: string };
  problems: { what: string; key: string }[];
  counts: { records: number };
}

async function verified(site: Site, more: string[] = []): Promise<Verified> {
  const look = site.look(['verify', 'run', '--json', ...more]);
  const { code } = await site.ended(look);
  const json = /^\{[^]*^\}/m.exec(look.output());
  if (!json) throw new Error(`\`ratchet verify\` ended with code ${code}: ${look.output()}`);
  return JSON.parse(json[0]) as Verified;
}

/** `ratchet verify`, with the head of the undisturbed run. */
async function judge(site: Site, { head, records }: Profile): Promise<string[]> {
  const report = await verified(site, ['--head', head]);
  const problems = report.problems.map(({ what, key }) => `\`ratchet verify\`: ${what} at ${key}`);
  if (report.head.sha256 !== head) problems.push(`the head is ${report.head.sha256}, not ${head}`);
  if (report.counts.records !== records) problems.push(`${report.counts.records} records, not ${records}`);
  return problems;
}
