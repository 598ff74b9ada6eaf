/** A process of the test of borrowed servers: a reading command that never ends by itself. It says when its servers are there. */
import { withSession } from '../../cli/session.ts';

await withSession({ borrow: true }, async () => {
  process.send?.('open');
  // The channel keeps this process alive.
  process.on('message', () => {});
  await new Promise(() => {});
});
