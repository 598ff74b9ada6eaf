/** A program that traces one thing and ends, as a command does: by its exit code, once nothing holds it. */
import { startTraces } from '../../infra/traces.ts';

const traces = await startTraces('program', (message) => console.error(message));
const now = Date.now();
const ids = { workflowId: 'run', runId: 'run', traceId: 'a'.repeat(32), spanId: 'b'.repeat(16), parentSpanId: 'c'.repeat(16) };
traces.workflowEnded({ ...ids, workflowType: 'loop', flags: 1, startMs: now, endMs: now, error: null });
process.send?.('ending');
process.disconnect?.();
await traces.end();
process.exitCode = 0;
