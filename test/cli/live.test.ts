/** What is shown of a run under way, from the events of its history and its heartbeats. Events have the shape in which Temporal's client gives them. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { defaultPayloadConverter } from '@temporalio/common';
import { ActivityLog, type HistoryEvent } from '../../cli/live/activity-log.ts';
import { displayLine, displayLines } from '../../cli/live/display.ts';
import type { LiveView } from '../../cli/live/view.ts';
import { waitingFor, type Pending } from '../../cli/live/waits.ts';

const payload = (value: unknown) => defaultPayloadConverter.toPayload(value);
let number = 0;
const event = (attributes: object): HistoryEvent => ({ eventId: ++number as never, ...attributes }) as HistoryEvent;
const scheduled = (activityId: string, name: string, input: unknown) =>
  event({
    activityTaskScheduledEventAttributes: { activityId, activityType: { name }, input: { payloads: [payload({ scope: 'demo', input })] } },
  });
const completed = (of: HistoryEvent, result: unknown) =>
  event({ activityTaskCompletedEventAttributes: { scheduledEventId: of.eventId, result: { payloads: [payload(result)] } } });
const phase = (name: string, iteration: number) =>
  event({
    upsertWorkflowSearchAttributesEventAttributes: {
      searchAttributes: { indexedFields: { RatchetPhase: payload(name), RatchetIteration: payload(iteration) } },
    },
  });

/** A collection of 3 shards of 100 episodes: one finished, one at a worker, one waiting. */
function collecting(): ActivityLog {
  const log = new ActivityLog();
  const plan = { key: 'objects/p', sha256: 'p', bytes: 1 };
  const policy = { kind: 'policy', policy: {}, strategy: { kind: 'sample', temperature: 1 }, rewardModel: null };
  const planned = scheduled('1', 'planRollouts', { actor: policy, key: [1, 'collect', 1] });
  const first = scheduled('2', 'rolloutShard', { plan, shard: 0 });
  const events = [
    phase('collect', 1),
    planned,
    completed(planned, { plan, shards: 3, episodes: 300 }),
    first,
    scheduled('3', 'rolloutShard', { plan, shard: 1 }),
    scheduled('4', 'rolloutShard', { plan, shard: 2 }),
    completed(first, { dispatched: 100, successes: 60 }),
  ];
  for (const each of events) log.apply(each);
  log.hear(new Map([['3', { phase: 'rollouts', done: 50, total: 100, unit: 'episodes', metrics: { success: 0.4 } }]]));
  return log;
}

describe('the history of an execution', () => {
  test('a later phase of a stage has no average since the stage began', () => {
    const log = new ActivityLog();
    for (const each of [phase('update', 1), scheduled('7', 'updatePolicy', {})]) log.apply(each);
    const since = (name: string, done: number) => {
      log.hear(new Map([['7', { phase: name, done, total: 80, unit: 'steps', metrics: {} }]]));
      return log.work()[0]!.sinceMs;
    };
    assert.equal(since('scoring rollouts', 40), 0, 'the first phase began when the stage did');
    assert.equal(since('policy update', 1), null);
    assert.equal(since('policy update', 9), null);
  });

  test('shards of one plan are counted together, with what heartbeats say of those in flight', () => {
    const log = collecting();
    assert.equal(log.phase, 'collect');
    assert.equal(log.iteration, 1);
    const [work, ...others] = log.work();
    assert.deepEqual(others, []);
    const { label, done, total, unit, finished, metrics } = work ?? {};
    assert.deepEqual(
      { label, done, total, unit, finished },
      { label: 'rollouts', done: 150, total: 300, unit: 'episodes', finished: false },
    );
    // (60 + 0.4 * 50) of 150.
    assert.ok(Math.abs((metrics?.['success'] ?? 0) - 80 / 150) < 1e-12);
  });

  test('work of an earlier phase is no longer shown', () => {
    const log = collecting();
    log.apply(phase('label', 1));
    assert.deepEqual(log.work(), []);
  });

  test('a worker that dies does not take back what was counted', () => {
    const log = collecting();
    log.hear(new Map());
    assert.equal(log.work()[0]?.done, 150);
  });

  test('what operators asked for, as far as the run accepted it', () => {
    const log = collecting();
    const update = (name: string) => event({ workflowExecutionUpdateAcceptedEventAttributes: { acceptedRequest: { input: { name } } } });
    log.apply(update('pause'));
    assert.deepEqual(log.control, { paused: true, stopping: false, amendments: [] });
    log.apply(update('stop'));
    assert.deepEqual(log.control, { paused: false, stopping: true, amendments: [] });
  });

  test('a bug of the loop itself, until something is decided again', () => {
    const log = collecting();
    const failed = (cause: number) =>
      event({
        workflowTaskFailedEventAttributes: { cause, failure: { message: 'x is undefined', applicationFailureInfo: { type: 'TypeError' } } },
      });
    // `WorkflowTaskFailedCause` of Temporal's API.
    const [UNHANDLED_COMMAND, RESET_WORKFLOW] = [1, 20];
    const [BAD_CONTINUE_AS_NEW_ATTRIBUTES, UNHANDLED_FAILURE, BAD_SEARCH_ATTRIBUTES, NON_DETERMINISTIC_ERROR] = [11, 14, 23, 24];
    const [PENDING_ACTIVITIES_LIMIT_EXCEEDED, PAYLOADS_TOO_LARGE] = [27, 37];
    log.apply(failed(UNHANDLED_COMMAND));
    log.apply(failed(RESET_WORKFLOW));
    assert.equal(log.bug, null);
    for (const cause of [
      BAD_CONTINUE_AS_NEW_ATTRIBUTES,
      UNHANDLED_FAILURE,
      BAD_SEARCH_ATTRIBUTES,
      NON_DETERMINISTIC_ERROR,
      PENDING_ACTIVITIES_LIMIT_EXCEEDED,
      PAYLOADS_TOO_LARGE,
    ]) {
      log.apply(failed(cause));
      assert.equal(log.bug, 'TypeError: x is undefined');
      log.apply(event({ workflowTaskCompletedEventAttributes: {} }));
      assert.equal(log.bug, null);
    }
  });

  test('how it ended, with the failure that Ratchet knows by type', () => {
    const log = collecting();
    assert.equal(log.close, null);
    const cause = { message: 'reward model: 3 labelled episodes are too few', applicationFailureInfo: { type: 'BadInput' } };
    log.apply(
      event({ workflowExecutionFailedEventAttributes: { failure: { message: 'Activity task failed', activityFailureInfo: {}, cause } } }),
    );
    assert.deepEqual(log.close, { kind: 'failed', message: 'BadInput: reward model: 3 labelled episodes are too few' });
    const next = new ActivityLog();
    next.apply(event({ workflowExecutionContinuedAsNewEventAttributes: { newExecutionRunId: 'next' } }));
    assert.deepEqual(next.close, { kind: 'continued', runId: 'next' });
  });
});

const pending = (over: Partial<Pending>): Pending => ({
  id: '1',
  stage: 'rollouts',
  queue: 'ratchet-cpu',
  state: 'waiting',
  lost: false,
  attempt: 1,
  failure: null,
  nextAttemptAtMs: null,
  scheduledAtMs: 0,
  ...over,
});

describe('what a run waits for', () => {
  const well = { state: 'running' as const, reason: null, pid: 1, restarts: 0 };

  test('nothing, while work waits for a free slot', () => {
    assert.deepEqual(
      waitingFor({
        nowMs: 0,
        pending: [pending({})],
        unserved: [],
        bug: null,
        servers: { temporal: well, s3: well, disk: null },
        hosted: false,
        borrowed: false,
      }),
      [],
    );
  });

  test('servers that run for a look only: nothing works, whatever was under way when everything died', () => {
    const lost = [pending({ state: 'running', lost: true })];
    const servers = { temporal: well, s3: well, disk: null };
    assert.deepEqual(
      waitingFor({ nowMs: 0, pending: lost, unserved: ['ratchet-loop'], bug: null, servers, hosted: false, borrowed: true }),
      ['interrupted: nothing is up on this machine; `npm start` or `npx ratchet up` goes on'],
    );
  });

  test('a full disk is named even while the servers on it still run', () => {
    const servers = { temporal: well, s3: well, disk: { freeBytes: 0, full: true } };
    assert.match(
      waitingFor({ nowMs: 0, pending: [], unserved: [], bug: null, servers, hosted: true, borrowed: false }).join(),
      /^the disk is full: 0 bytes are free/,
    );
  });

  test('a full disk, an attempt that failed, a queue without workers, a dead worker: each is named once', () => {
    const s3 = { ...well, state: 'waiting' as const, reason: 'disk full: 0 bytes free' };
    const failure = 'Unavailable: storing objects/x: the server does not answer';
    const reasons = waitingFor({
      nowMs: 1_000,
      pending: [
        pending({ attempt: 3, failure, nextAttemptAtMs: 9_000 }),
        pending({ id: '2', attempt: 3, failure, nextAttemptAtMs: 13_000 }),
        pending({ id: '3', stage: 'reward model', state: 'running', lost: true }),
      ],
      unserved: ['ratchet-gpu'],
      bug: null,
      servers: { temporal: well, s3, disk: null },
      hosted: false,
      borrowed: false,
    });
    assert.deepEqual(reasons, [
      'the S3 server is waiting: disk full: 0 bytes free',
      'no worker serves the queue ratchet-gpu; start one with `npx ratchet up` or `npx ratchet worker --queues gpu`',
      'reward model: the worker died; another takes over within seconds',
      'rollouts (2 shards): attempt 3 after Unavailable: storing objects/x: the server does not answer; next attempt in 0:08',
    ]);
  });
});

describe('the display', () => {
  const work = { label: 'rollouts', done: 712, total: 1200, unit: 'episodes', finished: false, metrics: { success: 0.541 }, sinceMs: 0 };
  const view: LiveView = {
    runId: 'demo',
    recipe: { name: 'agentprm-household', method: 'AgentPRM', scale: 'tiny', seed: 1, iterations: 2 },
    outcome: null,
    phase: 'collect',
    iteration: 1,
    control: { paused: false, stopping: false, amendments: [] },
    work: [work],
    leftMs: 38_000,
    elapsedMs: 252_000,
    waiting: [],
    records: null,
  };

  test('a block for a terminal', () => {
    assert.deepEqual(displayLines(view, { columns: 140, unicode: false }), [
      'demo   AgentPRM · scale tiny · seed 1',
      'iteration 1 of 2 · collect   4:12, this step about 0:38 more',
      '',
      '  rollouts  #################...........  712/1,200 episodes  success 54.1 %',
    ]);
  });

  test('no line is longer than a narrow terminal', () => {
    const waiting = ['no worker serves the queue ratchet-cpu; start one with `npx ratchet up` or `npx ratchet worker --queues cpu`'];
    for (const columns of [40, 60, 80, 140]) {
      const lines = displayLines({ ...view, waiting }, { columns, unicode: true });
      assert.ok(lines.every((line) => line.length <= columns));
      assert.ok(lines.some((line) => line.includes('waiting: no worker')));
    }
  });

  test('one line for a log', () => {
    assert.equal(displayLine(view), '[4:12] iteration 1 of 2 · collect · rollouts 712/1,200 episodes (success 54.1 %) · about 0:38 more');
    const two = [work, { ...work, label: 'unseen greedy', done: 8, total: 100 }];
    assert.equal(
      displayLine({ ...view, phase: 'report', work: two }),
      '[4:12] iteration 1 of 2 · report · 720/1,300 episodes · about 0:38 more',
    );
  });
});
