/**
 * Loaded into every process of a test run by `NODE_OPTIONS=--import`. Strikes once, at a moment that a plan fixes by progress count and not by time, so that
 * the same plan hits the same place every time; keeps a log of what compute children did; and shifts this process's wall clock where it is told to.
 * It changes nothing else, and computes nothing.
 *
 * `RATCHET_TEST_STRIKES` names a folder with `plan.json`: Strike[]. `<index>.struck` is made, exclusively, before a strike and tells where (Struck);
 * `events.jsonl` is the log (Event, one a line). `clock`, where it is there from the start, holds the milliseconds by which Date is ahead of the machine's clock.
 */
import { subscribe } from 'node:diagnostics_channel';
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { join } from 'node:path';
import type { StageNews } from '../../activities/stage-runner.ts';

/** When to strike. Whatever comes later in the same stage call counts too: of progress that comes fast only the latest is told. */
export type Moment =
  /** A stage's progress reaches a count. */
  | {
      at: 'progress';
      stage: string;
      done: number;
      /** Progress of other phases is passed over. */
      phase?: string;
      /** Which call of the stage, counted over all children since the plan began; 0 is the first. */
      call?: number;
      /** Only the call of this name (digest of stage and input). */
      intent?: string;
    }
  /** A stage call's result is sent to the store, or the store has said that it has it. */
  | { at: 'commit'; intent: string; when: 'asked' | 'answered' }
  /** The same for record `index` of the run's chain, which a worker writes. */
  | { at: 'record'; index: number; when: 'asked' | 'answered' };

export interface Strike {
  /**
   * `child`: this compute child. `worker`: this worker, or the one above this child. `temporal`, `s3`: the server of the run's home. `all`: whoever watches
   * the folder kills the tree. `harness`: whoever watches does what is to be done; this process waits for `<index>.go`.
   */
  target: 'child' | 'worker' | 'temporal' | 's3' | 'all' | 'harness';
  moment: Moment;
}

/** Where a strike hit. */
export interface Struck {
  pid: number;
  ppid: number;
  isChild: boolean;
  /** Milliseconds since 1970 by a clock that nobody shifts. */
  t: number;
  stage: string;
  /** Empty outside of a stage call. */
  intent: string;
  phase: string;
  done: number;
}

/** What a compute child did. `written`: the store took a result or record as the first of its key; `key` is its last two parts. */
export interface Event {
  what: 'run' | 'progress' | 'checkpoint' | 'result' | 'failure' | 'written';
  t: number;
  pid: number;
  ppid: number;
  stage: string;
  intent: string;
  phase?: string;
  done?: number;
  total?: number;
  /** Of a checkpoint: up to here nothing is done again. */
  step?: number;
  /** Type of a failure. */
  type?: string;
  key?: string;
}

/** A harness that has been told acts within milliseconds; one that is gone must not keep anybody. */
const GO_BOUND_MS = 20_000;
const GO_POLL_MS = 1;
/** A clock that jumps is noticed this much later at most. */
const CLOCK_POLL_MS = 100;

const folder = process.env['RATCHET_TEST_STRIKES'];
const isChild = process.argv[1]?.endsWith('/learning/compute/child.ts') ?? false;
const now = () => performance.timeOrigin + performance.now();
/** The call at hand. */
const here = { stage: '', intent: '', phase: '', done: 0 };
let call = -1;

if (folder && existsSync(join(folder, 'plan.json'))) {
  const plan = JSON.parse(readFileSync(join(folder, 'plan.json'), 'utf8')) as Strike[];
  if (existsSync(join(folder, 'clock'))) shiftClock(join(folder, 'clock'));
  if (isChild && process.send) await watchChild(plan);
  watchStore(plan);
}

async function watchChild(plan: Strike[]): Promise<void> {
  const { stageIntent } = await import('../../artifacts/run-log.ts');
  process.on('message', (message: { type?: string; job?: { name: string; input?: { input?: unknown } } }) => {
    if (message.type !== 'run' || !message.job) return;
    const { name, input } = message.job;
    Object.assign(here, { stage: name, intent: stageIntent(name, input?.input ?? null), phase: '', done: 0 });
    call = -1;
    for (let n = 0; call < 0; n++) if (exclusively(`${here.stage}.${n}.call`, '')) call = n;
    log('run');
  });
  const send = (process.send as NonNullable<typeof process.send>).bind(process);
  process.send = ((message: ChildMessage, ...rest: []) => {
    const sent = send(message, ...rest);
    if (message.type === 'progress') {
      const { progress } = message.progress as StageNews;
      if (progress === null) return sent; // it ends before it said how far it is
      const { phase, done, total } = progress;
      Object.assign(here, { phase, done });
      log('progress', { phase, done, total });
      strikeIf(plan, (moment) => {
        if (moment.at !== 'progress' || moment.stage !== here.stage) return false;
        if (moment.intent !== undefined && moment.intent !== here.intent) return false;
        return call >= (moment.call ?? 0) && done >= moment.done && (moment.phase === undefined || moment.phase === phase);
      });
    } else if (message.type === 'checkpoint') log('checkpoint', { step: message.step ?? 0 });
    else if (message.type === 'result') log('result');
    else if (message.type === 'failure') log('failure', { type: message.failure?.type ?? '' });
    return sent;
  }) as NonNullable<typeof process.send>;
}

interface ChildMessage {
  type?: string;
  progress?: unknown;
  step?: number;
  failure?: { type: string };
}

/** Watches conditional writes of small manifests: results of stages in children, records in workers. */
function watchStore(plan: Strike[]): void {
  subscribe('http.client.request.start', (message) => {
    const key = committed((message as { request: ClientRequest }).request);
    if (key) strikeIf(plan, (moment) => matches(moment, key, 'asked'));
  });
  subscribe('http.client.response.finish', (message) => {
    const { request, response } = message as { request: ClientRequest; response: IncomingMessage };
    const key = committed(request);
    if (!key) return;
    if (response.statusCode === 200) log('written', { key });
    strikeIf(plan, (moment) => matches(moment, key, 'answered'));
  });
}

/** `stages/<intent>` or `records/<index>`; null for every other request. */
function committed(request: ClientRequest): string | null {
  if (request.method !== 'PUT' || request.getHeader('if-none-match') !== '*') return null;
  return /\/((?:stages|records)\/[^/?]+)\.json/.exec(request.path)?.[1] ?? null;
}

function matches(moment: Moment, key: string, when: 'asked' | 'answered'): boolean {
  if (moment.at === 'record') return moment.when === when && key === `records/${String(moment.index).padStart(6, '0')}`;
  // What a call's progress did not bring about in time, its end does.
  const { intent } = moment;
  return intent !== undefined && key === `stages/${intent}` && (moment.at === 'progress' || moment.when === when);
}

function strikeIf(plan: Strike[], hits: (moment: Moment) => boolean): void {
  plan.forEach(({ target, moment }, index) => {
    if (!hits(moment) || existsSync(join(folder as string, `${index}.struck`))) return;
    const struck: Struck = { pid: process.pid, ppid: process.ppid, isChild, t: now(), ...here };
    if (exclusively(`${index}.struck`, JSON.stringify(struck))) execute(target, index);
  });
}

function exclusively(name: string, text: string): boolean {
  const path = join(folder as string, name);
  if (existsSync(path)) return false;
  try {
    writeFileSync(path, text, { flag: 'wx' });
    return true;
  } catch {
    return false;
  }
}

function execute(target: Strike['target'], index: number): void {
  if (target === 'child') process.kill(process.pid, 'SIGKILL');
  if (target === 'worker') process.kill(isChild ? process.ppid : process.pid, 'SIGKILL');
  if (target === 'harness') {
    const deadline = performance.now() + GO_BOUND_MS;
    const sleeper = new Int32Array(new SharedArrayBuffer(4));
    while (!existsSync(join(folder as string, `${index}.go`)) && performance.now() < deadline) Atomics.wait(sleeper, 0, 0, GO_POLL_MS);
  }
  if (target === 'temporal' || target === 's3') {
    const home = (process.env['RATCHET_TEST_SERVERS'] ?? process.env['RATCHET_HOME']) as string;
    const record = JSON.parse(readFileSync(join(home, 'servers.json'), 'utf8')) as Record<string, { process: { pid: number } | null }>;
    const pid = record[target]?.process?.pid;
    if (pid === undefined) throw new Error(`no process of ${target} to kill`);
    process.kill(pid, 'SIGKILL');
  }
}

function log(what: Event['what'], more: Partial<Event> = {}): void {
  const { stage, intent } = here;
  const event: Event = { what, t: now(), pid: process.pid, ppid: process.ppid, stage, intent, ...more };
  appendFileSync(join(folder as string, 'events.jsonl'), `${JSON.stringify(event)}\n`);
}

/**
 * Date.now(), new Date() and Date() run ahead by what the file says: what an administrator or a resumed virtual machine does to the clock. Timers, performance.now() and
 * process.hrtime() do not shift, as they do not on a machine whose clock is set; nor do native code (Temporal's core, ONNX Runtime) and the servers.
 */
function shiftClock(file: string): void {
  const real = globalThis.Date;
  let aheadMs = 0;
  const look = () => {
    aheadMs = Number(readFileSync(file, 'utf8')) || 0;
  };
  look();
  setInterval(look, CLOCK_POLL_MS).unref();
  const shifted = () => real.now() + aheadMs;
  globalThis.Date = new Proxy(real, {
    construct: (target, args, newTarget) => Reflect.construct(target, args.length > 0 ? args : [shifted()], newTarget),
    apply: () => new real(shifted()).toString(),
    get: (target, key, receiver) => (key === 'now' ? shifted : Reflect.get(target, key, receiver)),
  });
}
