/**
 * The operators of the tensor language with their gradients: plain ONNX where that is enough, ONNX Runtime's own (com.microsoft) where they save a
 * pass over memory. An operator that has no gradient here says so when it is differentiated.
 */
import { AxisError, showAxes } from './graph.ts';
import type { Backward, Value } from './graph.ts';
import { DATA_TYPE } from './onnx.ts';

export const one = (values: Value[]) => values[0] as Value;
const same = (a: readonly string[], b: readonly string[]) => a.length === b.length && a.every((axis, i) => axis === b[i]);

export function requireRank(op: string, x: Value, rank: number): void {
  if (x.axes.length !== rank) throw new AxisError(op, `needs ${rank} axes, got ${showAxes(x.axes)}`);
}

// --- elementwise -----------------------------------------------------------------------------------------------------------------------------------

/** Axes of an elementwise result: aligned at the innermost axis, '1' and missing outer axes are repeated. */
function broadcast(op: string, a: Value, b: Value): string[] {
  const rank = Math.max(a.axes.length, b.axes.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a.axes[i - rank + a.axes.length] ?? '1';
    const y = b.axes[i - rank + b.axes.length] ?? '1';
    if (x !== y && x !== '1' && y !== '1')
      throw new AxisError(op, `${showAxes(a.axes)} and ${showAxes(b.axes)} differ: '${x}' is not '${y}'`);
    return x === '1' ? y : x;
  });
}

/** Sums a gradient over the axes along which its operand was repeated. */
function reduceTo(gradient: Value, axes: readonly string[]): Value {
  if (same(gradient.axes, axes)) return gradient;
  const extra = gradient.axes.length - axes.length;
  const repeated = gradient.axes.flatMap((axis, i) => (i < extra || axes[i - extra] !== axis ? [i] : []));
  return reshape(reduceSum(gradient, repeated), axes);
}

function binary(op: string, a: Value, b: Value, backward: (dy: Value) => (Value | undefined)[]): Value {
  return one(a.graph.node(op, [a, b], { outputs: [{ axes: broadcast(op, a, b) }], backward: ([dy]) => backward(dy!) }));
}
export function add(a: Value, b: Value): Value {
  return binary('Add', a, b, (dy) => [reduceTo(dy, a.axes), reduceTo(dy, b.axes)]);
}
export function sub(a: Value, b: Value): Value {
  return binary('Sub', a, b, (dy) => [reduceTo(dy, a.axes), reduceTo(scale(dy, -1), b.axes)]);
}
export function mul(a: Value, b: Value): Value {
  return binary('Mul', a, b, (dy) => [reduceTo(mul(dy, b), a.axes), reduceTo(mul(dy, a), b.axes)]);
}
/** x times a number known when the graph is built. */
export function scale(x: Value, factor: number): Value {
  return one(x.graph.node('Mul', [x, x.graph.scalar(factor)], { outputs: [{ axes: x.axes }], backward: ([dy]) => [scale(dy!, factor)] }));
}
function unary(op: string, x: Value, derivative: (dy: Value, y: Value) => Value): Value {
  const y: Value = one(x.graph.node(op, [x], { outputs: [{ axes: x.axes }], backward: ([dy]) => [derivative(dy!, y)] }));
  return y;
}
export function sigmoid(x: Value): Value {
  return unary('Sigmoid', x, (dy, y) => mul(dy, sub(y, mul(y, y))));
}
/** log(1 + exp x). */
export function softplus(x: Value): Value {
  return unary('Softplus', x, (dy) => mul(dy, sigmoid(x)));
}
export function exp(x: Value): Value {
  return unary('Exp', x, (dy, y) => mul(dy, y));
}
/**
 * x held between `low` and `high`, which repeat to its axes and get no gradient. Where x is moved its gradient is 0; on a bound it is 1 (as in
 * PyTorch's clamp).
 */
export function clip(x: Value, low: Value, high: Value): Value {
  const { graph, axes } = x;
  for (const bound of [low, high])
    if (!same(broadcast('clip', x, bound), axes))
      throw new AxisError('clip', `${showAxes(bound.axes)} does not repeat to ${showAxes(axes)}`);
  const raised = one(graph.node('Max', [x, low], { outputs: [{ axes }] }));
  const y = one(graph.node('Min', [raised, high], { outputs: [{ axes }] }));
  return graph.alias('clip', y, axes, [x, low, high], ([dy]) => {
    const kept = one(graph.node('Equal', [x, y], { outputs: [{ axes, type: 'bool' }] }));
    const factor = one(graph.node('Cast', [kept], { outputs: [{ axes }], attributes: { to: DATA_TYPE.float32 } }));
    return [mul(dy!, factor), undefined, undefined];
  });
}
/** x * sigmoid(x), in one pass (QuickGelu with alpha 1). */
export function silu(x: Value): Value {
  const y: Value = one(
    x.graph.node('QuickGelu', [x], {
      outputs: [{ axes: x.axes }],
      domain: 'com.microsoft',
      attributes: { alpha: { float: 1 } },
      backward: ([dy]) => {
        const s = sigmoid(x);
        return [mul(dy!, add(s, sub(y, mul(y, s))))]; // d/dx = s + y (1 - s)
      },
    }),
  );
  return y;
}

// --- shape -----------------------------------------------------------------------------------------------------------------------------------------

/** The same numbers in the same order under other axes; the base axes, read from the outermost in, must stay the same. */
export function reshape(x: Value, axes: readonly string[]): Value {
  const { graph } = x;
  if (same(x.axes, axes)) return x;
  const flat = (list: readonly string[]) => list.flatMap((axis) => graph.factors(axis)).join('*');
  if (flat(x.axes) !== flat(axes))
    throw new AxisError('reshape', `${showAxes(x.axes)} cannot become ${showAxes(axes)}: the base axes differ`);
  const shape = graph.shape(axes, x.axes);
  return one(graph.node('Reshape', [x, shape], { outputs: [{ axes }], backward: ([dy]) => [reshape(dy!, x.axes), undefined] }));
}

/** Other names for axes of the same sizes, e.g. the time axis of keys beside that of queries. Costs nothing. */
export function rename(x: Value, axes: readonly string[]): Value {
  const { graph } = x;
  if (axes.length !== x.axes.length || axes.some((axis, i) => !graph.sameSize(axis, x.axes[i]!)))
    throw new AxisError('rename', `${showAxes(x.axes)} cannot be called ${showAxes(axes)}: the sizes differ`);
  return graph.alias('rename', x, axes, [x], ([dy]) => [rename(dy!, x.axes)]);
}

/** Axis i of the result is axis order[i] of x. */
export function transpose(x: Value, order: number[]): Value {
  if (order.length !== x.axes.length || new Set(order).size !== order.length || order.some((i) => x.axes[i] === undefined))
    throw new AxisError('transpose', `order ${order.join()} does not fit ${showAxes(x.axes)}`);
  const attributes = { perm: order as number[] };
  const inverse = order.map((_, i) => order.indexOf(i));
  return one(
    x.graph.node('Transpose', [x], {
      outputs: [{ axes: order.map((i) => x.axes[i]!) }],
      attributes,
      backward: ([dy]) => [transpose(dy!, inverse)],
    }),
  );
}

/** Repeats along axes that are '1' in x or missing outside. */
export function expand(x: Value, axes: readonly string[]): Value {
  const { graph } = x;
  if (same(x.axes, axes)) return x;
  const extra = axes.length - x.axes.length;
  if (extra < 0 || x.axes.some((axis, i) => axis !== '1' && axis !== axes[i + extra]))
    throw new AxisError('expand', `${showAxes(x.axes)} does not repeat to ${showAxes(axes)}`);
  return one(graph.node('Expand', [x, graph.shape(axes)], { outputs: [{ axes }], backward: ([dy]) => [reduceTo(dy!, x.axes), undefined] }));
}

function reduce(op: 'ReduceSum' | 'ReduceMean', x: Value, over: number[]): Value {
  if (over.length === 0) return x;
  const axes = x.axes.map((axis, i) => (over.includes(i) ? '1' : axis));
  if (over.some((i) => x.axes[i] === undefined)) throw new AxisError(op, `axes ${over.join()} do not exist in ${showAxes(x.axes)}`);
  const backward: Backward = ([dy]) => {
    if (op === 'ReduceSum') return [expand(dy!, x.axes), undefined];
    const sizes = over.map((i) => x.graph.size(x.axes[i]!));
    if (sizes.includes('symbolic')) throw new AxisError(op, `no gradient over symbolic axes of ${showAxes(x.axes)}`);
    return [expand(scale(dy!, 1 / (sizes as number[]).reduce((a, b) => a * b, 1)), x.axes), undefined];
  };
  return one(x.graph.node(op, [x, x.graph.integers(over)], { outputs: [{ axes }], attributes: { keepdims: 1 }, backward }));
}
/** Sums over the axes at these places, which become '1'. */
export function reduceSum(x: Value, over: number[]): Value {
  return reduce('ReduceSum', x, over);
}
/** Means over the axes at these places, which become '1'. */
export function reduceMean(x: Value, over: number[]): Value {
  return reduce('ReduceMean', x, over);
}
/** The sum of all elements, without axes. */
export function total(x: Value): Value {
  return reshape(reduceSum(x, [...x.axes.keys()]), []);
}

/** Joins along one axis (by place); `axis` names the joined axis. */
export function concat(values: Value[], place: number, axis: string): Value {
  const [first] = values;
  for (const value of values) {
    if (value.axes.length !== first!.axes.length || value.axes.some((other, i) => i !== place && other !== first!.axes[i]))
      throw new AxisError('concat', `${values.map((v) => showAxes(v.axes)).join(' and ')} differ beside axis ${place}`);
  }
  const axes = first!.axes.map((old, i) => (i === place ? axis : old));
  const parts = values.map((value) => value.axes[place]!);
  return one(
    first!.graph.node('Concat', values, {
      outputs: [{ axes }],
      attributes: { axis: place },
      backward: ([dy]) => split(dy!, place, parts),
    }),
  );
}

/** Cuts one axis (by place) into parts of these lengths, which must add up to its own. The inverse of `concat`. */
export function split(x: Value, place: number, parts: string[]): Value[] {
  const { graph } = x;
  if (x.axes[place] === undefined) throw new AxisError('split', `${showAxes(x.axes)} has no axis ${place}`);
  const lengths = parts.map((part) => graph.shape([part]));
  const sizes = graph.node('Concat', lengths, { outputs: [{ axes: [String(parts.length)], type: 'int64' }], attributes: { axis: 0 } });
  const outputs = parts.map((part) => ({ axes: x.axes.map((axis, i) => (i === place ? part : axis)) }));
  return graph.node('Split', [x, one(sizes)], {
    outputs,
    attributes: { axis: place },
    backward: (flows) => [
      concat(
        flows.map((flow, i) => flow ?? zeros(x, outputs[i]!.axes)),
        place,
        x.axes[place]!,
      ),
      undefined,
    ],
  });
}

/** The first elements along the outermost axis, as many as `axis` has. */
export function first(x: Value, axis: string): Value {
  const { graph } = x;
  if (x.axes[0] === axis) return x;
  const axes = [axis, ...x.axes.slice(1)];
  const size = graph.shape([axis]);
  return one(
    graph.node('Slice', [x, graph.integers([0]), size, graph.integers([0])], {
      outputs: [{ axes }],
      backward: ([dy]) => {
        const rest = graph.node('Sub', [graph.shape([x.axes[0]!]), size], { outputs: [{ axes: ['1'], type: 'int64' }] });
        const pads = graph.node('Concat', [graph.integers([0]), one(rest)], {
          outputs: [{ axes: ['2'], type: 'int64' }],
          attributes: { axis: 0 },
        });
        const inputs = [dy!, one(pads), graph.scalar(0), graph.integers([0])];
        return [one(graph.node('Pad', inputs, { outputs: [{ axes: x.axes }] }))];
      },
    }),
  );
}

/** Zeros in the graph of x. */
export const zeros = (x: Value, axes: readonly string[]) =>
  one(x.graph.node('ConstantOfShape', [x.graph.shape(axes)], { outputs: [{ axes }] }));

// --- matrix product --------------------------------------------------------------------------------------------------------------------------------

export interface MatmulOptions {
  /** Transpose the last two axes of a / b. */
  transA?: boolean;
  transB?: boolean;
  /** First move the outermost axis of a / b to the second-to-last place: [M, batch.., K] is read as [batch.., M, K] without a copy. */
  batchA?: boolean;
  batchB?: boolean;
  /** Factor on the product. */
  alpha?: number;
}

const moveFirst = <T>(list: readonly T[]): T[] => [...list.slice(1, -1), list[0]!, list.at(-1)!];
const swapLast = <T>(list: readonly T[]): T[] => [...list.slice(0, -2), list.at(-1)!, list.at(-2)!];

/** Undoes the `batch` reading of a gradient: [batch.., M, K] back to [M, batch.., K]. */
export function restoreFirst(x: Value): Value {
  const rank = x.axes.length;
  return transpose(x, [rank - 2, ...Array.from({ length: rank - 2 }, (_, i) => i), rank - 1]);
}

/** A transposition that `batch` reading can absorb is not carried out. */
function absorb(x: Value, batch: boolean): { value: Value; batch: boolean } {
  const order = x.node?.op === 'Transpose' ? x.node.attributes['perm'] : undefined;
  if (!batch && Array.isArray(order) && order.length > 2 && same(order.map(String), moveFirst([...order.keys()]).map(String))) {
    return { value: x.node!.inputs[0]!, batch: true };
  }
  return { value: x, batch };
}

/** alpha * op(a) op(b) over the last two axes; the batch axes before them must be the same (ONNX Runtime's FusedMatMul). */
export function matmul(a: Value, b: Value, options: MatmulOptions = {}): Value {
  const { transA = false, transB = false, alpha = 1 } = options;
  const left = absorb(a, options.batchA ?? false);
  const right = absorb(b, options.batchB ?? false);
  const axesA = left.batch ? moveFirst(left.value.axes) : left.value.axes;
  const axesB = right.batch ? moveFirst(right.value.axes) : right.value.axes;
  const viewA = transA ? swapLast(axesA) : axesA;
  const viewB = transB ? swapLast(axesB) : axesB;
  const rank = viewA.length;
  if (rank < 2 || !same(viewA.slice(0, -2), viewB.slice(0, -2)) || viewA[rank - 1] !== viewB[rank - 2])
    throw new AxisError('matmul', `${showAxes(viewA)} times ${showAxes(viewB)}: the batch axes and the inner axis must be the same`);
  const flag = (on: boolean) => (on ? 1 : 0);
  return one(
    a.graph.node('FusedMatMul', [left.value, right.value], {
      domain: 'com.microsoft',
      outputs: [{ axes: [...viewA.slice(0, -1), viewB.at(-1)!] }],
      attributes: {
        transA: flag(transA),
        transB: flag(transB),
        transBatchA: flag(left.batch),
        transBatchB: flag(right.batch),
        alpha: { float: alpha },
      },
      backward: ([dy]) => {
        const [A, B, d] = [left.value, right.value, dy!];
        const da = transA
          ? matmul(B, d, { batchA: right.batch, transA: transB, transB: true, alpha })
          : matmul(d, B, { batchB: right.batch, transB: !transB, alpha });
        const db = transB
          ? matmul(d, A, { transA: true, batchB: left.batch, transB: transA, alpha })
          : matmul(A, d, { batchA: left.batch, transA: !transA, alpha });
        return [left.batch ? restoreFirst(da) : da, right.batch ? restoreFirst(db) : db];
      },
    }),
  );
}

/**
 * x [N, I] times a matrix that is held as Hugging Face does, [O, I], or transposed, [I, O]: it is the axis shared with x that says which. [I, O] is faster
 * (up to a quarter, at [512, 256] x [256, 768]) and so is [O, I] where O is the narrower side: for the gradient, the operand beside the shared axis is
 * transposed by itself, because ONNX Runtime multiplies by a transposed left operand at half the speed (54 against 99 GFLOP/s at [896, 96] x [896, 256]).
 */
export function linear(x: Value, weight: Value): Value {
  requireRank('linear', x, 2);
  requireRank('linear', weight, 2);
  const shared = x.axes[1];
  if (weight.axes.every((axis) => axis === shared))
    throw new AxisError('linear', `${showAxes(weight.axes)} does not say which axis is summed`);
  const plain = weight.axes[0] === shared;
  const out = matmul(x, weight, { transB: !plain });
  return out.graph.alias('linear', out, out.axes, [x, weight], ([dy]) => [
    matmul(dy!, weight, { transB: plain }),
    plain ? matmul(transpose(x, [1, 0]), dy!) : matmul(transpose(dy!, [1, 0]), x),
  ]);
}

// --- networks --------------------------------------------------------------------------------------------------------------------------------------

/** Softmax over the last axis. */
export function softmax(x: Value): Value {
  const last = x.axes.length - 1;
  const y: Value = one(
    x.graph.node('Softmax', [x], {
      outputs: [{ axes: x.axes }],
      attributes: { axis: -1 },
      backward: ([dy]) => [mul(y, sub(dy!, reduceSum(mul(dy!, y), [last])))],
    }),
  );
  return y;
}

/** Log of the softmax over the last axis. */
export function logSoftmax(x: Value): Value {
  const last = x.axes.length - 1;
  const y: Value = one(
    x.graph.node('LogSoftmax', [x], {
      outputs: [{ axes: x.axes }],
      attributes: { axis: -1 },
      backward: ([dy]) => [sub(dy!, mul(exp(y), reduceSum(dy!, [last])))],
    }),
  );
  return y;
}

/** x / sqrt(mean(x^2) + epsilon) over the last axis, without gain (RMSNorm, arXiv 1910.07467; gains are folded into the weights that follow). */
export function rmsNorm(x: Value, epsilon: number): Value {
  const last = x.axes.length - 1;
  const axis = x.axes[last]!;
  const size = x.graph.size(axis);
  if (size === 'symbolic') throw new AxisError('rmsNorm', `axis '${axis}' has no size before the run`);
  const ones = x.graph.constant(new Float32Array(size).fill(1), [axis]);
  const [y, inverse] = x.graph.node('SimplifiedLayerNormalization', [x, ones], {
    outputs: [{ axes: x.axes }, { axes: [...x.axes.slice(0, -1), '1'] }],
    attributes: { axis: -1, epsilon: { float: epsilon } },
    backward: ([dy]) => [mul(inverse!, sub(dy!, mul(y!, reduceMean(mul(dy!, y!), [last])))), undefined],
  }) as [Value, Value];
  return y;
}

/**
 * Rotary position embedding in Hugging Face's convention (arXiv 2104.09864): x [A, B, heads*E], positions [A, B], tables [M, E/2] of cosines and sines.
 * Its transpose is the rotation by the negated angle.
 */
export function rotary(x: Value, positions: Value, cosines: Value, sines: Value): Value {
  requireRank('rotary', x, 3);
  if (!same(positions.axes, x.axes.slice(0, 2)))
    throw new AxisError('rotary', `positions ${showAxes(positions.axes)} do not fit ${showAxes(x.axes)}`);
  return one(
    x.graph.node('RotaryEmbedding', [x, positions, cosines, sines], {
      domain: 'com.microsoft',
      outputs: [{ axes: x.axes }],
      attributes: { interleaved: 0 },
      backward: ([dy]) => [rotary(dy!, positions, cosines, scale(sines, -1)), undefined, undefined, undefined],
    }),
  );
}
