/** Entry point: a worker process that hosts every role, for one machine. */
import { QUEUES } from '../workflows/task-queues.ts';
import { runWorkerProcess } from './process.ts';

await runWorkerProcess(QUEUES);
