/**
 * Follows one run: its history as it grows, the heartbeats of the work in flight, the servers and queues it depends on, and the records of what is
 * closed. It only looks. While a server is away it keeps what it knows, says so, and goes on when the server is back.
 */
import { arrayFromPayloads, defaultPayloadConverter, optionalTsToMs } from '@temporalio/common';
import type { Client } from '@temporalio/client';
import { setTimeout as delay } from 'node:timers/promises';
import type { StageHeartbeat } from '../../activities/activities.ts';
import type { Progress, Queue } from '../../activities/stage.ts';
import { recordKey } from '../../artifacts/run-log.ts';
import { RatchetError } from '../../core/errors.ts';
import { serversStatus, type ServersStatus } from '../../infra/servers.ts';
import { isDeadHere, QUEUE_KIND, type QueueKind } from '../../workers/pollers.ts';
import { STAGE_QUEUES } from '../../workflows/stage-proxies.ts';
import { siblingQueue } from '../../workflows/task-queues.ts';
import { runningHost } from '../host.ts';
import { isServed } from './served.ts';
import type { RunRecords } from '../records.ts';
import { recordsOf } from '../runs.ts';
import { ask, type Session } from '../session.ts';
import { asRatchetError, isOfOtherHistory } from '../failures.ts';
import { ActivityLog, earliest, failureText, type Close } from './activity-log.ts';
import { bugIn, childrenOf } from './children.ts';
import { Rate } from './rates.ts';
import type { LiveView } from './view.ts';
import { waitingFor, type Pending, type Situation } from './waits.ts';

/** How often heartbeats are looked at: they come once a second. */
const POLL_MS = 1_000;
/** Servers and queues change rarely. */
const SURROUNDINGS_POLL_MS = 3_000;
/** The server answers a long poll within a minute; beyond, the connection is dead. */
const LONG_POLL_BOUND_MS = 90_000;
/** Pause after a call that failed: a supervised server is back within a second. */
const RETRY_PAUSE_MS = 500;
/** `temporal.api.enums.v1.PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED` and `VersioningBehavior.VERSIONING_BEHAVIOR_PINNED`. */
const SCHEDULED = 1;
const PINNED = 1;

type Description = Awaited<ReturnType<ReturnType<Client['workflow']['getHandle']>['describe']>>;

export class RunWatcher {
  readonly #session: Session;
  readonly #runId: string;
  readonly #stopping = new AbortController();
  /** The execution whose history is read, and how far. */
  #execution: string | null = null;
  #token: Uint8Array | null = null;
  #log = new ActivityLog();
  #close: Close | 'unknown' | null = null;
  #startedAtMs: number | null = null;
  #closedAtMs: number | null = null;
  #records: RunRecords | null = null;
  #pending: Pending[] = [];
  #servers: ServersStatus | null = null;
  #hosted = false;
  #unserved: string[] = [];
  /** Whether the workflow itself, or one to whom it handed shards, waits for a worker. */
  #loopWaits = false;
  /** How often the decision at hand was tried; 0: none is. */
  #tries = 0;
  /** What one of those fails of to whom it handed shards. */
  #bugBelow: Situation['bug'] = null;
  #queue: string | null = null;
  /** The build that alone may serve the run; null where any may. */
  #build: string | null = null;
  /** Why something could not be asked at the last try. */
  readonly #troubles = new Map<string, string>();
  #rates = new Map<string, Rate>();
  #ratesOf = '';
  #following: Promise<void> | null = null;

  constructor(session: Session, runId: string) {
    this.#session = session;
    this.#runId = runId;
  }

  /** Reads everything once, without waiting for news. Throws Unavailable when the store cannot be read; Temporal may be away. */
  async look(): Promise<LiveView> {
    await this.#attempt('temporal', () => this.#read(false));
    await this.#describe();
    await this.#surroundings();
    await this.#readRecords();
    return this.view();
  }

  /** Follows the run until it ends or `stop` is called. Settles with how it ended, null when stopped. */
  async follow(): Promise<LiveView['outcome']> {
    const loops = [
      this.#repeat(0, () => this.#attempt('temporal', () => this.#read(true))),
      this.#repeat(POLL_MS, () => this.#describe()),
      this.#repeat(SURROUNDINGS_POLL_MS, async () => {
        await this.#surroundings();
        await this.#attempt('store', () => this.#readRecords());
      }),
    ];
    this.#following = Promise.all(loops).then(
      () => undefined,
      async (error: unknown) => {
        // What one of them failed of must not leave the others asking for ever.
        this.#stopping.abort();
        await Promise.allSettled(loops);
        throw error;
      },
    );
    await this.#following;
    if (this.#close === null) return null;
    // The last record was written just before the end.
    await this.#attempt('store', () => this.#readRecords());
    return this.view().outcome;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#following;
  }

  get records(): RunRecords | null {
    return this.#records;
  }

  view(nowMs: number = Date.now()): LiveView {
    const log = this.#log;
    const recipe = log.input?.recipe ?? this.#records?.genesis.recipe ?? null;
    const work = log.work();
    this.#measure(nowMs, work);
    const ended = this.#close !== null;
    return {
      runId: this.#runId,
      recipe: recipe && { name: recipe.name, method: recipe.method, scale: recipe.scale, seed: recipe.seed, iterations: recipe.iterations },
      outcome: this.#outcome(),
      phase: log.phase,
      iteration: log.iteration,
      control: log.control,
      work,
      leftMs: ended ? null : this.#leftMs(nowMs, work),
      elapsedMs: this.#startedAtMs === null ? null : (this.#closedAtMs ?? nowMs) - this.#startedAtMs,
      waiting: ended ? [] : this.#waiting(nowMs),
      records: this.#records,
    };
  }

  #outcome(): LiveView['outcome'] {
    if (this.#close === null) return null;
    if (this.#close === 'unknown') return { kind: 'unknown' };
    if (this.#close.kind === 'continued') return null;
    if (this.#close.kind === 'completed' && this.#log.control.stopping) return { kind: 'stopped' };
    return this.#close;
  }

  #waiting(nowMs: number): string[] {
    const paused = this.#log.control.paused ? [`paused by request; go on with \`npx ratchet resume ${this.#runId}\``] : [];
    if (this.#log.phase === 'approval')
      paused.push(
        `asks for approval of the better policy: \`npx ratchet approve ${this.#runId}\` or \`npx ratchet reject ${this.#runId}\``,
      );
    const borrowed = this.#session.borrowed !== null;
    const { bug: failure } = this.#log;
    const reasons = waitingFor({
      nowMs,
      pending: this.#pending,
      unserved: this.#unserved,
      bug: failure === null ? this.#bugBelow : { failure, attempt: this.#tries },
      servers: this.#servers,
      hosted: this.#hosted,
      borrowed,
    });
    // Where a server of ours is known to be away, that it does not answer is no news.
    return [...paused, ...(reasons.length > 0 ? reasons : this.#troubles.values())];
  }

  async #repeat(pauseMs: number, step: () => Promise<void>): Promise<void> {
    while (!this.#stopping.signal.aborted && this.#close === null) {
      await step();
      if (pauseMs > 0 && this.#close === null) await this.#pause(pauseMs);
    }
  }

  #pause(ms: number): Promise<void> {
    return delay(ms, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
  }

  /** Notes what cannot be asked now; a failure that will not pass is thrown. */
  async #attempt(what: string, step: () => Promise<void>): Promise<void> {
    try {
      await step();
      this.#troubles.delete(what);
    } catch (thrown) {
      if (this.#stopping.signal.aborted) return;
      const error = asRatchetError(thrown);
      if (!(error instanceof RatchetError) || error.type !== 'Unavailable') throw error;
      this.#troubles.set(what, error.message);
      await this.#pause(RETRY_PAUSE_MS);
    }
  }

  /** Reads on in the history. `wait`: until there is news; else to its present end. */
  async #read(wait: boolean): Promise<void> {
    const client = await this.#session.temporal();
    if (this.#execution === null && !(await this.#locate(client))) return;
    for (;;) {
      const request = {
        namespace: client.options.namespace,
        execution: { workflowId: this.#runId, runId: this.#execution },
        waitNewEvent: wait,
        ...(this.#token && { nextPageToken: this.#token }),
      };
      const answer = await client.connection
        .withAbortSignal(this.#stopping.signal, () =>
          ask(client, () => client.workflowService.getWorkflowExecutionHistory(request), LONG_POLL_BOUND_MS),
        )
        .catch((error: unknown) => this.#forgetIfReplaced(error));
      if (answer === null) return;
      for (const event of answer.history?.events ?? []) {
        this.#log.apply(event);
        if (this.#log.close) this.#closedAtMs = optionalTsToMs(event.eventTime) ?? null;
      }
      this.#token = answer.nextPageToken && answer.nextPageToken.length > 0 ? answer.nextPageToken : null;
      const { close } = this.#log;
      const next = close === null ? null : await this.#next(client, close);
      if (next !== null) {
        this.#execution = next;
        [this.#log, this.#token, this.#closedAtMs] = [new ActivityLog(), null, null];
        continue;
      }
      if (close) this.#close = close;
      if (close || wait || !this.#token) return;
    }
  }

  /** The execution that goes on where one ended; null where the run ended. */
  async #next(client: Client, close: Close): Promise<string | null> {
    if (close.kind === 'continued') return close.runId;
    if (close.kind !== 'terminated') return null;
    // A reset ends an execution from outside and leaves another in its place.
    const { runId } = await ask(client, () => client.workflow.getHandle(this.#runId).describe());
    return runId === this.#execution ? null : runId;
  }

  /** An older copy of Temporal's database was put back: what was read is not what it holds now. Returns null, so that all is read anew; throws what means something else. */
  async #forgetIfReplaced(error: unknown): Promise<null> {
    if (!isOfOtherHistory(error) || this.#stopping.signal.aborted) throw error;
    [this.#execution, this.#log, this.#token] = [null, new ActivityLog(), null];
    await this.#pause(RETRY_PAUSE_MS);
    return null;
  }

  /** Reads the records again where there is a new one. */
  async #readRecords(): Promise<void> {
    const { store } = this.#session;
    const next = this.#records?.entries.length ?? 0;
    if (await store.readBytes(recordKey(this.#runId, next))) this.#records = await recordsOf(store, this.#runId);
  }

  /** Finds the newest execution of the run, and when the first began. False where Temporal does not know the run. */
  async #locate(client: Client): Promise<boolean> {
    let found: Description;
    try {
      found = await ask(client, () => client.workflow.getHandle(this.#runId).describe());
    } catch (error) {
      if (!(error instanceof RatchetError) || error.type !== 'BadInput') throw error;
      this.#close = 'unknown';
      return false;
    }
    this.#execution = found.runId;
    this.#queue = found.taskQueue;
    this.#startedAtMs = found.startTime.getTime();
    const first = found.raw.workflowExecutionInfo?.firstRunId;
    if (first && first !== found.runId) {
      // The server forgets executions after a while; then the newest has to do.
      const origin = await ask(client, () => client.workflow.getHandle(this.#runId, first).describe()).catch(() => null);
      if (origin) this.#startedAtMs = origin.startTime.getTime();
    }
    return true;
  }

  /** What is in flight, from Temporal's description of the execution. */
  async #describe(): Promise<void> {
    if (this.#execution === null || this.#close !== null) return;
    await this.#attempt('temporal', async () => {
      const client = await this.#session.temporal();
      const { raw } = await ask(client, () => client.workflow.getHandle(this.#runId).describe());
      const heartbeats = new Map<string, Progress>();
      const children = await childrenOf(client, raw);
      const all = [raw, ...children.map((child) => child.raw)];
      const activities = all.flatMap((of) => (of.pendingActivities ?? []).map((activity) => ({ own: of === raw, activity })));
      const pending = activities.map(async ({ own, activity }): Promise<Pending> => {
        // Ids are those of one workflow.
        const id = own ? (activity.activityId ?? '') : '';
        const [told] = arrayFromPayloads(defaultPayloadConverter, activity.heartbeatDetails?.payloads) as (StageHeartbeat | undefined)[];
        const running = activity.state !== SCHEDULED;
        // A heartbeat of an attempt that ended says how far it came, not that it goes on.
        if (told?.progress && running && own) heartbeats.set(id, told.progress);
        const stage = activity.activityType?.name ?? '';
        return {
          id,
          stage: this.#log.labelOf(id) ?? stage,
          queue: this.#queueOf(stage),
          state: running ? 'running' : 'waiting',
          lost: running && (await isDeadHere(activity.lastWorkerIdentity ?? '')),
          attempt: activity.attempt ?? 1,
          failure: activity.lastFailure ? failureText(activity.lastFailure) : null,
          nextAttemptAtMs: optionalTsToMs(activity.nextAttemptScheduleTime) ?? null,
          scheduledAtMs: optionalTsToMs(activity.scheduledTime) ?? 0,
        };
      });
      this.#pending = await Promise.all(pending);
      const versioning = raw.workflowExecutionInfo?.versioningInfo;
      const pinned = versioning?.behavior === PINNED && !versioning.versioningOverride;
      this.#build = pinned ? (versioning.deploymentVersion?.buildId ?? null) : null;
      const tasks = all.map(({ pendingWorkflowTask }) => pendingWorkflowTask);
      this.#loopWaits = tasks.some((task) => task && !task.startedTime);
      this.#tries = tasks[0]?.attempt ?? 0;
      this.#bugBelow = await bugIn(client, children);
      this.#log.hear(heartbeats);
    });
  }

  #queueOf(stage: string): string | null {
    const role: Queue = (STAGE_QUEUES as Record<string, Queue>)[stage] ?? 'loop';
    return this.#queue && siblingQueue(this.#queue, role);
  }

  async #surroundings(): Promise<void> {
    this.#servers = await serversStatus(this.#session.home);
    this.#hosted = (await runningHost(this.#session.home)) !== null;
    await this.#attempt('temporal', async () => {
      const client = await this.#session.temporal();
      const unserved: string[] = [];
      const queues = new Map<string, QueueKind>();
      for (const { state, queue, nextAttemptAtMs } of this.#pending)
        if (state === 'waiting' && queue && (nextAttemptAtMs ?? 0) <= Date.now()) queues.set(queue, QUEUE_KIND.activity);
      if (this.#loopWaits && this.#queue) queues.set(this.#queue, QUEUE_KIND.workflow);
      for (const [queue, kind] of queues) if (!(await isServed(client, queue, kind, this.#build))) unserved.push(queue);
      this.#unserved = unserved;
    });
  }

  /** Feeds the rates, one per unit of the phase: shards of several kinds share the workers, so their counts are added up. */
  #measure(nowMs: number, work: LiveView['work']): void {
    const phase = `${this.#execution} ${this.#log.phase}`;
    if (phase !== this.#ratesOf) [this.#rates, this.#ratesOf] = [new Map(), phase];
    for (const [unit, { done }] of byUnit(work)) {
      const rate = this.#rates.get(unit) ?? new Rate();
      this.#rates.set(unit, rate);
      rate.add(nowMs, done);
    }
  }

  #leftMs(nowMs: number, work: LiveView['work']): number | null {
    let most: number | null = null;
    for (const [unit, { done, total, sinceMs, finished }] of byUnit(work)) {
      if (finished || unit === '') continue;
      // Before there is a rate, the average since the work began has to do.
      const average = done > 0 && sinceMs !== null && nowMs > sinceMs ? ((total - done) / done) * (nowMs - sinceMs) : null;
      const left = this.#rates.get(unit)?.leftMs(total) ?? average;
      if (left !== null) most = Math.max(most ?? 0, left);
    }
    return most;
  }
}

function byUnit(work: LiveView['work']): Map<string, { done: number; total: number; sinceMs: number | null; finished: boolean }> {
  const sums = new Map<string, { done: number; total: number; sinceMs: number | null; finished: boolean }>();
  for (const { unit, done, total, sinceMs, finished } of work) {
    const sum = sums.get(unit) ?? { done: 0, total: 0, sinceMs, finished: true };
    sums.set(unit, {
      done: sum.done + done,
      total: sum.total + total,
      sinceMs: earliest(sum.sinceMs, sinceMs),
      finished: sum.finished && finished,
    });
  }
  return sums;
}
