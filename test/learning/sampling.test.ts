/** The distributions that tokens are drawn from, against their definitions written out naively; text from tokens as they come. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../../core/random.ts';
import { distribution, draw, likeliest, logSumExp } from '../../learning/sampling.ts';
import { TextStream } from '../../learning/text-stream.ts';

const logits = fc.array(fc.double({ min: -30, max: 30, noNaN: true }), { minLength: 1, maxLength: 40 });
const temperature = fc.double({ min: 0.05, max: 4, noNaN: true });
const softmax = (values: number[], t: number) => {
  const max = Math.max(...values);
  const e = values.map((value) => Math.exp((value - max) / t));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((value) => value / sum);
};
/** Places by descending probability, of equals the lower first. */
const ranked = (p: number[]) => [...p.keys()].sort((a, b) => p[b]! - p[a]! || a - b);

test('law: temperature, top-k and top-p give what they are defined to give, and it sums to 1', () => {
  fc.assert(
    fc.property(logits, temperature, fc.option(fc.integer({ min: 1, max: 50 })), fc.double({ min: 0.01, max: 1 }), (values, t, k, topP) => {
      const p = softmax(values, t);
      const found = distribution(values, { temperature: t, topK: k ?? undefined, topP });
      const sum = found.probabilities.reduce((a, b) => a + b, 0);
      assert.ok(Math.abs(sum - 1) < 1e-9, `sum ${sum}`);
      // Top-k: the k likeliest. Top-p (arXiv 1904.09751, Eq. 2): of these, renormalised, the fewest of the likeliest that reach p.
      const top = ranked(p).slice(0, k ?? p.length);
      const whole = top.reduce((total, id) => total + p[id]!, 0);
      const nucleus: number[] = [];
      let reached = 0;
      for (const id of top) {
        if (reached >= topP * whole - 1e-12 && topP < 1 && nucleus.length > 0) break;
        reached += p[id]!;
        nucleus.push(id);
      }
      const ids = Array.from(found.ids);
      const [fewer, more] = [ids, nucleus].sort((a, b) => a.length - b.length) as [number[], number[]];
      // Where the sum meets p to the last digits, one token more or less is right too.
      const boundary = more.length - fewer.length;
      assert.ok(
        boundary === 0 || (boundary === 1 && Math.abs(fewer.reduce((a, id) => a + p[id]!, 0) / whole - topP) < 1e-9),
        `${ids} / ${nucleus}`,
      );
      assert.deepEqual([...fewer].sort(), more.slice(0, fewer.length).sort());
      const kept = ids.reduce((a, id) => a + p[id]!, 0);
      ids.forEach((id, i) => assert.ok(Math.abs(found.probabilities[i]! - p[id]! / kept) < 1e-9));
    }),
  );
});

test('temperature 0 is the likeliest token, of equals the lowest id', () => {
  assert.deepEqual(distribution([1, 3, 2, 3], { temperature: 0 }), { ids: [1], probabilities: Float64Array.of(1) });
});

test('a large vocabulary: the nucleus is found without sorting all of it, and huge logits do not overflow', () => {
  const random = new Random(['large']);
  const values = Array.from({ length: 20_000 }, () => 800 + 3 * random.normal());
  const p = softmax(values, 1);
  const { ids } = distribution(values, { temperature: 1, topP: 0.5 });
  assert.deepEqual(Array.from(ids), ranked(p).slice(0, ids.length));
  const sum = (count: number) =>
    ranked(p)
      .slice(0, count)
      .reduce((a, id) => a + p[id]!, 0);
  assert.ok(sum(ids.length) >= 0.5 && sum(ids.length - 1) < 0.5);
});

test('draws follow the probabilities: within 5 standard errors in 20,000 draws', () => {
  const p = [0.5, 0.3, 0.15, 0.05];
  const random = new Random(['draws']);
  const counts = [0, 0, 0, 0];
  for (let i = 0; i < 20_000; i++) counts[draw(p, random)]!++;
  counts.forEach((count, i) => {
    assert.ok(Math.abs(count / 20_000 - p[i]!) < 5 * Math.sqrt((p[i]! * (1 - p[i]!)) / 20_000), `${i}: ${count}`);
  });
});

test('the likeliest tokens, in order, with log-probabilities over the whole vocabulary', () => {
  fc.assert(
    fc.property(logits, fc.integer({ min: 0, max: 12 }), (values, count) => {
      const found = likeliest(values, logSumExp(values), count);
      const p = softmax(values, 1);
      assert.deepEqual(
        found.map(({ id }) => id),
        [...values.keys()].sort((a, b) => values[b]! - values[a]! || a - b).slice(0, count),
      );
      for (const { id, logProbability } of found) assert.ok(Math.abs(Math.exp(logProbability) - p[id]!) < 1e-12);
    }),
  );
});

// --- text as it comes ------------------------------------------------------------------------------------------------------------------------------

/** Tokens are bytes: every text is cut everywhere, in the middle of characters too. */
const bytes = (ids: readonly number[]) => new TextDecoder().decode(Uint8Array.from(ids));
/** Tokens are words, with a space between two of them. */
const words = (ids: readonly number[]) => ids.map((id) => 'abcdefgh'[id % 8]!.repeat(1 + (id >> 3))).join(' ');

test('law: what a text stream tells, put together, is the text of all tokens, in whole characters', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 30 }), fc.array(fc.nat(31), { maxLength: 20 }), (text, ids) => {
      for (const [decode, tokens] of [[bytes, [...new TextEncoder().encode(text)]] as const, [words, ids] as const]) {
        const stream = new TextStream(decode);
        const told = tokens.map((id) => stream.push(id).text);
        for (const part of told) assert.ok(!part.includes('\uFFFD') || text.includes('\uFFFD'), part);
        assert.equal(told.join('') + stream.end().text, decode(tokens));
      }
    }),
  );
});

test('bytes that are no text come out as replacement characters at the latest at the end', () => {
  const stream = new TextStream(bytes);
  assert.deepEqual(
    [0xe2, 0x82].map((id) => stream.push(id).text),
    ['', ''],
  );
  assert.equal(stream.end().text, '\uFFFD');
});

test('law: a text ends before the first stop string, wherever its tokens are cut, and nothing of the stop is told before', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 40 });
  const stops = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 3 });
  fc.assert(
    fc.property(letters, stops, (text, stops) => {
      const stream = new TextStream(bytes, stops);
      let told = '';
      let stoppedBy: string | null = null;
      for (const id of new TextEncoder().encode(text)) {
        const now = stream.push(id);
        told += now.text;
        stoppedBy = now.stoppedBy;
        if (stoppedBy !== null) break;
      }
      if (stoppedBy === null) told += stream.end().text;
      // With one letter a token, the stop that is complete first ends the text.
      const ends = stops.filter((stop) => text.includes(stop)).map((stop) => text.indexOf(stop) + stop.length);
      const first = ends.length > 0 ? Math.min(...ends) : -1;
      if (first < 0) assert.deepEqual([told, stoppedBy], [text, null]);
      else {
        assert.ok(stops.includes(stoppedBy!) && text.slice(0, first).endsWith(stoppedBy!), `${stoppedBy}`);
        const starts = stops.filter((stop) => text.slice(0, first).includes(stop)).map((stop) => text.indexOf(stop));
        assert.equal(told, text.slice(0, Math.min(...starts)));
      }
    }),
  );
});
