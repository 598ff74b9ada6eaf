/** A worker process as in production but for its stages. Asked over IPC, it says how much memory it holds once the garbage is gone (`--expose-gc`). */
import { RATCHET_CODE, runWorkerProcess } from '../../workers/process.ts';
import { QUEUES } from '../../workflows/task-queues.ts';

export interface Memory {
  /** Of the whole process, in bytes: the main isolate, the workflows' threads, the native core. */
  rssBytes: number;
  /** Of the main isolate, in bytes, after a full collection. */
  heapBytes: number;
}

process.on('message', (message) => {
  if (message !== 'memory') return;
  globalThis.gc?.();
  const { rss, heapUsed } = process.memoryUsage();
  process.send?.({ rssBytes: rss, heapBytes: heapUsed } satisfies Memory);
});
await runWorkerProcess(QUEUES, { ...RATCHET_CODE, jobModule: new URL('./job.ts', import.meta.url).href });
