/** A server through the official `openai` client: what it answers against what the models give when they are asked directly. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { after, test } from 'node:test';
import OpenAI, { APIError, AuthenticationError, BadRequestError, NotFoundError, RateLimitError } from 'openai';
import { createDecoder } from '../../learning/decoder.ts';
import { generate } from '../../learning/generate.ts';
import { createReader } from '../../learning/reader.ts';
import { startServer, type ServeOptions } from '../../learning/serve/server.ts';
import { CONTEXT, servedModels } from './models.ts';

const { policy, rewardModel } = servedModels();
const { tokenizer } = policy;
const KEY = 'secret';
const OPTIONS: ServeOptions = {
  policy: policy.folder,
  rewardModel: rewardModel.folder,
  host: '127.0.0.1',
  port: 0,
  apiKey: KEY,
  rows: 8,
  queue: 200,
  lanes: 1,
  onLine: () => {},
};
const server = await startServer(OPTIONS);
const clientOf = (url: string, apiKey = KEY) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const client = clientOf(server.url);
const decoder = await createDecoder(policy.model, { rows: 8, context: CONTEXT });
const reader = await createReader(rewardModel.model, { lanes: 1 });
after(async () => {
  await Promise.all([server.stop(), decoder.close(), reader.close()]);
  for (const { folder } of [policy, rewardModel]) rmSync(dirname(folder), { recursive: true });
});

/** The continuation that the model itself gives, greedily. */
async function direct(prompt: number[], maxTokens: number, top = 0, choices?: number[][]) {
  const request = {
    prompt,
    samples: 1,
    key: ['direct'],
    sampling: { temperature: 0 },
    maxTokens,
    stopIds: [tokenizer.endId!],
    stopTexts: [],
    topLogProbabilities: top,
    promptLogProbabilities: true,
    ...(choices ? { choices } : {}),
  };
  const [result] = await generate(decoder, [request], { context: CONTEXT, decode: (ids) => tokenizer.decode(ids) });
  return { ...result!.samples[0]!, result: result! };
}
const scoreOf = async (ids: number[]) => {
  const [[logit]] = (await reader.scores([
    { trees: [{ ids, parents: ids.map((_, i) => i - 1) }], reads: [{ tree: 0, node: ids.length - 1 }] },
  ])) as [Float32Array];
  return 1 / (1 + Math.exp(-logit!));
};
/** Two ways through float32 kernels of other shapes. */
const close = (found: number | null | undefined, expected: number, what: string) =>
  assert.ok(typeof found === 'number' && Math.abs(found - expected) < 1e-4, `${what}: ${found}, expected ${expected}`);

const nameOf = (id: number) => {
  const text = tokenizer.decode([id], { special: true });
  if (!text.includes('\uFFFD')) return text;
  return `bytes:${tokenizer
    .bytes(id)
    .map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`)
    .join('')}`;
};

/** vLLM's additions to the answers. */
interface Additions {
  token_ids?: number[];
  prompt_token_ids?: number[];
  stop_reason?: string | number | null;
  choice_logprobs?: (number | null)[];
}
/** Fields that the client's types do not know. */
const extra = (fields: object): object => fields;
const vllm = (choice: object) => choice as Additions;
const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
  fetch(server.url + path, {
    method: 'POST',
    headers: { authorization: `Bearer ${KEY}`, ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });

test('the models are listed', async () => {
  const listed = (await client.models.list()).data;
  assert.deepEqual(
    listed.map(({ id, object, owned_by }) => [id, object, owned_by]),
    [
      ['policy', 'model', 'ratchet'],
      ['prm', 'model', 'ratchet'],
    ],
  );
  assert.equal((await client.models.retrieve('policy')).id, 'policy');
  await assert.rejects(client.models.retrieve('other'), NotFoundError);
});

test('a completion: text, token ids, log-probabilities of prompt and continuation, counts', async () => {
  const prompt = 'go to the cabinet';
  const ids = tokenizer.encode(prompt);
  const expected = await direct(ids, 12, 3);
  const answer = await client.completions.create({
    model: 'policy',
    prompt,
    max_tokens: 12,
    temperature: 0,
    logprobs: 3,
    echo: true,
    ...extra({ return_token_ids: true }),
  });
  const [choice] = answer.choices;
  assert.equal(choice!.text, prompt + expected.text);
  assert.deepEqual(
    vllm(choice!).token_ids,
    expected.tokens.map(({ id }) => id),
  );
  assert.deepEqual(vllm(choice!).prompt_token_ids, ids);
  const { tokens, token_logprobs, top_logprobs, text_offset } = choice!.logprobs!;
  const all = [...ids, ...expected.tokens.map(({ id }) => id)];
  const texts = all.map((id) => tokenizer.decode([id], { special: true }));
  // A token that is part of a character is named by its bytes.
  assert.deepEqual(tokens, all.map(nameOf));
  assert.deepEqual(
    text_offset,
    texts.map((_, i) => texts.slice(0, i).join('').length),
  );
  assert.equal(token_logprobs![0], null);
  const values = [...expected.result.promptLogProbabilities!, ...expected.tokens.map(({ logProbability }) => logProbability)];
  values.slice(1).forEach((value, i) => close(token_logprobs![i + 1], value!, `log-probability ${i + 1}`));
  assert.deepEqual(
    top_logprobs!.slice(0, ids.length),
    ids.map(() => null),
  );
  const best = expected.tokens[0]!.top;
  assert.deepEqual(Object.keys(top_logprobs![ids.length]!).sort(), best.map(({ id }) => nameOf(id)).sort());
  const generated = expected.tokens.length;
  assert.deepEqual(answer.usage, {
    prompt_tokens: ids.length,
    completion_tokens: generated,
    total_tokens: ids.length + generated,
    prompt_tokens_details: { cached_tokens: 0 },
  });
  assert.match(answer.system_fingerprint!, /^fp_[0-9a-f]{12}$/);
});

test('prompts as lists of texts and of token ids, several samples of each, in order; the same seed gives the same texts', async () => {
  const prompts = ['the mug', 'a plate and'];
  const ask = (prompt: string[] | number[][], seed: number) =>
    client.completions.create({ model: 'policy', prompt, max_tokens: 8, n: 3, seed, temperature: 1, top_p: 0.95, ...extra({ top_k: 50 }) });
  const [one, two, other] = [
    await ask(prompts, 7),
    await ask(
      prompts.map((text) => tokenizer.encode(text)),
      7,
    ),
    await ask(prompts, 8),
  ];
  const textsOf = ({ choices }: OpenAI.Completion) => choices.map(({ text }) => text);
  assert.deepEqual(
    one.choices.map(({ index }) => index),
    [0, 1, 2, 3, 4, 5],
  );
  assert.deepEqual(textsOf(two), textsOf(one));
  assert.notDeepEqual(textsOf(other), textsOf(one));
  assert.equal(new Set(textsOf(one)).size, 6);
  const tokens = prompts.map((text) => tokenizer.encode(text).length).reduce((a, b) => a + b);
  assert.equal(one.usage!.prompt_tokens, tokens);
});

test('a chat: the template is applied, and a stream tells the same as the whole answer', async () => {
  const messages = [
    { role: 'system' as const, content: 'You are in a room.' },
    { role: 'user' as const, content: [{ type: 'text' as const, text: 'take the mug' }] },
  ];
  const ids = tokenizer.encode('system: You are in a room.\nuser: take the mug\nassistant:');
  const expected = await direct(ids, 15, 2);
  const body = {
    model: 'policy',
    messages,
    max_completion_tokens: 15,
    temperature: 0,
    logprobs: true,
    top_logprobs: 2,
    return_token_ids: true,
  };
  const whole = await client.chat.completions.create(body);
  const [choice] = whole.choices;
  assert.deepEqual(choice!.message, { role: 'assistant', content: expected.text, refusal: null });
  assert.equal(choice!.finish_reason, expected.finish);
  assert.deepEqual(vllm(whole).prompt_token_ids, ids);
  const logprobs = choice!.logprobs!.content!;
  assert.equal(logprobs.length, expected.tokens.length);
  expected.tokens.forEach(({ id, logProbability, top }, i) => {
    close(logprobs[i]!.logprob, logProbability, `token ${i}`);
    assert.deepEqual(logprobs[i]!.bytes, tokenizer.bytes(id));
    assert.equal(logprobs[i]!.top_logprobs.length, top.length);
  });

  const stream = await client.chat.completions.create({ ...body, stream: true, stream_options: { include_usage: true } });
  const [told, streamed, ids2]: [string[], number[], number[]] = [[], [], []];
  const parts: OpenAI.ChatCompletionChunk[] = [];
  for await (const part of stream) {
    parts.push(part);
    for (const { delta, logprobs: some, ...more } of part.choices) {
      told.push(delta.content ?? '');
      streamed.push(...(some?.content ?? []).map(({ logprob }) => logprob));
      ids2.push(...(vllm(more).token_ids ?? []));
    }
  }
  assert.deepEqual(parts[0]!.choices[0]!.delta, { role: 'assistant', content: '' });
  assert.equal(told.join(''), expected.text);
  assert.ok(parts.length > 5, 'told as it comes');
  assert.deepEqual(
    ids2,
    expected.tokens.map(({ id }) => id),
  );
  streamed.forEach((value, i) => close(value, expected.tokens[i]!.logProbability, `streamed ${i}`));
  assert.deepEqual(
    parts.slice(-2).map(({ choices, usage }) => [choices[0]?.finish_reason, usage]),
    [
      [expected.finish, undefined],
      [undefined, { ...whole.usage, prompt_tokens_details: { cached_tokens: ids.length - 1 } }],
    ],
  );
});

test('a conversation that goes on is read from where it ended', async () => {
  const first = await client.completions.create({
    model: 'policy',
    prompt: [9, 8, 7, 6, 5],
    max_tokens: 6,
    temperature: 0,
    ...extra({ return_token_ids: true }),
  });
  const history = [9, 8, 7, 6, 5, ...vllm(first.choices[0]!).token_ids!, 4, 3];
  const second = await client.completions.create({ model: 'policy', prompt: history, max_tokens: 5, temperature: 0 });
  // All but what was said last, which had not been read yet.
  assert.equal(second.usage!.prompt_tokens_details!.cached_tokens, history.length - 3);
  assert.equal(second.choices[0]!.text, (await direct(history, 5)).text);
});

test('several samples in one stream, each with its own end', async () => {
  const ask = { model: 'policy', prompt: 'the', max_tokens: 6, n: 4, seed: 3 };
  const whole = await client.completions.create(ask);
  const texts = ['', '', '', ''];
  const ends: string[] = [];
  for await (const { choices } of await client.completions.create({ ...ask, stream: true })) {
    for (const { index, text, finish_reason } of choices) {
      texts[index] += text;
      if (finish_reason) ends[index] = finish_reason;
    }
  }
  assert.deepEqual(
    texts,
    whole.choices.map(({ text }) => text),
  );
  assert.deepEqual(
    ends,
    whole.choices.map(({ finish_reason }) => finish_reason),
  );
});

test('stop strings end a text before them, in whole answers and in streams; stop tokens too; the reason is told', async () => {
  const prompt = 'go to the cabinet';
  const free = await direct(tokenizer.encode(prompt), 30);
  const stop = free.text.slice(9, 12);
  const text = free.text.slice(0, free.text.indexOf(stop));
  const ask = { model: 'policy', prompt, max_tokens: 30, temperature: 0 };
  const [choice] = (await client.completions.create({ ...ask, stop: ['never', stop] })).choices;
  assert.deepEqual([choice!.text, choice!.finish_reason, vllm(choice!).stop_reason], [text, 'stop', stop]);
  let told = '';
  for await (const { choices } of await client.completions.create({ ...ask, stop, stream: true })) told += choices[0]!.text;
  assert.equal(told, text);
  const id = free.tokens[3]!.id;
  const [byId] = (await client.completions.create({ ...ask, ...extra({ stop_token_ids: [id] }) })).choices;
  assert.deepEqual([vllm(byId!).stop_reason, byId!.finish_reason], [id, 'stop']);
});

test('choices: the answer is one of them, and the probabilities of all are exact', async () => {
  const choices = ['go to cabinet 1', 'go to cabinet 12', 'take mug', 'look'];
  const messages = [{ role: 'user' as const, content: 'what now?' }];
  const ids = tokenizer.encode('user: what now?\nassistant:');
  const expected = await direct(
    ids,
    0,
    0,
    choices.map((choice) => tokenizer.encode(choice)),
  );
  const ask = { model: 'policy', messages, n: 5, seed: 1, logprobs: true };
  const answer = await client.chat.completions.create({ ...ask, ...extra({ structured_outputs: { choice: choices } }) });
  for (const { message, finish_reason } of answer.choices) assert.ok(choices.includes(message.content!) && finish_reason === 'stop');
  const found = vllm(answer.choices[0]!).choice_logprobs!;
  found.forEach((value, i) => close(value, expected.result.choiceLogProbabilities![i]!, choices[i]!));
  close(
    found.reduce<number>((sum, value) => sum + Math.exp(value!), 0),
    1,
    'sum',
  );
  // "cabinet 1" begins "cabinet 12": the end of the text decides, and is one of the tokens that are told.
  const chosen = answer.choices[0]!;
  const sum = chosen.logprobs!.content!.reduce((total, { logprob }) => total + logprob, 0);
  close(sum, found[choices.indexOf(chosen.message.content!)]!, 'tokens');
  const greedy = await client.completions.create({ model: 'policy', prompt: ids, temperature: 0, ...extra({ guided_choice: choices }) });
  assert.equal(greedy.choices[0]!.text, choices[expected.choice!]);
  let told = '';
  const stream = await client.completions.create({
    model: 'policy',
    prompt: ids,
    temperature: 0,
    stream: true,
    ...extra({ guided_choice: choices }),
  });
  for await (const part of stream) told += part.choices[0]!.text;
  assert.equal(told, choices[expected.choice!]);
});

test('the reward model: /classify and /score in the shapes of vLLM, with the numbers of the model', async () => {
  const texts = ['take the mug', 'the plate is in the sink and you see it'];
  interface Scored {
    object: string;
    model: string;
    data: { index: number; label?: string; probs?: number[]; num_classes?: number; score?: number; object?: string }[];
    usage: object;
  }
  const classified = (await (await post('/classify', { model: 'prm', input: texts })).json()) as Scored;
  assert.deepEqual([classified.object, classified.model], ['list', 'prm']);
  for (const [i, text] of texts.entries()) {
    const { index, label, probs, num_classes } = classified.data[i]!;
    assert.deepEqual([index, label, num_classes, probs!.length], [i, 'LABEL_0', 1, 1]);
    close(probs![0], await scoreOf(tokenizer.encode(text)), text);
  }
  const tokens = texts.map((text) => tokenizer.encode(text).length).reduce((a, b) => a + b);
  assert.deepEqual(classified.usage, { prompt_tokens: tokens, total_tokens: tokens, completion_tokens: 0 });

  // One text with 60 others: read on one copy of it, in as many trees as that takes.
  const many = Array.from({ length: 60 }, (_, i) => ` take mug ${i} and look at plate ${i * 7}`);
  const scored = (await (await post('/score', { text_1: 'you see a mug', text_2: many })).json()) as Scored;
  assert.equal(scored.data.length, 60);
  for (const i of [0, 1, 30, 59]) {
    const pair = tokenizer.encodePair('you see a mug', many[i]!);
    assert.deepEqual([scored.data[i]!.index, scored.data[i]!.object], [i, 'score']);
    close(scored.data[i]!.score, await scoreOf(pair), many[i]!);
  }
  const each = (await (await post('/v1/score', { text_1: ['a', 'the sink'], text_2: ['b', 'c'] })).json()) as Scored;
  close(each.data[1]!.score, await scoreOf(tokenizer.encodePair('the sink', 'c')), 'pair by pair');
  const uneven = await post('/score', { text_1: ['a', 'b'], text_2: ['c'] });
  assert.deepEqual([uneven.status, ((await uneven.json()) as { error: { param: string } }).error.param], [400, 'text_1']);
});

test('whatever is wrong is told in the shape that OpenAI gives it, before anything is generated', async () => {
  const good = { model: 'policy', prompt: 'a' };
  const chat = { model: 'policy', messages: [{ role: 'user', content: 'a' }] };
  const cases: [string, unknown, number, string | null, string | null][] = [
    ['/v1/completions', '{"prompt": ', 400, null, 'invalid_json'],
    ['/v1/completions', '[]', 400, null, 'invalid_json'],
    ['/v1/completions', {}, 400, 'prompt', 'invalid_value'],
    ['/v1/completions', { ...good, model: 'gpt' }, 404, 'model', 'model_not_found'],
    ['/v1/completions', { ...good, temprature: 1 }, 400, 'temprature', 'unknown_parameter'],
    ['/v1/completions', { ...good, temperature: 'hot' }, 400, 'temperature', 'invalid_value'],
    ['/v1/completions', { ...good, top_p: 0 }, 400, 'top_p', 'invalid_value'],
    ['/v1/completions', { ...good, n: 9 }, 400, 'n', 'invalid_value'],
    ['/v1/completions', { ...good, stop: '' }, 400, 'stop', 'invalid_value'],
    ['/v1/completions', { ...good, presence_penalty: 1 }, 400, 'presence_penalty', 'invalid_value'],
    ['/v1/completions', { ...good, prompt: [1, 320] }, 400, 'prompt', 'invalid_value'],
    ['/v1/completions', { ...good, prompt: '' }, 400, 'prompt', 'invalid_value'],
    ['/v1/completions', { ...good, max_tokens: CONTEXT }, 400, 'prompt', 'context_length_exceeded'],
    ['/v1/completions', { ...good, stream: true, max_tokens: CONTEXT }, 400, 'prompt', 'context_length_exceeded'],
    ['/v1/completions', { ...good, guided_choice: ['a', 'a'] }, 400, 'structured_outputs.choice', 'invalid_value'],
    ['/v1/chat/completions', { ...chat, messages: [] }, 400, 'messages', 'invalid_value'],
    ['/v1/chat/completions', { ...chat, messages: [{ role: 'nobody', content: 'a' }] }, 400, null, null],
    ['/v1/chat/completions', { ...chat, tools: [] }, 400, 'tools', 'unknown_parameter'],
    ['/v1/chat/completions', { ...chat, top_logprobs: 2 }, 400, 'top_logprobs', null],
    ['/v1/chat/completions', { ...chat, response_format: { type: 'json_object' } }, 400, 'response_format.type', 'invalid_value'],
    ['/classify', { input: [] }, 400, 'input', 'invalid_value'],
    ['/v1/nothing', good, 404, null, 'unknown_url'],
  ];
  for (const [path, body, status, param, code] of cases) {
    const answer = await post(path, body);
    const { error } = (await answer.json()) as { error: { message: string; type: string; param: string | null; code: string | null } };
    assert.deepEqual([answer.status, error.param, error.code], [status, param, code], `${path} ${JSON.stringify(body)}: ${error.message}`);
    assert.deepEqual([error.type, typeof error.message], ['invalid_request_error', 'string']);
  }
  const large = await post('/v1/completions', { ...good, prompt: 'a'.repeat(9 * 2 ** 20) });
  assert.deepEqual([large.status, ((await large.json()) as { error: { code: string } }).error.code], [413, 'request_too_large']);
  await assert.rejects(client.completions.create({ model: 'policy', prompt: 'a', top_p: 2 }), (error) => {
    return error instanceof BadRequestError && error.param === 'top_p' && error.type === 'invalid_request_error';
  });
  await assert.rejects(clientOf(server.url, 'guess').models.list(), AuthenticationError);
  assert.equal((await fetch(`${server.url}/classify`, { method: 'POST', body: '{}' })).status, 401);
  assert.equal((await fetch(`${server.url}/health`)).status, 200);
});

const metric = async (url: string, name: string) => {
  const text = await (await fetch(`${url}/metrics`)).text();
  const line = text.split('\n').find((each) => each.startsWith(`${name} `));
  return Number(line?.slice(name.length + 1));
};
/** Waits until a condition holds; fails after a bound that a busy machine keeps. */
async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!(await holds())) if (performance.now() > deadline) assert.fail(`not within 30 s: ${what}`);
}

test('64 clients at once for 3 s: every answer comes, and every one is right', async () => {
  const prompts = ['go to the', 'take', 'the mug is', 'you see a plate', 'clean it with', 'a pan and', 'in the sink', 'look'];
  const texts: string[] = [];
  for (const prompt of prompts) texts.push((await direct(tokenizer.encode(prompt), 10)).text);
  const deadline = performance.now() + 3_000;
  let [asked, answered] = [0, 0];
  const before = await metric(server.url, 'ratchet_engine_restarts');
  await Promise.all(
    Array.from({ length: 64 }, async (_, who) => {
      for (let turn = 0; turn === 0 || performance.now() < deadline; turn++) {
        const which = (who + turn) % prompts.length;
        const ask = { model: 'policy', prompt: prompts[which]!, max_tokens: 10, temperature: 0 };
        asked++;
        let text = '';
        if (who % 2 === 0) text = (await client.completions.create(ask)).choices[0]!.text;
        else for await (const { choices } of await client.completions.create({ ...ask, stream: true })) text += choices[0]!.text;
        assert.equal(text, texts[which]);
        answered++;
      }
    }),
  );
  assert.ok(asked >= 64);
  assert.equal(answered, asked);
  assert.equal(await metric(server.url, 'ratchet_sequences_in_flight'), 0);
  assert.equal(await metric(server.url, 'ratchet_engine_restarts'), before);
});

test('a client that goes away frees its place, in a stream and in a whole answer', async () => {
  const endless = { model: 'policy', prompt: 'go', max_tokens: CONTEXT - 2, n: 8, ...extra({ ignore_eos: true }) };
  const generated = () => metric(server.url, 'ratchet_tokens_total{kind="generated"}');
  const before = await generated();
  const leave = new AbortController();
  const stream = await client.completions.create({ ...endless, stream: true }, { signal: leave.signal });
  for await (const _ of stream) break;
  leave.abort();
  await until('the stream is cancelled', async () => (await metric(server.url, 'ratchet_sequences_in_flight')) === 0);
  const again = new AbortController();
  const whole = client.completions.create(endless, { signal: again.signal });
  const rejected = assert.rejects(whole, /aborted/i);
  await until('it runs', async () => (await metric(server.url, 'ratchet_sequences_in_flight')) === 8);
  again.abort();
  await rejected;
  await until('the answer is cancelled', async () => (await metric(server.url, 'ratchet_sequences_in_flight')) === 0);
  assert.ok((await generated()) - before < 2 * 8 * endless.max_tokens, 'it was not generated to the end');
});

test('more than may wait is refused with 429 and a time to come back; an engine that is killed fails its streams, and another takes over', async () => {
  const small = await startServer({ ...OPTIONS, rewardModel: undefined, rows: 2, queue: 1, apiKey: null, policyName: 'small' });
  try {
    const one = clientOf(small.url);
    const ask = { model: 'small', prompt: 'go', max_tokens: CONTEXT - 2, ...extra({ ignore_eos: true }), stream: true as const };
    const streams = [await one.completions.create({ ...ask, n: 2 }), one.completions.create(ask)];
    await until('three sequences', async () => (await metric(small.url, 'ratchet_sequences_in_flight')) === 3);
    await assert.rejects(one.completions.create(ask), (error) => {
      return error instanceof RateLimitError && error.code === 'rate_limit_exceeded' && error.headers.get('retry-after') === '1';
    });
    assert.equal((await fetch(`${small.url}/classify`, { method: 'POST', body: '{"input":"a"}' })).status, 404);

    process.kill(small.engine.pid!, 'SIGKILL');
    for (const stream of streams) {
      await assert.rejects(
        async () => {
          for await (const _ of await stream);
        },
        (error) => error instanceof APIError,
      );
    }
    await until('another engine', async () => (await fetch(`${small.url}/health`)).status === 200);
    assert.equal(await metric(small.url, 'ratchet_engine_restarts'), 1);
    assert.equal((await one.completions.create({ model: 'small', prompt: 'go', max_tokens: 3 })).choices.length, 1);
  } finally {
    await small.stop();
  }
});

test('a server that stops finishes what it has begun, and takes nothing new', async () => {
  const stopping = await startServer({ ...OPTIONS, rewardModel: undefined, rows: 2, apiKey: null });
  const one = clientOf(stopping.url);
  const stream = await one.completions.create({
    model: 'policy',
    prompt: 'go',
    max_tokens: 60,
    stream: true,
    ...extra({ ignore_eos: true }),
  });
  const parts = stream[Symbol.asyncIterator]();
  await parts.next();
  const stopped = stopping.stop();
  await assert.rejects(one.completions.create({ model: 'policy', prompt: 'go' }));
  let end: string | null = null;
  for (let part = await parts.next(); !part.done; part = await parts.next()) end = part.value.choices[0]!.finish_reason ?? end;
  assert.equal(end, 'length');
  await stopped;
  await assert.rejects(fetch(`${stopping.url}/health`));
});

test('what cannot be served is refused by name, and leaves nothing running', async () => {
  const refused: [Partial<ServeOptions>, { type: string; message: RegExp }][] = [
    [
      { policy: undefined, rewardModel: undefined },
      { type: 'BadInput', message: /policy/ },
    ],
    [{ policy: rewardModel.folder }, { type: 'BadInput', message: /architectures.*LlamaForCausalLM/ }],
    [{ rows: 0 }, { type: 'BadInput', message: /rows: 0/ }],
    [{ context: CONTEXT + 1 }, { type: 'BadInput', message: /context: 161 is not valid; 1 to 160/ }],
    [{ port: Number(new URL(server.url).port) }, { type: 'Unavailable', message: /port \d+ of 127\.0\.0\.1/ }],
  ];
  for (const [change, expected] of refused) await assert.rejects(startServer({ ...OPTIONS, rewardModel: undefined, ...change }), expected);
});
