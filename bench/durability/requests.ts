/**
 * Counts a process's HTTP requests (to the S3 server; Temporal is spoken to by native code) and the seconds between their start and the end of their
 * answer. Imported into every process of the comparison (`--import`); the sums are written to a file per process in `RATCHET_BENCH_REQUESTS`.
 */
import { subscribe } from 'node:diagnostics_channel';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { threadId } from 'node:worker_threads';

/** How often the sums are written while they change. */
const WRITE_EVERY_MS = 250;

const folder = process.env['RATCHET_BENCH_REQUESTS'];
if (folder) {
  const sums = { requests: 0, seconds: 0 };
  const starts = new WeakMap<object, number>();
  let written = 0;
  const write = () => {
    if (written === sums.requests) return;
    written = sums.requests;
    writeFileSync(join(folder, `${process.pid}-${threadId}.json`), JSON.stringify(sums));
  };
  subscribe('http.client.request.start', (message) => starts.set((message as { request: object }).request, performance.now()));
  subscribe('http.client.response.finish', (message) => {
    const start = starts.get((message as { request: object }).request);
    if (start === undefined) return;
    sums.requests++;
    sums.seconds += (performance.now() - start) / 1000;
  });
  setInterval(write, WRITE_EVERY_MS).unref();
  process.on('exit', write);
}
