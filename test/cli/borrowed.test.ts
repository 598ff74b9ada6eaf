/** Servers that a reading command starts for itself: it says so at once, and they end with it, also where a signal ends it. */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ensureServers, stopServers } from '../../infra/servers.ts';
import { bareEnvironment, newHome, processesWithHome } from '../support/loop.ts';
import { NO_SERVERS, ratchet } from './cli.ts';

const home = newHome();
const env = bareEnvironment(home);

before(async () => {
  const servers = await ensureServers({ home: home.path, onProgress: () => {}, env });
  await servers.stop();
});
after(async () => {
  await stopServers(home.path);
  home.remove();
});

/** Ends the command by a signal once it said `when`, on its channel or on standard error. Returns how it ended and what it left. */
async function endedWhen(when: RegExp, signal: NodeJS.Signals) {
  const child = fork(join(import.meta.dirname, 'borrower.ts'), { env, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  let told = '';
  await new Promise<void>((resolve, reject) => {
    const hear = (text: string) => {
      told += text;
      if (when.test(told)) resolve();
    };
    child.stderr?.setEncoding('utf8').on('data', hear);
    child.on('message', hear);
    child.on('exit', () => reject(new Error(`it ended by itself: ${told}`)));
  });
  const exited = once(child, 'exit');
  child.kill(signal);
  const [, by] = (await exited) as [number | null, NodeJS.Signals | null];
  return { by, left: processesWithHome(home) };
}

test('a signal that ends a reading command ends the servers that it started for itself', async () => {
  assert.deepEqual(await endedWhen(/open/, 'SIGTERM'), { by: 'SIGTERM', left: [] });
});

test('also while they are being started', async () => {
  assert.deepEqual(await endedWhen(/starting/, 'SIGINT'), { by: 'SIGINT', left: [] });
});

test('says on standard error what it starts, and leaves standard output to the result', async () => {
  const { code, out, err } = await ratchet(['ls', '--json'], { env: { ...NO_SERVERS, RATCHET_HOME: home.path } });
  assert.equal(code, 0);
  assert.deepEqual(JSON.parse(out), []);
  assert.match(err, /^servers: starting Temporal and the S3 server for this command/);
  assert.deepEqual(processesWithHome(home), []);
});
