/** Packed trees, the reader and the decoder against the double-precision reference, which reads every path by itself. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../../core/random.ts';
import { maskName, microBatches, pack, readMaskName } from '../../learning/batch.ts';
import { createDecoder } from '../../learning/decoder.ts';
import type { Feed } from '../../learning/lanes/lane.ts';
import { initModel, llamaConfig } from '../../learning/model.ts';
import { createReader } from '../../learning/reader.ts';
import type { Append, Decoder } from '../../learning/types.ts';
import { chain, doubles, logSoftmax, outputs, path, randomTree, states, tinyModel } from './reference.ts';

/** Packed and branched equals separate sequences to this (float32 arithmetic of a few layers). */
const TOLERANCE = 1e-5;
const close = (found: ArrayLike<number>, expected: ArrayLike<number>, what: string) => {
  assert.equal(found.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    assert.ok(Math.abs(found[i]! - expected[i]!) < TOLERANCE, `${what}[${i}]: ${found[i]}, reference ${expected[i]}`);
  }
};

test('micro-batches: everything once, longest first, none with more than its share and half of a longest and a shortest tree', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 40 }),
      fc.integer({ min: 1, max: 12 }),
      (lengths, count) => {
        const items = lengths.map((length, id) => ({ length, id }));
        const parts = microBatches(items, count, ({ length }) => length);
        const all = parts.flat();
        // The last quarter of them in halves.
        const halved = Math.floor(count / 4);
        assert.ok(parts.length <= count + halved && parts.every((part) => part.length > 0));
        assert.deepEqual(
          all.map(({ id }) => id).sort((a, b) => a - b),
          [...items.keys()],
        );
        // Equal lengths stay in their order, so that the cut depends on the list alone.
        all
          .slice(1)
          .forEach((item, i) => assert.ok(item.length < all[i]!.length || (item.length === all[i]!.length && item.id > all[i]!.id)));
        const total = lengths.reduce((a, b) => a + b);
        // An item belongs to the part in which its middle lies.
        let before = 0;
        for (const part of parts) {
          const tokens = part.reduce((sum, { length }) => sum + length, 0);
          const isHalf = before + part[0]!.length / 2 >= (total / count) * (count - halved) - 1e-6;
          const share = total / count / (isHalf ? 2 : 1);
          assert.ok(tokens <= share + (part[0]!.length + part.at(-1)!.length) / 2 + 1e-6);
          before += tokens;
        }
      },
    ),
  );
});

test('a step of long prompts is read in several runs, and gives what the rows give one by one', async () => {
  const model = initModel(llamaConfig({ vocabulary: 11, width: 8, layers: 2, heads: 2, feedForward: 12, context: 640 }), ['long prompts']);
  const random = new Random(['long prompts']);
  // 3,000 tokens, where a run takes 2,048.
  const appends = Array.from({ length: 5 }, (_, row) => {
    const ids = Array.from({ length: 600 }, () => random.below(11));
    return { row, ids, reads: [ids.length - 1], keep: ids.length };
  });
  const [together, alone] = [
    await createDecoder(model, { rows: 5, context: 640, lanes: 2 }),
    await createDecoder(model, { rows: 5, context: 640 }),
  ];
  try {
    const outputs = await together.step(appends);
    assert.equal(outputs.length, 5);
    for (const [row, append] of appends.entries()) {
      close(outputs[row]!, (await alone.step([append]))[0]!, `row ${row}`);
      assert.equal(together.length(row), 600);
    }
  } finally {
    await together.close();
    await alone.close();
  }
});

/** Longest tree 10, rounded up to 16; 10 + 4 fit in row 0, 3 does not, 1 does. */
const PACKED = [chain([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), { ids: [3, 4, 5, 6], parents: [-1, 0, 0, -1] }, chain([7, 7, 7]), chain([1])];
const ALL = PACKED.flatMap(({ ids }, tree) => ids.map((_, node) => ({ tree, node })));
const LIMITS = { vocabulary: 11, context: 64 };
const numbers = (feed: Feed | undefined) => Array.from(feed!.data as ArrayLike<number | bigint>, Number);
/** What line `line` of a mask shows; its lines are as long as the last of its dims. */
const shown = ({ data, dims }: Feed, line: number) => {
  const keys = dims.at(-1)!;
  return Array.from({ length: keys }, (_, s) => s).filter((s) => data[line * keys + s] === 0);
};

test('packing: first fit in the given order, ancestors and self visible, positions are depths', () => {
  const { rows, length, feeds } = pack(PACKED, ALL, LIMITS, false);
  assert.deepEqual([rows, length], [2, 16]);
  const [ids, positions, reads] = [feeds['ids'], feeds['positions'], feeds['reads']].map(numbers) as [number[], number[], number[]];
  const place = (tree: number, node: number) => reads[ALL.findIndex((read) => read.tree === tree && read.node === node)]!;
  assert.deepEqual([place(0, 0), place(0, 9), place(1, 0), place(2, 0), place(3, 0)], [0, 18, 20, 1, 28]); // t * rows + row
  assert.deepEqual(
    [0, 1, 2, 3].map((node) => positions[place(1, node)]),
    [0, 1, 1, 0],
  );
  assert.deepEqual(
    [0, 1, 2, 3].map((node) => ids[place(1, node)]),
    [3, 4, 5, 6],
  );
  const seen = (tree: number, node: number) => {
    const at = place(tree, node);
    const [row, t] = [at % 2, Math.floor(at / 2)];
    // Four chunks of four queries: the first sees 4 keys at most, the last 16.
    return shown(feeds[maskName(Math.floor(t / 4))]!, row * 4 + (t % 4));
  };
  assert.deepEqual([seen(0, 2), seen(1, 1), seen(1, 2), seen(1, 3), seen(2, 1)], [[0, 1, 2], [10, 11], [10, 12], [13], [0, 1]]);
});

test('packing, ragged: nodes without padding, rows that show them, and the reads in rows of their own', () => {
  const reads = [ALL[9]!, ALL[11]!, ALL[2]!, ALL[15]!, ALL[9]!]; // of places 9, 11 and 2 of row 0, 1 of row 1, and the first again
  const [full, { feeds }] = [pack(PACKED, ALL, LIMITS, false), pack(PACKED, reads, LIMITS, true)];
  const [ids, positions, places, nodes] = ['ids', 'positions', 'places', 'nodes'].map((name) => numbers(feeds[name])) as number[][] as [
    number[],
    number[],
    number[],
    number[],
  ];
  // 18 of 32 places hold a node.
  assert.deepEqual([ids.length, positions.length, nodes.length], [18, 18, 32]);
  assert.deepEqual(
    places.map((place) => nodes[place]),
    places.map((_, node) => node),
  );
  for (const [name, own] of [['ids', ids] as const, ['positions', positions] as const])
    assert.deepEqual(
      own,
      places.map((place) => numbers(full.feeds[name])[place]),
    );
  assert.deepEqual(
    numbers(feeds['reads']).map((node) => ids[node]),
    [10, 4, 3, 7, 10],
  );
  // Chunks of places 0-3, 4-7, 8-11: row 0 has 1, 0 and 3 reads there, row 1 has 1, 0, 0; each chunk has at least one place.
  const widths = [1, 1, 3, 1];
  assert.deepEqual(feeds['queries']!.dims, [6, 2]);
  const [queries, queryPlaces] = [numbers(feeds['queries']), numbers(feeds['queryPlaces'])];
  assert.deepEqual(
    queryPlaces.map((place) => queries[place]),
    [0, 1, 2, 3, 4],
  );
  assert.equal(new Set(queryPlaces).size, 5);
  const seen = reads.map((_, read) => {
    const [u, row] = [Math.floor(queryPlaces[read]! / 2), queryPlaces[read]! % 2];
    const chunk = u < 1 ? 0 : u < 2 ? 1 : u < 5 ? 2 : 3;
    const before = widths.slice(0, chunk).reduce((a, b) => a + b, 0);
    const mask = feeds[readMaskName(chunk)]!;
    assert.deepEqual(mask.dims, [2, 1, widths[chunk], 4 * (chunk + 1)]);
    return shown(mask, row * widths[chunk]! + (u - before));
  });
  const ten = Array.from({ length: 10 }, (_, s) => s);
  assert.deepEqual(seen, [ten, [10, 11], [0, 1, 2], [0, 1], ten]);
});

test('law: log-probabilities and states of packed, branching trees equal those of separate sequences, whatever the lanes and the requests', async () => {
  for (const keyValueHeads of [2, 1]) {
    const model = tinyModel(10 + keyValueHeads, { keyValueHeads });
    const weights = doubles(model);
    const [one, two] = [await createReader(model, { lanes: 1 }), await createReader(model, { lanes: 2 })];
    try {
      await fc.assert(
        fc.asyncProperty(fc.nat(1e6), async (seed) => {
          const random = new Random(['packing', seed]);
          const requests = Array.from({ length: 2 }, () => {
            const trees = Array.from({ length: 1 + random.below(5) }, () => randomTree(random, 1 + random.below(20), 11));
            const nodes = trees.flatMap(({ ids }, tree) => ids.map((_, node) => ({ tree, node })));
            const reads = random.shuffled(nodes).slice(0, 6);
            const allowed = reads.map(() => random.shuffled([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).slice(0, 1 + random.below(11)));
            return { trees, reads, allowed };
          });
          const found = await one.logProbabilities(requests);
          assert.deepEqual(await two.logProbabilities(requests), found); // same bits
          const hidden = await one.hidden(requests);
          requests.forEach(({ trees, reads, allowed }, r) =>
            reads.forEach(({ tree, node }, p) => {
              const ids = path(trees[tree]!, node);
              const logits = outputs(model.config, weights, ids);
              close(found[r]![p]!, logSoftmax(allowed[p]!.map((token) => logits[token]!)), 'log-probabilities');
              close(hidden[r]!.subarray(p * 8, (p + 1) * 8), states(model.config, weights, ids).at(-1)!, 'states');
            }),
          );
        }),
        { numRuns: 8, seed: 3 },
      );
    } finally {
      await Promise.all([one.close(), two.close()]);
    }
  }
});

test('log-probabilities over the whole vocabulary, and values of a value head', async () => {
  const model = tinyModel(22, { values: true });
  const weights = doubles(model);
  const reader = await createReader(model, { lanes: 1 });
  try {
    const random = new Random(['tokens']);
    const trees = [randomTree(random, 12, 11), randomTree(random, 7, 11)];
    const reads = trees.flatMap(({ ids }, tree) => ids.map((_, node) => ({ tree, node })));
    const targets = reads.map(() => random.below(11));
    const [tokens] = await reader.tokenLogProbabilities([{ trees, reads, targets }]);
    const [values] = await reader.values([{ trees, reads }]);
    const head = weights.get('value_head.weight')!;
    reads.forEach(({ tree, node }, p) => {
      const ids = path(trees[tree]!, node);
      const state = states(model.config, weights, ids).at(-1)!;
      close([tokens![p]!], [logSoftmax(outputs(model.config, weights, ids))[targets[p]!]!], 'log-probability');
      close([values![p]!], [state.reduce((sum, x, i) => sum + x * head[i]!, 0)], 'value');
    });
    const wrong = { trees, reads, targets: targets.with(3, 11) };
    await assert.rejects(reader.tokenLogProbabilities([wrong]), { type: 'BadInput', message: /targets\[3\]: 11 .*below 11/ });
    await assert.rejects(reader.tokenLogProbabilities([{ ...wrong, targets: [] }]), { type: 'BadInput', message: /targets: "0 tokens"/ });
  } finally {
    await reader.close();
  }
  const plain = await createReader(tinyModel(1), { lanes: 1 });
  await assert.rejects(plain.values([]), { type: 'BadInput', message: /value head/ });
  await plain.close();
});

test('a reader of scores, cut into several runs, and given another model', async () => {
  const models = [tinyModel(20, { score: true }), tinyModel(21, { score: true })];
  const reader = await createReader(models[0]!, { lanes: 2 });
  try {
    const random = new Random(['scores']);
    const trees = Array.from({ length: 120 }, () => randomTree(random, 30 + random.below(20), 11)); // about 4,800 tokens: more than one run holds
    const reads = trees.map(({ ids }, tree) => ({ tree, node: ids.length - 1 }));
    for (const model of models) {
      reader.load(model);
      const [found] = await reader.scores([{ trees, reads }]);
      for (const i of [0, 50, 119]) close([found![i]!], outputs(model.config, doubles(model), path(trees[i]!, reads[i]!.node)), 'score');
    }
    const nothing = await reader.scores([{ trees, reads: [] }]);
    assert.deepEqual(nothing, [new Float32Array(0)]);
    await assert.rejects(reader.logProbabilities([]), { type: 'BadInput' });
    assert.throws(() => reader.load(tinyModel(1)), { type: 'BadInput' });
    await assert.rejects(reader.scores([{ trees, reads: [{ tree: 500, node: 0 }] }]), { type: 'BadInput', message: /reads\[0\]/ });
  } finally {
    await reader.close();
  }
});

test('law: a decoder, however it is fed, gives what the reference gives for the same path', async () => {
  for (const keyValueHeads of [2, 1]) {
    const model = tinyModel(30 + keyValueHeads, { keyValueHeads });
    const weights = doubles(model);
    const rows = 20; // two groups, the second not full
    const [one, two] = [await createDecoder(model, { rows, context: 60 }), await createDecoder(model, { rows, context: 60, lanes: 2 })];
    try {
      await fc.assert(
        fc.asyncProperty(fc.nat(1e6), (seed) => decode(seed, one, two, rows, (ids) => outputs(model.config, weights, ids))),
        { numRuns: 4, seed: 5 },
      );
    } finally {
      await Promise.all([one.close(), two.close()]);
    }
  }
});

/** Feeds two decoders (of one and two lanes) random appends, copies, clears and cuts, and follows every row's path beside them. */
async function decode(seed: number, one: Decoder, two: Decoder, rows: number, expected: (ids: number[]) => number[]): Promise<void> {
  const random = new Random(['decoder', seed]);
  const paths: number[][] = Array.from({ length: rows }, () => []);
  for (let row = 0; row < rows; row++) for (const decoder of [one, two]) decoder.clear(row);
  for (let turn = 0; turn < 6; turn++) {
    const appends: Append[] = random
      .shuffled([...paths.keys()])
      .slice(0, 1 + random.below(rows))
      .filter((row) => paths[row]!.length < 50)
      .map((row) => {
        const length = 1 + random.below(9);
        const chained = random.uniform() < 0.5;
        const keep = chained ? length : random.below(length + 1);
        const tree = randomTree(random, length, 11);
        for (let i = 0; i < keep; i++) tree.parents[i] = i - 1;
        const reads = random.shuffled([...tree.ids.keys()]).slice(0, random.below(3));
        return { row, ids: tree.ids, ...(chained ? {} : { parents: tree.parents }), reads, keep };
      });
    const found = await one.step(appends);
    assert.deepEqual(await two.step(appends), found); // same bits
    let next = 0;
    for (const { row, ids, parents, reads, keep } of appends) {
      const tree = parents ? { ids, parents } : chain(ids);
      for (const node of reads) close(found[next++]!, expected([...paths[row]!, ...path(tree, node)]), `row ${row}`);
      paths[row]!.push(...ids.slice(0, keep));
    }
    assert.equal(next, found.length);
    const [from, to, gone, cut] = [random.below(rows), random.below(rows), random.below(rows), random.below(rows)];
    const length = random.below((cut === gone ? 0 : paths[cut === to ? from : cut]!.length) + 1);
    for (const decoder of [one, two]) {
      decoder.copy(from, to);
      decoder.clear(gone);
      decoder.truncate(cut, length);
    }
    paths[to] = [...paths[from]!];
    paths[gone] = [];
    paths[cut] = paths[cut]!.slice(0, length);
    for (let row = 0; row < rows; row++) assert.equal(one.length(row), paths[row]!.length);
  }
}

test('a decoder scores several continuations of a row at once and keeps none; wrong appends are refused and change nothing', async () => {
  const model = tinyModel(40, { score: true });
  const weights = doubles(model);
  const decoder = await createDecoder(model, { rows: 2, context: 8 });
  try {
    await decoder.step([{ row: 1, ids: [1, 2, 3], reads: [], keep: 3 }]);
    const [a, b] = await decoder.step([{ row: 1, ids: [4, 5, 6, 7], parents: [-1, 0, -1, 2], reads: [1, 3], keep: 0 }]);
    close(a!, outputs(model.config, weights, [1, 2, 3, 4, 5]), 'first');
    close(b!, outputs(model.config, weights, [1, 2, 3, 6, 7]), 'second');
    assert.deepEqual([decoder.length(0), decoder.length(1)], [0, 3]);
    const wrong: [Append[], RegExp][] = [
      [[{ row: 2, ids: [1], reads: [0], keep: 1 }], /row: 2 .*0 to 1/],
      [[{ row: 1, ids: [1, 2, 3, 4, 5, 6], reads: [0], keep: 6 }], /length of row 1: 9 .*8 tokens/],
      [[{ row: 0, ids: [11], reads: [0], keep: 1 }], /ids: 11/],
      [[{ row: 0, ids: [1], reads: [1], keep: 1 }], /reads: 1/],
      [[{ row: 0, ids: [1, 2], parents: [-1, -1], reads: [], keep: 2 }], /must be a chain/],
      [Array.from({ length: 2 }, () => ({ row: 0, ids: [1], reads: [], keep: 1 })), /distinct rows/],
    ];
    for (const [appends, message] of wrong) await assert.rejects(decoder.step(appends), { type: 'BadInput', message });
    assert.deepEqual([decoder.length(0), decoder.length(1)], [0, 3]);
    assert.deepEqual(await decoder.step([]), []);
    assert.throws(() => decoder.truncate(1, 4), { type: 'BadInput', message: /length: 4 .*0 to 3/ });
    await assert.rejects(createDecoder(model, { rows: 2, context: 65 }), { type: 'BadInput', message: /context: 65/ });
  } finally {
    await decoder.close();
  }
});
