/** A process that owns a compute child with a job that never ends; the test kills it and watches the child. */
import { ComputePool } from '../../learning/compute/pool.ts';

const jobModule = new URL('./jobs.ts', import.meta.url).href;
const pool = new ComputePool({ slots: 1, lanes: 1, memoryBytes: 2 ** 29, jobModule });
await pool.run('untilStopped', null, { onProgress: () => process.send!({ child: pool.status()[0]!.pid }) });
