/**
 * A process of the test of borrowed servers: a reading command that never ends by itself. It says when its servers are there, and reads from the store
 * whenever it is asked to.
 */
import { listRuns } from '../../artifacts/run-log.ts';
import { withSession } from '../../cli/session.ts';

await withSession({ borrow: true }, async ({ store }) => {
  process.send?.('open');
  // The channel keeps this process alive.
  process.on('message', () => {
    listRuns(store).then(
      (runs) => process.send?.(`${runs.length} runs`),
      (error: Error) => process.send?.(`failed: ${error.message}`),
    );
  });
  await new Promise(() => {});
});
