/** OpenEnv over the wire: whole episodes, the choice of tasks, and every kind of malformed message. Expected values come from the same games played in this process. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { get, OpenEnvClient, post, serve, servers, TASKS_PER_SPLIT, tasks, world, type Answer } from './client.ts';

after(() => Promise.all(servers.map((server) => server.close())));
const { url } = await serve();

const taskOf = (split: string, index: number) => {
  const task = tasks.splits.find(({ name }) => name === split)?.tasks[index];
  assert.ok(task);
  return task;
};

/** What the wire must say of a game that is played here too. */
function assertSame(answer: Answer, game: ReturnType<typeof world.open>, reward: number | null): void {
  assert.equal(answer.type, 'observation', JSON.stringify(answer.data));
  const { observation, reward: got, done } = answer.data;
  assert.equal(observation?.['text'], game.observation);
  assert.deepEqual(observation?.['admissible_commands'], game.admissible);
  assert.equal(observation?.['turn'], game.turn);
  assert.equal(observation?.['won'], game.outcome === 1);
  assert.equal(got, reward);
  assert.equal(done, game.done);
}

test('whole episodes of every family, step by step the same as in this process', async () => {
  const client = await OpenEnvClient.connect(url);
  let won = 0;
  for (let index = 0; index < TASKS_PER_SPLIT; index++) {
    const task = taskOf('unseen', index);
    const game = world.open(task.id);
    const expert = world.expert(task.id);
    const start = await client.reset({ split: 'unseen', index });
    assertSame(start, game, null);
    assert.deepEqual(start.data.observation?.['task'], { id: task.id, split: 'unseen', index, sha256: task.sha256 });
    while (!game.done) {
      const command = expert.act(game) ?? 'look';
      game.step(command);
      assertSame(await client.step(command), game, game.outcome);
    }
    won += game.outcome;
    const state = await client.ask({ type: 'state' });
    assert.equal(state.data['step_count'], game.turn);
    assert.equal(state.data['done'], true);
    const more = await client.step('look');
    assert.equal(more.data.code, 'EXECUTION_ERROR');
    assert.match(more.data.message ?? '', /the episode is done/);
  }
  assert.ok(won > 0 && won >= TASKS_PER_SPLIT - 2, `the expert won ${won}`);
  assert.equal(await client.close(), 1000);
});

test('a cap that is reached is told apart from a win', async () => {
  const client = await OpenEnvClient.connect(url);
  await client.reset();
  let answer = await client.step('no such command');
  assert.equal(answer.data.observation?.['text'], 'Nothing happens.');
  while (!answer.data.done) answer = await client.step('look');
  assert.equal(answer.data.observation?.['turn'], 30);
  assert.equal(answer.data.observation?.['truncated'], true);
  assert.equal(answer.data.observation?.['won'], false);
  assert.equal(answer.data.reward, 0);
  await client.close();
});

test('tasks are chosen by split and index, by id, by seed, or one after the other', async () => {
  const client = await OpenEnvClient.connect(url);
  const opened = async (data: object): Promise<any> => {
    const answer = await client.reset(data);
    assert.equal(answer.type, 'observation', JSON.stringify(answer));
    return answer.data.observation?.['task'];
  };
  assert.deepEqual([(await opened({})).index, (await opened({})).index, (await opened({ split: 'seen' })).index], [0, 1, 2]);
  assert.equal((await opened({ task_id: taskOf('seen', 5).id })).index, 5);
  const drawn: string[] = [];
  for (let seed = 1; seed <= 8; seed++) drawn.push((await opened({ seed, split: 'seen' })).id);
  const other = await OpenEnvClient.connect(url);
  const again = (await other.reset({ seed: 3, split: 'seen' })).data.observation?.['task'] as { id: string };
  assert.equal(again.id, drawn[2]);
  assert.ok(new Set(drawn).size > 3, 'seeds draw different tasks');
  await other.close();

  const answer = await client.reset({ split: 'train', index: 1, seed: 9, episode_id: 'mine', prompt: 'x', extra: null });
  assert.deepEqual(answer.data['metadata'], { episode_id: 'mine', ignored: ['prompt', 'extra'] });
  const { data } = await client.ask({ type: 'state' });
  assert.equal(data['episode_id'], 'mine');
  assert.equal(data['seed'], 9);
  // What a Python client sends for arguments that were not given.
  assert.equal((await client.reset({ seed: null, episode_id: null, split: null })).type, 'observation');
  await client.close();
});

test('malformed input of every kind gets its error, and the episode goes on untouched', async () => {
  const client = await OpenEnvClient.connect(url);
  assert.equal((await client.step('look')).data.code, 'EXECUTION_ERROR', 'a step before the first reset is no sample of reward 0');
  await client.reset({ split: 'seen', index: 0 });
  await client.step('look');
  const before = await client.ask({ type: 'state' });
  const bad: [frame: unknown, code: string][] = [
    ['', 'INVALID_JSON'],
    ['{', 'INVALID_JSON'],
    ['{"type": "reset", }', 'INVALID_JSON'],
    ['\u0000', 'INVALID_JSON'],
    ['['.repeat(100_000), 'INVALID_JSON'],
    ['null', 'VALIDATION_ERROR'],
    ['[]', 'VALIDATION_ERROR'],
    ['"reset"', 'VALIDATION_ERROR'],
    ['7', 'VALIDATION_ERROR'],
    ['{}', 'UNKNOWN_TYPE'],
    [{ type: 'Reset' }, 'UNKNOWN_TYPE'],
    [{ type: 5 }, 'UNKNOWN_TYPE'],
    [{ type: 'constructor' }, 'UNKNOWN_TYPE'],
    [{ type: '__proto__' }, 'UNKNOWN_TYPE'],
    [{ type: 'step' }, 'VALIDATION_ERROR'],
    [{ type: 'step', data: 'look' }, 'VALIDATION_ERROR'],
    [{ type: 'step', data: {} }, 'VALIDATION_ERROR'],
    [{ type: 'step', data: { command: 1 } }, 'VALIDATION_ERROR'],
    [{ type: 'step', data: { command: 'look', extra: 1 } }, 'VALIDATION_ERROR'],
    [{ type: 'step', data: { command: 'x'.repeat(5000) } }, 'VALIDATION_ERROR'],
    [{ type: 'step', data: { command: 'look' }, more: 1 }, 'VALIDATION_ERROR'],
    [{ type: 'state', data: {} }, 'VALIDATION_ERROR'],
    [{ type: 'reset', data: [] }, 'VALIDATION_ERROR'],
    [{ type: 'reset', data: { seed: -1 } }, 'VALIDATION_ERROR'],
    [{ type: 'reset', data: { seed: 0.5 } }, 'VALIDATION_ERROR'],
    [{ type: 'reset', data: { seed: 'one' } }, 'VALIDATION_ERROR'],
    [{ type: 'reset', data: { episode_id: 'x'.repeat(256) } }, 'VALIDATION_ERROR'],
    [{ type: 'reset', data: { index: TASKS_PER_SPLIT } }, 'VALIDATION_ERROR'],
    [{ type: 'reset', data: { index: -1 } }, 'VALIDATION_ERROR'],
    [{ type: 'reset', data: { split: 'tset' } }, 'VALIDATION_ERROR'],
    [{ type: 'reset', data: { task_id: 'nothing' } }, 'VALIDATION_ERROR'],
    [{ type: 'reset', data: { task_id: taskOf('seen', 1).id, index: 2 } }, 'VALIDATION_ERROR'],
  ];
  for (const [frame, code] of bad) {
    const answer = await client.ask(frame);
    assert.equal(answer.type, 'error', JSON.stringify(frame).slice(0, 100));
    assert.equal(answer.data.code, code, JSON.stringify(frame).slice(0, 100));
    assert.ok((answer.data.message ?? '') !== '');
    if (code === 'VALIDATION_ERROR') assert.ok(Array.isArray(answer.data['errors']) && answer.data['errors'].length > 0);
    assert.ok(JSON.stringify(answer).length < 4000, 'an error does not send back what was sent');
  }
  client.send(new Uint8Array([1, 2, 3]));
  assert.equal((await client.next()).data.code, 'INVALID_JSON');
  assert.deepEqual(await client.ask({ type: 'state' }), before);
  assert.equal((await client.step('inventory')).data.observation?.['turn'], 2);
  await client.close();
});

test('mcp messages are answered as JSON-RPC, on every route', async () => {
  const list = { jsonrpc: '2.0', id: 7, method: 'tools/list', params: {} };
  const listed = { jsonrpc: '2.0', id: 7, result: { tools: [] } };
  const client = await OpenEnvClient.connect(url);
  assert.deepEqual(await client.ask({ type: 'mcp', data: list }), { type: 'mcp', data: listed });
  const errorCode = async (data: unknown) => ((await client.ask({ type: 'mcp', data })).data as any).error.code;
  // JSON-RPC 2.0, section 5.1.
  assert.equal(await errorCode({ ...list, method: 'no/such' }), -32601);
  assert.equal(await errorCode({ ...list, method: 'tools/call', params: { name: 'x' } }), -32602);
  assert.equal(await errorCode({ method: 'tools/list' }), -32600);
  await client.close();
  const rpc = await OpenEnvClient.connect(url, '/mcp');
  assert.deepEqual(await rpc.ask(list), listed);
  assert.equal(((await rpc.ask('{')) as any).error.code, -32700);
  rpc.send(JSON.stringify(list));
  await rpc.next();
  assert.deepEqual((await post(`${url}/mcp`, list)).json, listed);
  assert.equal((await post(`${url}/mcp`, '{')).json.error.code, -32700);
});

test('the plain routes: descriptions, schemas, stateless reset and step', async () => {
  assert.deepEqual((await get(`${url}/health`)).json, { status: 'healthy' });
  const { name, description, version } = (await get(`${url}/metadata`)).json;
  assert.deepEqual([name, version], ['household', 'test']);
  assert.match(description, /generated/);
  const schema = (await get(`${url}/schema`)).json;
  assert.deepEqual(schema.action.required, ['command']);
  for (const part of ['observation', 'reset_observation', 'state']) assert.equal(schema[part].type, 'object');
  const reset = (await post(`${url}/reset`, { split: 'seen', index: 4 })).json;
  assert.equal(reset.observation.task.sha256, taskOf('seen', 4).sha256);
  assert.deepEqual(Object.keys(reset.observation).sort(), Object.keys(schema.observation.properties).sort());
  assert.equal((await post(`${url}/reset`)).json.observation.task.index, 0);
  const step = (await post(`${url}/step`, { action: { command: 'look' }, split: 'seen', index: 4 })).json;
  assert.deepEqual([step.observation.turn, step.reward, step.observation.task.index], [1, 0, 4]);
  const bad = await post(`${url}/step`, { action: { order: 'look' } });
  assert.equal(bad.status, 422);
  assert.ok(bad.json.detail.length > 0);
  assert.equal((await post(`${url}/reset`, '{')).status, 422);
  assert.equal((await post(`${url}/reset`, { index: 99 })).status, 422);
  assert.equal((await post(`${url}/reset`, 'x'.repeat(2 ** 21))).status, 413);
  assert.equal((await get(`${url}/nothing`)).status, 404);
});

test('the Task API lists what reset opens', async () => {
  assert.deepEqual((await get(`${url}/list_environments`)).json, ['household']);
  assert.deepEqual((await get(`${url}/household/splits`)).json, [
    { name: 'train', type: 'train' },
    { name: 'validation', type: 'validation' },
    { name: 'seen', type: 'test' },
    { name: 'unseen', type: 'test' },
  ]);
  const api = `${url}/Household`;
  assert.deepEqual((await post(`${api}/num_tasks`, { split: 'seen' })).json, { num_tasks: TASKS_PER_SPLIT });
  const all = (await post(`${api}/tasks`, { split: 'seen' })).json;
  assert.equal(all.env_name, 'household');
  assert.equal(all.tasks.length, TASKS_PER_SPLIT);
  assert.deepEqual(all.tasks[3], { ...taskOf('seen', 3), split: 'seen', index: 3 });
  assert.deepEqual((await post(`${api}/task`, { split: 'seen', index: 3 })).json.task, all.tasks[3]);
  // A Python slice.
  assert.deepEqual((await post(`${api}/task_range`, { split: 'seen', start: -3, stop: -1 })).json.tasks, all.tasks.slice(-3, -1));
  assert.deepEqual((await post(`${api}/task_range`, { split: 'seen', stop: null })).json.tasks, all.tasks);
  assert.equal((await post(`${api}/task`, { split: 'seen', index: TASKS_PER_SPLIT })).status, 400);
  assert.equal((await post(`${api}/tasks`, { split: 'nothing' })).status, 404);
  assert.equal((await post(`${url}/other/tasks`, { split: 'seen' })).status, 404);
  assert.equal((await post(`${api}/tasks`, {})).status, 422);
});
