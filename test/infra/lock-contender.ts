/** A process of the lock test: adds to a counter under the lock, without any other protection. `node lock-contender.ts <lock> <file> <times> [die]`. */
import { readFileSync, writeFileSync } from 'node:fs';
import { withLock } from '../../infra/lock.ts';

const [lock, file, times, die] = process.argv.slice(2) as [string, string, string, string?];
for (let i = 0; i < Number(times); i++) {
  await withLock(lock, { boundMs: 60_000 }, async () => {
    const value = Number(readFileSync(file, 'utf8'));
    if (die) {
      process.send?.('held');
      process.kill(process.pid, 'SIGKILL');
    }
    // A turn of the event loop between reading and writing: without mutual exclusion others get in between.
    await new Promise((resolve) => setImmediate(resolve));
    writeFileSync(file, String(value + 1));
  });
}
