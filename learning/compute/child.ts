/**
 * The compute child: a warm process that imports one job module and runs its jobs one after another. Native arithmetic happens here and nowhere
 * else, so that it can block, crash or be killed without harm to the worker. It never outlives its owner, and it leaves ending to its owner:
 * signals meant for the whole process group (Ctrl-C, a service manager's SIGTERM) must not kill it before it has saved a checkpoint.
 */
import { constants, setPriority } from 'node:os';
import { RatchetError } from '../../core/errors.ts';
import { currentProvider } from '../providers.ts';
import { numericFingerprint } from './fingerprint.ts';
import { PROTOCOL_VERSION } from './protocol.ts';
import type { FromChild, Job, JobFailure, JobRunner, ToChild } from './protocol.ts';

/** Twice a second: the bound on memory is a guard against swapping, not an accountant. */
const MEMORY_REPORT_MS = 500;
/** Progress is for people and for the stall bound: of what a fast job tells within this time only the last is sent, and so is the very last. */
const PROGRESS_INTERVAL_MS = 50;

const jobModule = process.argv[2];
if (jobModule === undefined || process.send === undefined) {
  throw new RatchetError('BadInput', 'compute child: start it with child_process.fork(child, [URL of the job module])');
}

process.on('disconnect', () => process.exit(0));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
// The worker's event loop and the servers of a one-machine installation come first; arithmetic takes what is left, which is nearly everything.
setPriority(constants.priority.PRIORITY_BELOW_NORMAL);

const send = (message: FromChild): void => {
  process.send!(message);
};
const rssBytes = (): number => process.memoryUsage.rss();

async function start(): Promise<{ runner: JobRunner; fingerprint: string }> {
  const provider = currentProvider();
  // A device that is not there is found out now, not in the middle of a stage.
  if (provider.name !== 'cpu') {
    const { openLanes } = await import('../lanes/lane.ts');
    await openLanes(1, (lane) => lane.ready());
  }
  const { createJobRunner } = (await import(jobModule!)) as { createJobRunner?: () => JobRunner | Promise<JobRunner> };
  if (createJobRunner === undefined) throw new RatchetError('BadInput', `compute child: ${jobModule} does not export createJobRunner()`);
  return { runner: await createJobRunner(), fingerprint: numericFingerprint(provider) };
}

const started = await start().catch((error: unknown): null => {
  // Anything else is a crash, whose last words say what it was.
  if (!(error instanceof RatchetError)) throw error;
  send({ type: 'refused', failure: failureOf(error) });
  return null;
});

interface Current {
  id: number;
  stopRequested: boolean;
  checkpointRequested: boolean;
  cancel: AbortController;
}
let current: Current | null = null;

if (started !== null) {
  process.on('message', (message: ToChild) => {
    if (message.type === 'run') {
      void run(message.id, message.job, started.runner);
      return;
    }
    if (current?.id !== message.id) return;
    if (message.type === 'stop') current.stopRequested = true;
    else if (message.type === 'checkpoint') current.checkpointRequested = true;
    else current.cancel.abort(new Error('cancelled'));
  });
  send({ type: 'ready', version: PROTOCOL_VERSION, fingerprint: started.fingerprint, rssBytes: rssBytes() });
}

async function run(id: number, job: Job, runner: JobRunner): Promise<void> {
  const state: Current = { id, stopRequested: false, checkpointRequested: false, cancel: new AbortController() };
  current = state;
  const progress = latestOnly(PROGRESS_INTERVAL_MS, (value) => send({ type: 'progress', id, progress: value, rssBytes: rssBytes() }));
  const memoryTimer = setInterval(() => send({ type: 'memory', id, rssBytes: rssBytes() }), MEMORY_REPORT_MS);
  try {
    const output = await runner.run(job, {
      progress: progress.tell,
      checkpoint: (step) => {
        state.checkpointRequested = false;
        send({ type: 'checkpoint', id, step });
      },
      stopRequested: () => state.stopRequested,
      checkpointRequested: () => state.checkpointRequested,
      signal: state.cancel.signal,
    });
    progress.flush();
    send({ type: 'result', id, output, rssBytes: rssBytes() });
  } catch (error) {
    progress.flush();
    // However the job came to its end: nobody wants the result any more, and what was thrown may wrap the reason.
    const failure = state.cancel.signal.aborted ? { ...failureOf(error), type: 'Cancelled' as const } : failureOf(error);
    send({ type: 'failure', id, failure, rssBytes: rssBytes() });
  } finally {
    clearInterval(memoryTimer);
    current = null;
  }
}

/** Passes on at most one value per interval, always the latest; a blocked event loop passes on the next one told after it. */
function latestOnly(intervalMs: number, pass: (value: unknown) => void): { tell: (value: unknown) => void; flush: () => void } {
  let held: { value: unknown } | null = null;
  let timer: NodeJS.Timeout | undefined;
  let lastMs = -Infinity;
  const flush = (): void => {
    clearTimeout(timer);
    timer = undefined;
    if (held === null) return;
    const { value } = held;
    held = null;
    lastMs = performance.now();
    pass(value);
  };
  const tell = (value: unknown): void => {
    held = { value };
    const waitMs = lastMs + intervalMs - performance.now();
    if (waitMs <= 0) flush();
    else timer ??= setTimeout(flush, waitMs);
  };
  return { tell, flush };
}

function failureOf(error: unknown): JobFailure {
  const message = error instanceof Error ? error.message : String(error);
  const stack = (error instanceof Error && error.stack) || message;
  if (error instanceof RatchetError) return { type: error.type, message, stack };
  // V8's message for an ArrayBuffer that could not be had, and C++'s and ONNX Runtime's.
  const outOfMemory = /Array buffer allocation failed|std::bad_alloc|Failed to allocate memory/i.test(message);
  return { type: outOfMemory ? 'OutOfMemory' : 'Bug', message, stack };
}
