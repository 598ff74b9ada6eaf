/** Entry point: a worker process that hosts the `gpu` role. */
import { runWorkerProcess } from './process.ts';

await runWorkerProcess(['gpu']);
