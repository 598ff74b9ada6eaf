/** `ratchet env serve` as a process: it says where it listens, serves, and ends in order. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { OpenEnvClient, takenPort } from '../environments/serve/client.ts';
import { ENTRY, ratchet } from './cli.ts';

test('serves until it is asked to end, then tells its clients and ends with 0', async () => {
  const child = spawn(process.execPath, [ENTRY, 'env', 'serve', '--port', '0', '--tasks', '6'], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const lines: string[] = [];
    const output = createInterface({ input: child.stdout });
    output.on('line', (line) => lines.push(line));
    let url: string | undefined;
    while ((url = lines.map((line) => /^listening on (\S+)/.exec(line)?.[1]).find(Boolean)) === undefined)
      await once(output, 'line', { signal: AbortSignal.timeout(30_000) });
    assert.match(url, /^http:\/\/127\.0\.0\.1:\d+$/);
    const client = await OpenEnvClient.connect(url);
    assert.equal((await client.reset({ split: 'unseen', index: 5 })).type, 'observation');
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    assert.equal((await client.next()).data.code, 'SESSION_ERROR');
    // RFC 6455, 7.4.1: 1001 is "going away".
    assert.equal(await client.closed, 1001);
    assert.deepEqual(await exited, [0, null]);
    assert.match(lines.at(-1) ?? '', /served 1 sessions, refused 0; ended: 0 closed, 0 dropped, 0 idle, 0 too old, 1 shutdown/);
  } finally {
    child.kill('SIGKILL');
  }
});

test('wrong options are bad input, a taken port is unavailable', async () => {
  const { port, free } = await takenPort();
  const [many, none, taken, unknown] = await Promise.all([
    ratchet(['env', 'serve', '--port', '70000']),
    ratchet(['env', 'serve', '--max-sessions', '0']),
    ratchet(['env', 'serve', '--tasks', '1', '--port', String(port)]),
    ratchet(['env', 'serv']),
  ]);
  free();
  assert.deepEqual([many.code, none.code, taken.code, unknown.code], [2, 2, 3, 2]);
  assert.match(many.err, /--port: "70000" is not valid; a whole number from 0 to 65535/);
  assert.match(taken.err, new RegExp(`cannot listen on 127\\.0\\.0\\.1 port ${port}: .*EADDRINUSE`));
});
