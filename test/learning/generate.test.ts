/** Generation against full recomputation in double precision (`reference.ts`), which reads every prefix by itself. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../../core/random.ts';
import { createDecoder } from '../../learning/decoder.ts';
import { generate } from '../../learning/generate.ts';
import { ContinuousBatch } from '../../learning/continuous-batch.ts';
import type { GenerationRequest, GenerationResult } from '../../learning/generation.ts';
import type { Append, Decoder } from '../../learning/types.ts';
import { doubles, logSoftmax, outputs, tinyModel } from './reference.ts';

/** Float32 arithmetic of two layers. */
const TOLERANCE = 1e-5;
const CONTEXT = 40;
const ROWS = 5;
const model = tinyModel(70);
const weights = doubles(model);
const decoder = await createDecoder(model, { rows: ROWS, context: CONTEXT });
after(() => decoder.close());

const logits = (ids: readonly number[]) => outputs(model.config, weights, [...ids]);
const logProbabilities = (ids: readonly number[]) => logSoftmax(logits(ids));
const letters = (ids: readonly number[]) => ids.map((id) => 'abcdefghijk'[id]).join('');
const request = (prompt: number[], more: Partial<GenerationRequest> = {}): GenerationRequest => ({
  prompt,
  samples: 1,
  key: ['test'],
  sampling: { temperature: 0 },
  maxTokens: 6,
  stopIds: [],
  stopTexts: [],
  topLogProbabilities: 0,
  promptLogProbabilities: false,
  ...more,
});
const randomPrompts = (seed: number, count: number) => {
  const random = new Random(['prompts', seed]);
  return Array.from({ length: count }, () => Array.from({ length: 1 + random.below(12) }, () => random.below(11)));
};
const close = (found: number, expected: number, what: string) =>
  assert.ok(Math.abs(found - expected) < TOLERANCE, `${what}: ${found}, reference ${expected}`);
const run = (requests: GenerationRequest[], on: Decoder = decoder) => generate(on, requests, { context: CONTEXT, decode: letters });

test('greedy generation says the likeliest token each time, with its log-probability, the best others and those of the prompt', async () => {
  const prompts = randomPrompts(1, 12);
  const results = await run(
    prompts.map((prompt, i) => request(prompt, { maxTokens: 1 + (i % 7), topLogProbabilities: 3, promptLogProbabilities: i % 2 === 0 })),
  );
  results.forEach(({ samples: [sample], promptLogProbabilities }, i) => {
    const path = [...prompts[i]!];
    assert.equal(sample!.tokens.length, 1 + (i % 7));
    assert.equal(sample!.finish, 'length');
    for (const token of sample!.tokens) {
      const expected = logProbabilities(path);
      const order = [...expected.keys()].sort((a, b) => expected[b]! - expected[a]!);
      assert.equal(token.id, order[0]);
      assert.deepEqual(
        token.top.map(({ id }) => id),
        order.slice(0, 3),
      );
      close(token.logProbability, expected[token.id]!, 'log-probability');
      assert.equal(token.drawnLogProbability, 0);
      path.push(token.id);
    }
    if (i % 2 === 1) assert.equal(promptLogProbabilities, undefined);
    else {
      assert.equal(promptLogProbabilities![0], null);
      for (let t = 1; t < prompts[i]!.length; t++)
        close(promptLogProbabilities![t]!, logProbabilities(prompts[i]!.slice(0, t))[prompts[i]![t]!]!, 'prompt');
    }
  });
});

test('law: sampled tokens come from the filtered distribution of the exact logits, and are the same in any batch', async () => {
  const prompts = randomPrompts(2, 9);
  const sampling = { temperature: 1.3, topK: 6, topP: 0.9 };
  const requests = prompts.map((prompt, i) => request(prompt, { sampling, samples: 1 + (i % 3), key: ['draws', i] }));
  const results = await run(requests);
  assert.deepEqual(await run(requests), results); // the same list, the same bytes
  const alone: GenerationResult[] = [];
  for (const one of requests) alone.push(...(await run([one])));
  results.forEach((result, i) => {
    result.samples.forEach((sample, s) => {
      const path = [...prompts[i]!];
      for (const token of sample.tokens) {
        const p = logSoftmax(logits(path).map((logit) => logit / 1.3)).map(Math.exp);
        const top = [...p.keys()].sort((a, b) => p[b]! - p[a]!).slice(0, 6);
        const six = top.reduce((sum, id) => sum + p[id]!, 0);
        let reached = 0;
        const nucleus = top.filter((id) => {
          const inside = reached < 0.9 * six;
          reached += p[id]!;
          return inside;
        });
        const mass = nucleus.reduce((sum, id) => sum + p[id]!, 0);
        assert.ok(nucleus.includes(token.id));
        close(token.drawnLogProbability, Math.log(p[token.id]! / mass), 'drawn');
        close(token.logProbability, logProbabilities(path)[token.id]!, 'model');
        path.push(token.id);
      }
      const same = alone[i]!.samples[s]!;
      assert.deepEqual(
        same.tokens.map(({ id }) => id),
        sample.tokens.map(({ id }) => id),
      );
    });
  });
  // Samples of one request differ: each has a generator of its own.
  assert.ok(results.some(({ samples }) => new Set(samples.map(({ text }) => text)).size > 1));
});

test('requests join in the order of the list as rows become free: who is read together is planned', async () => {
  const steps: number[][] = [];
  const watched = Object.create(decoder) as Decoder;
  Object.defineProperty(watched, 'rows', { value: 2 });
  watched.step = (appends: Append[]) => {
    steps.push(appends.map(({ row, ids }) => row * 100 + ids.length));
    return decoder.step(appends);
  };
  watched.clear = (row) => decoder.clear(row);
  watched.copy = (from, to) => decoder.copy(from, to);
  await run(
    [
      request([1, 2, 3], { maxTokens: 3 }),
      request([4], { maxTokens: 1 }),
      request([5, 6], { maxTokens: 2, samples: 2 }),
      request([7], { maxTokens: 1 }),
    ],
    watched,
  );
  assert.deepEqual(steps, [
    [3, 101], // the first two
    [1], // two samples need both rows, and nobody passes them
    [1],
    [2], // one row reads the prompt for both
    [1, 101],
    [1],
  ]);
  assert.deepEqual(
    [0, 1].map((row) => decoder.length(row)),
    [0, 0],
  );
});

test('a stop token ends a text and is not part of it; a stop string ends it across tokens', async () => {
  const prompt = [3, 1, 4];
  const [free] = await run([request(prompt, { maxTokens: 12 })]);
  const ids = free!.samples[0]!.tokens.map(({ id }) => id);
  const text = letters(ids);
  assert.equal(free!.samples[0]!.text, text);
  const stopId = ids[4]!;
  const pair = text.slice(5, 7);
  const [byId, byText, both] = await run([
    request(prompt, { maxTokens: 12, stopIds: [stopId] }),
    request(prompt, { maxTokens: 12, stopTexts: ['zz', pair] }),
    request(prompt, { maxTokens: 12, stopIds: [stopId], stopTexts: [text.slice(0, 2)] }),
  ]);
  const until = ids.indexOf(stopId);
  assert.deepEqual(
    byId!.samples.map(({ text, finish, stoppedBy, tokens }) => [text, finish, stoppedBy, tokens.length]),
    [[text.slice(0, until), 'stop', stopId, until + 1]],
  );
  const at = text.indexOf(pair);
  assert.deepEqual(
    byText!.samples.map(({ text, finish, stoppedBy, tokens }) => [text, finish, stoppedBy, tokens.length]),
    [[text.slice(0, at), 'stop', pair, at + 2]],
  );
  assert.deepEqual([both!.samples[0]!.text, both!.samples[0]!.stoppedBy], ['', text.slice(0, 2)]);
});

test('law: choices: probabilities under the constraint sum to 1 and equal full recomputation, and draws follow them', async () => {
  const lists = fc.uniqueArray(fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 4 }), {
    minLength: 1,
    maxLength: 8,
    selector: (ids) => ids.join(),
  });
  await fc.assert(
    fc.asyncProperty(lists, fc.array(fc.nat(10), { minLength: 1, maxLength: 8 }), async (choices, prompt) => {
      const [result] = await run([
        request(prompt, { choices, stopIds: [10], samples: 400, sampling: { temperature: 1 }, topLogProbabilities: 2 }),
      ]);
      const begins = choices.some((a) => choices.some((b) => a.length < b.length && a.every((id, i) => id === b[i])));
      const ended = choices.map((choice) => (begins ? [...choice, 10] : choice));
      // The reference: at every token of a choice, the softmax over the tokens that some choice with the same beginning has there.
      const expected = ended.map((choice) => {
        let sum = 0;
        choice.forEach((token, depth) => {
          const same = ended.filter((other) => other.slice(0, depth).join() === choice.slice(0, depth).join());
          const allowed = [...new Set(same.map((other) => other[depth]!))];
          const all = logits([...prompt, ...choice.slice(0, depth)]);
          sum += logSoftmax(allowed.map((id) => all[id]!))[allowed.indexOf(token)]!;
        });
        return sum;
      });
      const found = result!.choiceLogProbabilities!;
      found.forEach((value, i) => close(value, expected[i]!, `choice ${i}`));
      assert.ok(Math.abs(found.reduce((sum, value) => sum + Math.exp(value), 0) - 1) < 1e-9);
      const counts = choices.map(() => 0);
      for (const sample of result!.samples) {
        counts[sample.choice!]!++;
        assert.deepEqual(
          sample.tokens.map(({ id }) => id),
          ended[sample.choice!],
        );
        const sum = sample.tokens.reduce((total, token) => total + token.logProbability, 0);
        close(sum, found[sample.choice!]!, 'sum over tokens');
      }
      counts.forEach((count, i) => {
        const p = Math.exp(found[i]!);
        // A bound that a fair draw passes in all but one of 10^7 cases (Bernstein's inequality).
        const bound = Math.sqrt(2 * 400 * p * (1 - p) * 17) + 17;
        assert.ok(Math.abs(count - 400 * p) <= bound, `choice ${i}: ${count} of 400 at ${p}`);
      });
    }),
    { numRuns: 25, seed: 11 },
  );
});

test('greedy choices follow the likeliest allowed token; a temperature changes what is drawn from, not what the model says', async () => {
  const choices = [[1, 2], [1, 3], [4, 5, 6], [7]];
  const [greedy, cold] = await run([request([2, 9], { choices }), request([2, 9], { choices, sampling: { temperature: 0.2 } })]);
  const first = logits([2, 9]);
  const start = [1, 4, 7].reduce((a, b) => (first[b]! > first[a]! ? b : a));
  const second = logits([2, 9, 1]);
  const expected = start === 1 ? (second[2]! > second[3]! ? 0 : 1) : start === 4 ? 2 : 3;
  assert.equal(greedy!.samples[0]!.choice, expected);
  assert.deepEqual(cold!.choiceLogProbabilities, greedy!.choiceLogProbabilities);
  const points = logSoftmax([1, 4, 7].map((id) => first[id]! / 0.2));
  close(cold!.drawnChoiceLogProbabilities![2]!, points[1]!, 'colder');
});

test('what is cancelled frees its rows between steps, and the others go on as if nothing had happened', async () => {
  const batch = new ContinuousBatch<string>(decoder, { context: CONTEXT });
  batch.add('stays', request([1, 2], { maxTokens: 5 }));
  batch.add('goes', request([3, 4], { maxTokens: 30, samples: 3 }));
  const tokens: number[] = [];
  for (let step = 0; batch.size > 0; step++) {
    const under = batch.step();
    if (step === 1) batch.cancel('goes');
    for (const event of await under) {
      assert.ok(event.id === 'stays' || step < 1);
      if (event.id === 'stays' && event.kind === 'token') tokens.push(event.token.id);
    }
    if (step === 1) assert.ok(batch.fits(request([1], { samples: 4 })) && !batch.fits(request([1], { samples: 5 })));
  }
  const [alone] = await run([request([1, 2], { maxTokens: 5 })]);
  assert.deepEqual(
    tokens,
    alone!.samples[0]!.tokens.map(({ id }) => id),
  );
});

test('law: with reuse, prompts that begin like something that was read start from there, and get what they get without', async () => {
  // Conversations that grow: each prompt is an earlier one, what was said to it, and something new; some share only their beginning.
  const random = new Random(['reuse']);
  let fed = 0;
  const counting = Object.create(decoder) as Decoder;
  Object.defineProperty(counting, 'rows', { value: ROWS });
  counting.step = (appends) => {
    fed += appends.reduce((sum, { ids }) => sum + ids.length, 0);
    return decoder.step(appends);
  };
  for (const name of ['clear', 'copy', 'truncate'] as const) (counting[name] as unknown) = decoder[name].bind(decoder);
  const batch = new ContinuousBatch<number>(counting, { context: CONTEXT, reuse: true });
  const histories: number[][] = [[1, 2, 3, 4, 5, 6, 7, 8]];
  let [id, reused, prompted] = [0, 0, 0];
  for (let round = 0; round < 12; round++) {
    const asked = Array.from({ length: 1 + random.below(3) }, () => {
      const history = random.pick(histories);
      const prompt = [
        ...history.slice(0, Math.max(1, history.length - random.below(3))),
        ...Array.from({ length: 2 }, () => random.below(11)),
      ];
      const choices = random.uniform() < 0.3 ? { choices: [[1, 2], [1, 3], [4]] } : {};
      return { id: id++, request: request(prompt.slice(0, CONTEXT - 6), { maxTokens: 3, ...choices }) };
    });
    for (const { id, request } of asked) batch.add(id, request);
    const said = new Map<number, number[]>(asked.map((one) => [one.id, []]));
    while (batch.size > 0) {
      for (const event of await batch.step()) {
        if (event.kind === 'begin') reused += event.reused;
        if (event.kind === 'token') said.get(event.id)!.push(event.token.id);
      }
    }
    for (const { id, request } of asked) {
      // Beside the prompt: two of the three tokens that are said, or the one token with two choices after it.
      prompted += request.prompt.length + (request.choices ? 1 : 2);
      let path = [...request.prompt];
      for (const token of said.get(id)!) {
        if (!request.choices) {
          const expected = logits(path);
          assert.equal(token, expected.indexOf(Math.max(...expected)));
        }
        path.push(token);
      }
      if (request.choices) assert.ok(request.choices.some((choice) => choice.join() === said.get(id)!.join()));
      histories.push(path);
    }
  }
  assert.equal(fed, prompted - reused);
  assert.ok(reused > prompted / 2, `${reused} of ${prompted}`);
  // The probabilities of a prompt need all of it.
  batch.add(id, request(histories.at(-1)!.slice(0, 12), { promptLogProbabilities: true, maxTokens: 1 }));
  const [begin, prompt] = await batch.step();
  assert.ok(begin?.kind === 'begin' && begin.reused === 0 && prompt?.kind === 'prompt');
  for (let row = 0; row < ROWS; row++) decoder.clear(row);
});

test('the context bounds a text, and what cannot be generated is refused by name before anything runs', async () => {
  const long = Array.from({ length: CONTEXT - 3 }, (_, i) => i % 11);
  const [full, nothing] = await run([request(long, { maxTokens: 50 }), request([1], { maxTokens: 0 })]);
  assert.deepEqual([full!.samples[0]!.tokens.length, full!.samples[0]!.finish], [3, 'length']);
  assert.deepEqual([nothing!.samples[0]!.tokens.length, nothing!.samples[0]!.finish], [0, 'length']);
  const refused: [Partial<GenerationRequest>, RegExp][] = [
    [{ prompt: [] }, /requests\[1\]\.prompt/],
    [{ prompt: Array.from({ length: CONTEXT }, () => 1) }, /prompt.*at most 39/],
    [{ samples: ROWS + 1 }, /samples: 6/],
    [{ sampling: { temperature: -1 } }, /temperature: -1/],
    [{ sampling: { temperature: 1, topP: 0 } }, /topP: 0/],
    [{ sampling: { temperature: 1, topK: 1.5 } }, /topK: 1.5/],
    [{ maxTokens: -1 }, /maxTokens: -1/],
    [{ stopTexts: [''] }, /stop: ""/],
    [{ choices: [] }, /choices/],
    [{ choices: [[1], [1, 2]] }, /choices.*ends a text/],
    [{ choices: [[1], [1]] }, /distinct/],
  ];
  for (const [more, message] of refused) {
    await assert.rejects(run([request([1]), request([1], more)]), { type: 'BadInput', message });
  }
});
