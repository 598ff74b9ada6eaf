/** A process of the servers test: uses the servers of a home until it is told to `stop` or `release`, or is killed. `node servers-user.ts <home>`. */
import { ensureServers } from '../../infra/servers.ts';

const servers = await ensureServers({ home: process.argv[2]!, onProgress: () => {} });
process.send!({ pids: servers.pids, endpoints: servers.endpoints });
servers.onExit((event) => process.send!({ event }));
process.on('message', async (what: 'stop' | 'release') => {
  await servers[what]();
  process.send!({ left: true }, () => process.disconnect());
});
