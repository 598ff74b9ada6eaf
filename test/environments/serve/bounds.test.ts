/** What keeps the server up: bounds on sessions, on their time and on what waits unread; nothing leaks whatever clients do. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { after, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { WebSocket as Socket } from 'ws';
import type { Environment } from '../../../environments/environment.ts';
import { get, OpenEnvClient, post, serve, servers, TASKS_PER_SPLIT, tasks, until } from './client.ts';

after(() => Promise.all(servers.map((server) => server.close())));
setFlagsFromString('--expose-gc');
/** What has not happened by then will not. */
const soon = () => ({ signal: AbortSignal.timeout(20_000) });
const collectGarbage = runInNewContext('gc') as () => void;

test('256 sessions at once, half of them dropped without a close: places come back, no game is kept, and the next 256 find room', async () => {
  const games: WeakRef<Environment>[] = [];
  const open: typeof tasks.open = (task) => {
    const game = tasks.open(task);
    games.push(new WeakRef(game));
    return game;
  };
  const server = await serve({ maxSessions: 256, pingIntervalMs: 50 }, { ...tasks, open });
  for (let round = 1; round <= 2; round++) {
    const polite = await Promise.all(Array.from({ length: 128 }, () => OpenEnvClient.connect(server.url)));
    const impolite = await Promise.all(
      Array.from({ length: 128 }, async () => {
        const socket = new Socket(`${server.url.replace('http', 'ws')}/ws`);
        await once(socket, 'open', soon());
        return socket;
      }),
    );
    const answers = await Promise.all([
      ...polite.map((client, i) => client.reset({ index: i % TASKS_PER_SPLIT })),
      ...impolite.map(async (socket, i) => {
        socket.send(JSON.stringify({ type: 'reset', data: { index: i % TASKS_PER_SPLIT } }));
        return JSON.parse(String((await once(socket, 'message', soon()))[0])) as { type: string };
      }),
    ]);
    assert.ok(answers.every(({ type }) => type === 'observation'));
    const full = await OpenEnvClient.connect(server.url);
    const refusal = await full.next();
    assert.deepEqual(refusal, {
      type: 'error',
      data: { message: 'all 256 sessions of this server are taken', code: 'CAPACITY_REACHED', active_sessions: 256, max_sessions: 256 },
    });
    assert.equal(await full.closed, 1013);
    assert.equal((await get(`${server.url}/health`)).json.status, 'degraded');

    // Half of these vanish; half stay connected but read and answer nothing any more, not even a ping, as a peer behind a broken network.
    impolite.forEach((socket, i) => (i % 2 === 0 ? socket.terminate() : socket.pause()));
    await Promise.all(polite.map((client) => client.close()));
    await until('no session is left', () => server.counts().active === 0);
    const { opened, refused, ended } = server.counts();
    assert.deepEqual([opened, refused, ended.closed, ended.dropped], [256 * round, round, 128 * round, 128 * round]);
    impolite.forEach((socket) => socket.terminate());
  }
  assert.equal(games.length, 512);
  await until('every game is garbage', () => {
    collectGarbage();
    return games.every((game) => game.deref() === undefined);
  });
  const metrics = await (await fetch(`${server.url}/metrics`)).text();
  assert.match(metrics, /^ratchet_env_sessions_active 0$/m);
  assert.match(metrics, /^ratchet_env_sessions_ended_total\{reason="dropped"\} 256$/m);
});

test('an unused session is ended after the idle bound, a used one after the total bound, each told why', async () => {
  const idle = await serve({ idleTimeoutMs: 80 });
  const client = await OpenEnvClient.connect(idle.url);
  await client.reset();
  const goodbye = await client.next();
  assert.equal(goodbye.data.code, 'SESSION_ERROR');
  assert.match(goodbye.data.message ?? '', /not used/);
  assert.equal(await client.closed, 1008);
  const { id } = (await post(`${idle.url}/create`)).json;
  await until('the AgentGym session is ended', () => idle.counts().active === 0);
  assert.equal((await post(`${idle.url}/reset`, { id, game: 0, world_type: 'Text' })).json.error, `The id ${id} is not valid.`);
  assert.equal(idle.counts().ended.idle, 2);

  const total = await serve({ sessionTimeoutMs: 150 });
  const busy = await OpenEnvClient.connect(total.url);
  let answer = await busy.reset();
  while (answer.type !== 'error') answer = await busy.ask({ type: 'state' });
  assert.match(answer.data.message ?? '', /older than this server allows/);
  assert.deepEqual(total.counts().ended, { closed: 0, dropped: 0, idle: 0, 'too old': 1, shutdown: 0 });
});

test('a client that does not read is not listened to any more, others are served, and nothing is lost when it reads again', async () => {
  let opens = 0;
  const server = await serve({}, { ...tasks, open: (task) => (opens++, tasks.open(task)) });
  const socket = new Socket(`${server.url.replace('http', 'ws')}/ws`);
  await once(socket, 'open', soon());
  socket.pause();
  // Answers name the keys that were ignored: 100 KB each. All kernels on the way hold some 10 MB.
  const asked = 400;
  const padding = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`${'x'.repeat(1000)}${i}`, 0]));
  for (let index = 0; index < asked; index++)
    socket.send(JSON.stringify({ type: 'reset', data: { ...padding, index: index % TASKS_PER_SPLIT } }));
  let [before, same] = [-1, 0];
  await until('the server stops listening', () => {
    same = opens === before && opens > 0 ? same + 1 : 0;
    before = opens;
    return same >= 20;
  });
  assert.ok(opens < asked, `${opens} of ${asked} were answered unread`);
  const other = await OpenEnvClient.connect(server.url);
  assert.equal((await other.reset()).type, 'observation');
  await other.close();
  const got: number[] = [];
  socket.on('message', (data: Buffer) => got.push((JSON.parse(String(data)) as any).data.observation.task.index));
  socket.resume();
  await until('all answers have come', () => got.length === asked);
  assert.deepEqual(
    got,
    Array.from({ length: asked }, (_, i) => i % TASKS_PER_SPLIT),
  );
  socket.terminate();
  await until('no session is left', () => server.counts().active === 0);
});

test('a message beyond the limit ends that connection only', async () => {
  const server = await serve();
  const [large, small] = await Promise.all([OpenEnvClient.connect(server.url), OpenEnvClient.connect(server.url)]);
  large.send('x'.repeat(2 ** 20 + 1));
  // RFC 6455, 7.4.1: 1009 is "too big".
  assert.equal(await large.closed, 1009);
  assert.equal((await small.reset()).type, 'observation');
  await until('its session is gone', () => server.counts().active === 1);
  await small.close();
});

test('handshakes that are none, and bytes that are no HTTP, harm nobody', async () => {
  const server = await serve();
  const port = Number(new URL(server.url).port);
  const requests = [
    'GET // HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n',
    'GET /other HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n',
    'GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 99\r\nSec-WebSocket-Key: no\r\n\r\n',
    'nonsense\r\n\r\n',
  ];
  for (const [i, request] of requests.entries()) {
    const socket = connect(port, '127.0.0.1');
    const chunks: Buffer[] = [];
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.end(request);
    await once(socket, 'close', soon());
    assert.match(Buffer.concat(chunks).toString(), i < 2 ? /^HTTP\/1\.1 404 / : /^HTTP\/1\.1 400 /, request.slice(0, 20));
  }
  assert.equal((await get(`${server.url}/health`)).json.status, 'healthy');
});
