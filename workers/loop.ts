/** Entry point: a worker process that hosts the `loop` role. */
import { runWorkerProcess } from './process.ts';

await runWorkerProcess(['loop']);
