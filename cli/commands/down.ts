/** `ratchet down`: ends what `ratchet up` or `npm start` keeps up. Runs under way are safe and go on with the next `up`. */
import { Command } from 'commander';
import { endProcess } from '../../infra/processes.ts';
import { serversStatus, stopServers } from '../../infra/servers.ts';
import { runningHost } from '../host.ts';
import { duration } from '../format.ts';
import { inPlace, note, print } from '../output.ts';
import { home } from '../session.ts';

/** Workers drain within 40 s, then two servers end within a few seconds each. */
const END_BOUND_MS = 60_000;
const SHOW_EVERY_MS = 1_000;

export function downCommand(): Command {
  return new Command('down').description('stop the workers (with a checkpoint) and the servers of this folder').action(async () => {
    const host = await runningHost(home());
    if (host) {
      note(`stopping \`ratchet ${host.command}\` (pid ${host.process.pid}): the workers finish with a checkpoint`);
      await waiting(endProcess(host.process, END_BOUND_MS));
    }
    const { temporal, s3 } = await serversStatus(home());
    const running = [temporal, s3].some(({ pid }) => pid !== null);
    if (running) note('stopping the servers');
    await waiting(stopServers(home()));
    print(host || running ? 'Everything is down. Runs under way are safe: `npx ratchet up` or `npm start` goes on.' : 'Nothing was up.');
  });
}

/** Shows on a terminal for how long something has gone on. */
async function waiting(work: Promise<unknown>): Promise<void> {
  const show = inPlace();
  const begun = performance.now();
  const timer = setInterval(() => show(duration(performance.now() - begun), false), SHOW_EVERY_MS);
  try {
    await work;
  } finally {
    clearInterval(timer);
    show('', true);
  }
}
