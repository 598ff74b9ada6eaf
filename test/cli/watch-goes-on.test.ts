/** A watched run whose servers are not what they were: an older copy of Temporal's database is read anew, and what cannot be read ends the watching. */
import assert from 'node:assert/strict';
import { cpSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { recordKey } from '../../artifacts/run-log.ts';
import { launch, prepare } from '../../cli/launch.ts';
import { sessionOf } from '../../cli/session.ts';
import { homePaths } from '../../infra/home.ts';
import { endpointEnvironment, ensureServers } from '../../infra/servers.ts';
import { bareEnvironment, cli, newHome, waitFor } from '../support/loop.ts';

/** Nothing is computed here; a command that takes longer hangs. */
const BOUND_MS = 45_000;

const home = newHome();
after(() => home.remove());
const up = () => ensureServers({ home: home.path, onProgress: () => {}, env: bareEnvironment(home) });

test("a run is watched on when an older copy of Temporal's database is put back, and not for ever when its records are damaged", async () => {
  const database = dirname(homePaths(home.path).temporalDatabase);
  const copy = join(home.path, 'copy');
  let servers = await up();
  const session = sessionOf(servers.endpoints);
  try {
    await launch(session, prepare('agentprm-household', { scale: 'micro', set: [] }), 'run');
    await servers.stop();
    cpSync(database, copy, { recursive: true });
    servers = await up();
    const handle = (await session.temporal()).workflow.getHandle('run');
    // No worker runs: signals are only written into the history.
    for (let i = 0; i < 3; i++) await handle.signal('noted');

    const watch = cli(home, ['watch', 'run'], endpointEnvironment(servers.endpoints), BOUND_MS);
    await waitFor(() => watch.output().includes('no worker'), 'the history was read to its end', watch);
    await servers.stop();
    rmSync(database, { recursive: true });
    cpSync(copy, database, { recursive: true });
    servers = await up();
    await handle.terminate('asked by the test');
    assert.equal((await watch.exited).code, 1);
    assert.match(watch.output(), /run run terminated: asked by the test/);

    await launch(session, prepare('agentprm-household', { scale: 'micro', set: [] }), 'run');
    const second = cli(home, ['watch', 'run'], endpointEnvironment(servers.endpoints), BOUND_MS);
    await waitFor(() => second.output().includes('no worker'), 'it is watched', second);
    await session.store.commit(recordKey('run', 0), { not: 'a record' });
    assert.notEqual((await second.exited).code, 0);
    assert.match(second.output(), /records\/000000\.json/);
  } finally {
    await session.close();
    await servers.stop();
  }
});
