/** `ratchet down`: ends what `ratchet up` or `npm start` keeps up. Runs under way are safe and go on with the next `up`. */
import { Command } from 'commander';
import { endProcess } from '../../infra/processes.ts';
import { serversStatus, stopServers } from '../../infra/servers.ts';
import { runningHost } from '../host.ts';
import { note, print } from '../output.ts';
import { home } from '../session.ts';

/** Workers drain within 40 s, then two servers end within a few seconds each. */
const END_BOUND_MS = 60_000;

export function downCommand(): Command {
  return new Command('down').description('stop the workers (with a checkpoint) and the servers of this folder').action(async () => {
    const host = await runningHost(home());
    if (host) {
      note(`stopping \`ratchet ${host.command}\` (pid ${host.process.pid}): the workers finish with a checkpoint`);
      await endProcess(host.process, END_BOUND_MS);
    }
    const { temporal, s3 } = await serversStatus(home());
    const running = [temporal, s3].some(({ pid }) => pid !== null);
    await stopServers(home());
    print(host || running ? 'Everything is down. Runs under way are safe: `npx ratchet up` or `npm start` goes on.' : 'Nothing was up.');
  });
}
