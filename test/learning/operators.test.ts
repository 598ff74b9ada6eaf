/** Every operator's gradient against finite differences over random shapes, and the checks of axes when a graph is built. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../../core/random.ts';
import * as attentions from '../../learning/graph/attention.ts';
import type { Chunk } from '../../learning/graph/attention.ts';
import { gradients } from '../../learning/graph/gradient.ts';
import { AxisError, Graph } from '../../learning/graph/graph.ts';
import type { Value } from '../../learning/graph/graph.ts';
import * as indexing from '../../learning/graph/indexing.ts';
import * as operators from '../../learning/graph/operators.ts';
import { Lane } from '../../learning/lanes/lane.ts';
import type { Feed } from '../../learning/lanes/lane.ts';

const op = { ...operators, ...indexing, ...attentions };

let lane: Lane;
before(() => {
  lane = new Lane();
});
after(() => lane.close());
/** A run with copies of the feeds, which `Lane.run` hands over. */
const run = (session: string, feeds: Record<string, Feed>) =>
  lane.run(session, Object.fromEntries(Object.entries(feeds).map(([name, { data, dims }]) => [name, { data: data.slice(), dims }])));

/** A graph with axes A, B, C, D of random sizes (D even), and inputs made on demand. */
interface Bench {
  graph: Graph;
  sizes: Record<string, number>;
  random: Random;
  /** An input that is differentiated. */
  x(...axes: string[]): Value;
  /** One with values at odd tenths, so that differences do not step over an edge at an even one. */
  tenths(...axes: string[]): Value;
  /** An input that is not. */
  fixed(data: ArrayLike<number>, axes: string[], integer?: boolean): Value;
}

/** A random order of the numbers below the size of an axis, and where each is in it. */
function permutation(b: Bench, axis: string): { index: number[]; inverse: number[] } {
  const index = b.random.shuffled(Array.from({ length: sizeOf(b, axis) }, (_, i) => i));
  return { index, inverse: index.map((_, i) => index.indexOf(i)) };
}

/** The operators, each as a function from inputs to an output. Composite axes stand for the real uses in `llama.ts`. */
const OPERATORS: Record<string, (bench: Bench) => Value> = {
  add: (b) => op.add(b.x('A', 'B'), b.x('A', 'B')),
  'add, repeated axes': (b) => op.add(b.x('A', '1', 'C'), b.x('B', 'C')),
  sub: (b) => op.sub(b.x('A', 'B'), b.x('B')),
  mul: (b) => op.mul(b.x('A', 'B'), b.x('A', '1')),
  'mul by itself': (b) => {
    const x = b.x('A', 'B');
    return op.mul(x, x);
  },
  scale: (b) => op.scale(b.x('A'), -1.7),
  sigmoid: (b) => op.sigmoid(b.x('A', 'B')),
  softplus: (b) => op.softplus(b.x('A', 'B')),
  exp: (b) => op.exp(b.x('A', 'B')),
  silu: (b) => op.silu(b.x('A', 'B')),
  clip: (b) => op.clip(b.tenths('A', 'B'), b.fixed(evenTenths(b, 'B', -4), ['B']), b.fixed(evenTenths(b, 'A*B', 2), ['A', 'B'])),
  'clip to nothing': (b) => op.clip(b.tenths('A'), b.graph.scalar(-Infinity), b.graph.scalar(Infinity)),
  reshape: (b) => op.mul(op.reshape(b.x('A', 'B*C'), ['A*B', 'C']), b.x('A*B', 'C')),
  rename: (b) => op.mul(op.rename(b.x('A', 'B'), ['A2', 'B']), b.x('A2', 'B')),
  transpose: (b) => op.mul(op.transpose(b.x('A', 'B', 'C'), [2, 0, 1]), b.x('C', 'A', 'B')),
  expand: (b) => op.mul(op.expand(b.x('1', 'B'), ['C', 'A', 'B']), b.x('C', 'A', 'B')),
  reduceSum: (b) => op.reduceSum(b.x('A', 'B', 'C'), [0, 2]),
  reduceMean: (b) => op.reduceMean(b.x('A', 'B', 'C'), [1]),
  total: (b) => op.total(op.exp(b.x('A', 'B'))),
  concat: (b) => op.mul(op.concat([b.x('A', 'B'), b.x('A', 'C'), b.x('A', 'C2')], 1, 'X'), b.x('A', 'X')),
  'concat, outermost': (b) => op.exp(op.concat([b.x('B', 'A'), b.x('C', 'A'), b.x('C', 'A')], 0, 'X')),
  split: (b) => op.mul(op.split(b.x('A', 'X', 'D'), 1, ['B', 'C', 'C2'])[1]!, b.x('A', 'C', 'D')),
  'split, all parts': (b) => {
    const [first, , last] = op.split(b.x('X', 'A'), 0, ['B', 'C', 'C2']);
    return op.add(op.reduceSum(op.exp(first!), [0]), op.reduceSum(op.exp(last!), [0]));
  },
  first: (b) => op.mul(op.first(b.x('X', 'A'), 'C'), b.x('C', 'A')),
  linear: (b) => op.linear(b.x('A', 'B'), b.x('C', 'B')),
  'linear, held transposed': (b) => op.linear(b.x('A', 'B'), b.x('B', 'C')),
  'matmul, a and b transposed': (b) => op.matmul(b.x('A', 'C', 'B'), b.x('A', 'D', 'C'), { transA: true, transB: true, alpha: 0.5 }),
  'matmul, a transposed': (b) => op.matmul(b.x('A', 'C', 'B'), b.x('A', 'C', 'D'), { transA: true }),
  'matmul, both in batch order': (b) =>
    op.matmul(b.x('B', 'A', 'C'), b.x('D', 'A', 'C'), { batchA: true, batchB: true, transB: true, alpha: 0.3 }),
  'matmul, b in batch order, two batch axes': (b) => op.matmul(b.x('A', 'B', 'C', 'D'), b.x('D', 'A', 'B', 'C2'), { batchB: true }),
  'matmul of a transposition': (b) => op.matmul(op.transpose(b.x('B', 'A', 'C'), [1, 0, 2]), b.x('A', 'C', 'D')),
  gather: (b) => op.gather(b.x('A', 'B'), b.fixed(indexes(b, 'C', 'A'), ['C'], true)),
  'gather of numbers': (b) => op.gather(b.x('A'), b.fixed(indexes(b, 'C', 'A'), ['C'], true)),
  arrange: (b) => {
    const { index, inverse } = permutation(b, 'A*B');
    return op.mul(op.arrange(b.x('A*B', 'C'), b.fixed(index, ['A', 'B'], true), b.fixed(inverse, ['A*B'], true)), b.x('A', 'B', 'C'));
  },
  'arrange, back': (b) => {
    const { index, inverse } = permutation(b, 'A*B');
    return op.exp(op.arrange(b.x('A*B', 'C'), b.fixed(index, ['A*B'], true), b.fixed(inverse, ['A', 'B'], true)));
  },
  'arrange, with places that do not matter': (b) => {
    const { index, inverse } = permutation(b, 'A');
    const shown = b.fixed(
      index.flatMap((row) => [row, 0]),
      ['A', '2'],
      true,
    );
    const places = b.fixed(
      inverse.map((place) => 2 * place),
      ['A'],
      true,
    );
    return op.mul(op.arrange(b.x('A', 'C'), shown, places), b.fixed([1, 0], ['2', '1']));
  },
  scatterSum: (b) => op.scatterSum(b.x('C', 'B'), b.fixed(indexes(b, 'C', 'A'), ['C'], true), 'A'),
  'scatterSum of numbers': (b) => op.scatterSum(b.x('C'), b.fixed(indexes(b, 'C', 'A'), ['C'], true), 'A'),
  gatherColumns: (b) => op.gatherColumns(b.x('A', 'B'), b.fixed(indexes(b, 'A*C', 'B'), ['A', 'C'], true)),
  logLikelihood: (b) => op.mul(op.logLikelihood(b.x('A', 'B'), b.fixed(indexes(b, 'A', 'B'), ['A', '1'], true)), b.x('A', '1')),
  softmax: (b) => op.softmax(b.x('A', 'B', 'C')),
  logSoftmax: (b) => op.logSoftmax(b.x('A', 'B')),
  rmsNorm: (b) => op.rmsNorm(b.x('A', 'B', 'D'), 1e-5),
  rotary: (b) => {
    const half = b.sizes['D']! / 2;
    const angles = Array.from({ length: 9 * half }, (_, i) => Math.floor(i / half) * 3 ** -(i % half));
    const positions = b.fixed(indexes(b, 'A*B', '9'), ['A', 'B'], true);
    const table = (f: (angle: number) => number) => b.graph.constant(Float32Array.from(angles, f), ['9', String(half)]);
    return op.rotary(b.x('A', 'B', 'C*D'), positions, table(Math.cos), table(Math.sin));
  },
  attention: (b) => op.attention(b.x('A', 'B', 'C', 'D'), b.x('A2', 'B', 'C', 'D'), b.x('A2', 'B', 'C', 'D'), whole(b), 0.6, true),
  'attention, queries in head order': (b) =>
    op.attention(b.x('B', 'C', 'A', 'D'), b.x('A2', 'B', 'C', 'D'), b.x('A2', 'B', 'C', 'D'), whole(b), 0.6, false),
  'attention with shared operands': (b) => {
    const x = b.x('A', 'B', 'C', 'D');
    const keys = op.rename(x, ['A2', 'B', 'C', 'D']);
    return op.attention(x, keys, keys, whole(b), 0.6, true);
  },
  'attention in chunks': (b) => op.attention(b.x('X', 'A', 'D'), b.x('X2', 'A', 'D'), b.x('X2', 'A', 'D'), chunked(b), 0.6, true),
  'attention in chunks, queries in head order': (b) =>
    op.attention(b.x('A', 'X', 'D'), b.x('X2', 'A', 'D'), b.x('X2', 'A', 'D'), chunked(b), 0.6, false),
};

const sizeOf = (b: Bench, axis: string) => axis.split('*').reduce((product, factor) => product * (b.sizes[factor] ?? Number(factor)), 1);
/** Even tenths: -0.4, -0.2, ... from `from` on. */
const evenTenths = (b: Bench, count: string, from: number) =>
  Array.from({ length: sizeOf(b, count) }, () => (from + 2 * b.random.below(2)) / 10);
const indexes = (b: Bench, count: string, below: string) =>
  Array.from({ length: sizeOf(b, count) }, () => b.random.below(sizeOf(b, below)));
/** One chunk of all A queries. */
function whole(b: Bench): Chunk[] {
  const [n, rows] = [b.sizes['A']!, b.sizes['B']!];
  const mask = Array.from({ length: rows * n * n }, (_, i) => (i % n <= Math.floor(i / n) % n ? 0 : -1e9));
  return [{ queries: 'A', keys: 'A2', added: 'A2', mask: b.fixed(mask, ['B', '1', 'A', 'A2']) }];
}
/** X = C + C + B queries in three chunks, of which each sees the tokens up to its own. */
function chunked(b: Bench): Chunk[] {
  let from = 0;
  return (
    [
      ['C', 'C'],
      ['C', '2*C'],
      ['B', 'X2'],
    ] as const
  ).map(([queries, keys]) => {
    const [count, seen] = [sizeOf(b, queries), sizeOf(b, keys)];
    const mask = Array.from({ length: count * seen }, (_, i) => (i % seen <= from + Math.floor(i / seen) ? 0 : -1e9));
    from += count;
    return { queries, keys, added: queries, mask: b.fixed(mask, ['1', queries, keys]) };
  });
}

/** Coordinates checked of each input, at most. */
const COORDINATES = 8;
/** Step of the differences. With the fourth-order stencil its own error is about h^4; float32 outputs add about 1e-7 / h. */
const STEP = 0.02;
const STENCIL = [
  [1, 8 / 12],
  [-1, -8 / 12],
  [2, -1 / 12],
  [-2, 1 / 12],
] as const;

async function check(name: string, sizes: Record<string, number>, seed: number): Promise<void> {
  const random = new Random(['operators', name, seed]);
  const graph = new Graph({ ...sizes, A2: { sameAs: 'A' }, C2: { sameAs: 'C' }, X: sizes['B']! + 2 * sizes['C']!, X2: { sameAs: 'X' } });
  const feeds: Record<string, Feed> = {};
  const inputs: Value[] = [];
  const input = (axes: string[], draw: () => number) => {
    const value = graph.input(`x${inputs.length}`, 'float32', axes);
    const dims = axes.map((axis) => sizeOf(bench, axis));
    feeds[value.name] = { data: Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, draw), dims };
    inputs.push(value);
    return value;
  };
  const bench: Bench = {
    graph,
    sizes: { ...sizes, A2: sizes['A']!, C2: sizes['C']!, X: sizes['B']! + 2 * sizes['C']!, X2: sizes['B']! + 2 * sizes['C']! },
    random,
    x: (...axes) => input(axes, () => random.normal()),
    tenths: (...axes) => input(axes, () => (2 * random.below(10) - 9) / 10),
    fixed(data, axes, integer = false) {
      const key = `f${Object.keys(feeds).length}`;
      const dims = axes.map((axis) => sizeOf(bench, axis));
      feeds[key] = { data: integer ? BigInt64Array.from(Array.from(data), BigInt) : Float32Array.from(data), dims };
      return graph.input(key, integer ? 'int64' : 'float32', axes);
    },
  };
  const y = OPERATORS[name]!(bench);
  const weights = graph.input('w', 'float32', y.axes);
  const dims = y.axes.map((axis) => sizeOf(bench, axis));
  const w = Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, () => random.normal());
  const flows = gradients(op.total(op.mul(y, weights)), inputs);
  const session = `${name} ${seed}`;
  await lane.load(session, graph.emit({ y, ...Object.fromEntries(flows.map((flow, i) => [`d${i}`, flow])) }));
  // The projection is summed in double precision here, so that only the rounding of y itself disturbs the differences.
  const project = async (changed: Record<string, Feed>) => {
    const out = (await run(session, { ...changed, w: { data: w, dims } }))['y']!;
    return out.reduce((sum, value, i) => sum + value * w[i]!, 0);
  };
  const found = await run(session, { ...feeds, w: { data: w, dims } });
  for (const [i, input] of inputs.entries()) {
    const { data, dims: shape } = feeds[input.name] as { data: Float32Array; dims: number[] };
    const gradient = found[`d${i}`]!;
    assert.equal(gradient.length, data.length);
    const scale = 1 + gradient.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    for (const at of random.shuffled([...data.keys()]).slice(0, COORDINATES)) {
      let difference = 0;
      for (const [steps, factor] of STENCIL) {
        const moved = data.slice();
        moved[at]! += steps * STEP;
        difference += (factor * (await project({ ...feeds, [input.name]: { data: moved, dims: shape } }))) / STEP;
      }
      const error = Math.abs(difference - gradient[at]!);
      assert.ok(
        error < 1e-3 * scale,
        `${name}: d/d${input.name}[${at}] is ${gradient[at]}, differences say ${difference} (${JSON.stringify(sizes)})`,
      );
    }
  }
}

for (const name of Object.keys(OPERATORS)) {
  test(`gradient of ${name}`, async () => {
    const size = fc.integer({ min: 1, max: 4 });
    const sizes = fc.record({ A: size, B: size, C: size, D: fc.constantFrom(2, 4, 6) });
    await fc.assert(
      fc.asyncProperty(sizes, fc.nat(1e6), (shape, seed) => check(name, shape, seed)),
      { numRuns: 10, seed: 7, endOnFailure: true },
    );
  });
}

test('no operator is without such a check', () => {
  const helpers = ['one', 'requireRank', 'restoreFirst', 'zeros'];
  const checked = new Set(Object.keys(OPERATORS).map((name) => /^\w+/.exec(name)![0]));
  assert.deepEqual(
    [...checked].sort(),
    Object.keys(op)
      .filter((name) => !helpers.includes(name))
      .sort(),
  );
});

const graph = () => new Graph({ A: 2, B: 3, T: 'symbolic', S: { sameAs: 'T' }, R: 'symbolic' });

test('axes that do not fit are refused when the graph is built, by name', () => {
  const g = graph();
  const x = g.input('x', 'float32', ['T', 'A']);
  const y = g.input('y', 'float32', ['T', 'B']);
  assert.throws(() => op.add(x, y), { name: 'AxisError', message: "Add: [T, A] and [T, B] differ: 'A' is not 'B'" });
  assert.throws(() => op.linear(x, y), { name: 'AxisError', message: /\[T, A\] times \[B, T\]/ });
  assert.throws(() => op.reshape(x, ['A', 'T']), { name: 'AxisError', message: /\[T, A\] cannot become \[A, T\]/ });
  assert.throws(() => op.rename(x, ['R', 'A']), { name: 'AxisError', message: /sizes differ/ });
  assert.throws(() => op.expand(x, ['T', 'A', 'B']), AxisError);
  assert.throws(() => g.input('z', 'float32', ['Q']), { name: 'AxisError', message: /'Q' is not declared/ });
  assert.throws(() => gradients(x, [x]), { name: 'AxisError', message: /the loss must have no axes, not \[T, A\]/ });
  assert.throws(() => gradients(op.total(x), [y]), { name: 'AxisError', message: /does not depend on 'y'/ });
  const bare = g.node('Round', [x], { outputs: [{ axes: x.axes }] })[0]!;
  assert.throws(() => gradients(op.total(bare), [x]), { name: 'AxisError', message: /Round: this operator has no gradient/ });
  assert.throws(() => op.concat([x, y], 0, 'T'), { name: 'AxisError', message: /\[T, A\] and \[T, B\] differ beside axis 0/ });
  assert.throws(() => op.split(x, 2, ['T']), { name: 'AxisError', message: /\[T, A\] has no axis 2/ });
  assert.throws(() => op.clip(x, y, x), { name: 'AxisError', message: /'A' is not 'B'/ });
  assert.throws(() => op.clip(op.reduceSum(x, [0]), x, x), { name: 'AxisError', message: /clip: \[T, A\] does not repeat to \[1, A\]/ });
});

test('symbolic axes take their sizes from the run', async () => {
  const g = graph();
  const x = g.input('x', 'float32', ['T', 'R', 'A']);
  await lane.load('symbolic', g.emit({ y: op.total(op.exp(op.reshape(op.reshape(x, ['T*R', 'A']), ['T', 'R*A']))) }));
  for (const [T, R] of [
    [3, 2],
    [1, 5],
  ] as const) {
    const { y } = await lane.run('symbolic', { x: { data: new Float32Array(T * R * 2), dims: [T, R, 2] } });
    assert.deepEqual([...y!], [T * R * 2]); // exp(0) = 1, summed
  }
});

test('a run that cannot be done is an error, and the lane goes on', async () => {
  await assert.rejects(lane.run('no such session', {}), /no session 'no such session'/);
  const g = graph();
  await lane.load('small', g.emit({ y: op.exp(g.input('x', 'float32', ['A'])) }));
  await assert.rejects(lane.run('small', { x: { data: new Float32Array(3), dims: [3] } }), /ONNX Runtime: .*dimensions/s);
  assert.equal((await lane.run('small', { x: { data: new Float32Array(2), dims: [2] } }))['y']!.length, 2);
});
