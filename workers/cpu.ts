/** Entry point: a worker process that hosts the `cpu` role. */
import { runWorkerProcess } from './process.ts';

await runWorkerProcess(['cpu']);
