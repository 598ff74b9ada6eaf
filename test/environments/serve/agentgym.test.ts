/** AgentGym's ALFWorld routes, asked as its client asks them (agentenv/envs/alfworld.py): create, reset, step with JSON bodies, the rest with `?id=`. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { get, post, serve, servers, TASKS_PER_SPLIT, tasks, world } from './client.ts';

after(() => Promise.all(servers.map((server) => server.close())));
const { url, counts } = await serve({ maxSessions: 2 });

test('whole episodes, step by step the same as in this process', async () => {
  const { id } = (await post(`${url}/create`)).json;
  assert.equal(id, 0);
  for (const game of [0, 1, 2 * TASKS_PER_SPLIT + 3]) {
    const split = tasks.splits[Math.floor(game / TASKS_PER_SPLIT)];
    const task = split?.tasks[game % TASKS_PER_SPLIT];
    assert.ok(task);
    const here = world.open(task.id);
    const expert = world.expert(task.id);
    const start: unknown = (await post(`${url}/reset`, { id, game, world_type: 'Text' })).json;
    assert.deepEqual(start, {
      id,
      observation: here.observation.replaceAll('\n\n', '\n'),
      available_actions: here.admissible,
      task_type: task.id.split('/').slice(1).join('/'),
    });
    while (!here.done) {
      const action = expert.act(here) ?? 'look';
      here.step(action);
      const answer: unknown = (await post(`${url}/step`, { id, action })).json;
      assert.deepEqual(answer, {
        observation: here.observation,
        reward: here.outcome,
        available_actions: here.admissible,
        done: here.done,
      });
    }
    assert.equal((await get(`${url}/observation?id=${id}`)).json, here.observation);
    assert.deepEqual((await get(`${url}/available_actions?id=${id}`)).json, []);
    const detail: { done: boolean; task: { sha256: string }; turn: number } = (await get(`${url}/detail?id=${id}`)).json;
    assert.deepEqual([detail.done, detail.task.sha256, detail.turn], [true, task.sha256, here.turn]);
    const over = await post(`${url}/step`, { id, action: 'look' });
    assert.deepEqual([over.status, Object.keys(over.json)], [200, ['error']]);
  }
  assert.deepEqual((await post(`${url}/close`, { id })).json, { id, closed: true });
  assert.equal(counts().active, 0);
});

test('mistakes are told as errors in answers of status 200, and change nothing', async () => {
  const { id } = (await post(`${url}/create`)).json;
  const refusals = [
    await post(`${url}/step`, { id, action: 'look' }),
    await get(`${url}/observation?id=${id}`),
    await post(`${url}/reset`, { id, game: 4 * TASKS_PER_SPLIT, world_type: 'Text' }),
    await post(`${url}/reset`, { id, game: -1, world_type: 'Text' }),
    await post(`${url}/reset`, { id, game: 0, world_type: 'Video' }),
    await post(`${url}/step`, { id: 77, action: 'look' }),
    await get(`${url}/detail?id=77`),
    await post(`${url}/close`, { id: 77 }),
  ];
  for (const { status, json } of refusals) assert.deepEqual([status, typeof json.error], [200, 'string'], JSON.stringify(json));
  for (const wrong of [{ id, game: 'one', world_type: 'Text' }, { id: 'x', game: 0, world_type: 'Text' }, { id }])
    assert.equal((await post(`${url}/reset`, wrong)).status, 422);
  assert.equal((await get(`${url}/detail?id=x`)).status, 422);
  assert.equal((await post(`${url}/reset`, { id, game: 0, world_type: 'Text' })).json.id, id);
  const second = (await post(`${url}/create`)).json;
  const full = await post(`${url}/create`);
  assert.equal(full.status, 503);
  assert.match(full.json.error, /all 2 sessions of this server are taken/);
  for (const each of [id, second.id]) await post(`${url}/close`, { id: each });
  assert.equal(counts().active, 0);
});

test('the banner and the names of places of genuine games are not shown', async () => {
  const texts = [
    '-= Welcome to TextWorld, ALFRED! =-\n\nYou are in a room.\n\nYour task is to: look.',
    'You arrive at loc 15. On the desk 1, you see nothing.',
  ];
  const environment = {
    ...world.open(tasks.splits[0]?.tasks[0]?.id ?? ''),
    instruction: '',
    admissible: ['look'],
    done: false,
    outcome: 0 as const,
  };
  const game = {
    ...environment,
    observation: texts[0] as string,
    turn: 0,
    step: () => undefined,
    snapshot: () => ({}),
    restore: () => undefined,
  };
  game.step = () => void Object.assign(game, { observation: texts[1], turn: 1 });
  const genuine = await serve({}, { ...tasks, open: () => game });
  const { id } = (await post(`${genuine.url}/create`)).json;
  // agentenv_alfworld/env_wrapper.py: "\n".join(ob.split("\n\n")[1:]); utils.py: process_ob.
  assert.equal(
    (await post(`${genuine.url}/reset`, { id, game: 0, world_type: 'Text' })).json.observation,
    'You are in a room.\nYour task is to: look.',
  );
  assert.equal((await post(`${genuine.url}/step`, { id, action: 'go to desk 1' })).json.observation, 'On the desk 1, you see nothing.');
});
