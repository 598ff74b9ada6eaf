/** Operators that pick and sum by index, with their gradients. Indexes are int64 tensors and get none. */
import { currentProvider } from '../providers.ts';
import { AxisError, showAxes } from './graph.ts';
import type { Value } from './graph.ts';
import { DATA_TYPE } from './onnx.ts';
import { exp, expand, logSoftmax, matmul, mul, one, requireRank, reshape, scale, zeros } from './operators.ts';

/** Rows (or elements) of x along its outermost axis: out[p] = x[index[p]]. */
export function gather(x: Value, index: Value): Value {
  requireRank('gather', index, 1);
  const axes = [index.axes[0]!, ...x.axes.slice(1)];
  return one(
    x.graph.node('Gather', [x, index], {
      outputs: [{ axes, type: x.type }],
      attributes: { axis: 0 },
      backward: ([dy]) => [scatterSum(dy!, index, x.axes[0]!), undefined],
    }),
  );
}

/**
 * out[n] = sum of x[p] where index[p] = n, for the n of `axis`. ScatterElements with reduction add runs in index order on the CPU, hence gives the
 * same bits every time; ScatterND does not.
 */
export function scatterSum(x: Value, index: Value, axis: string): Value {
  const { graph } = x;
  requireRank('scatterSum', index, 1);
  if (x.axes[0] !== index.axes[0]) throw new AxisError('scatterSum', `${showAxes(x.axes)} and index ${showAxes(index.axes)} differ`);
  if (currentProvider().name !== 'cpu' && x.axes.length === 2 && graph.size(axis) !== 'symbolic') return oneHotSum(x, index, axis);
  const axes = [axis, ...x.axes.slice(1)];
  const wide = one(
    graph.node('Reshape', [index, graph.integers([-1, ...x.axes.slice(1).map(() => 1)])], {
      outputs: [{ axes: [x.axes[0]!, ...x.axes.slice(1).map(() => '1')], type: 'int64' }],
    }),
  );
  const indexes = one(graph.node('Expand', [wide, graph.shape(x.axes)], { outputs: [{ axes: x.axes, type: 'int64' }] }));
  return one(
    graph.node('ScatterElements', [zeros(x, axes), indexes, x], {
      outputs: [{ axes }],
      attributes: { axis: 0, reduction: 'add' },
      backward: ([dy]) => [undefined, undefined, gather(dy!, index)],
    }),
  );
}

/**
 * `scatterSum` of rows into a table as the product with the index's one-hot matrix: devices add scattered numbers in the order of their threads, that is in
 * none, and the rows of an embedding's gradient meet often. (Reads of states are distinct, so their scattering has no order to lose.)
 */
function oneHotSum(x: Value, index: Value, axis: string): Value {
  const { graph } = x;
  const [rows] = index.axes as [string];
  const cast = (value: Value, axes: readonly string[]) =>
    one(graph.node('Cast', [value], { outputs: [{ axes }], attributes: { to: DATA_TYPE.float32 } }));
  // Float32 holds every index below 2^24; devices without 64-bit integers compare it all the same.
  const column = reshape(cast(index, [rows]), [rows, '1']);
  const places = graph.constant(
    Float32Array.from({ length: graph.size(axis) as number }, (_, i) => i),
    [axis],
  );
  const equal = one(graph.node('Equal', [column, places], { outputs: [{ axes: [rows, axis], type: 'bool' }] }));
  return matmul(cast(equal, [rows, axis]), x, { transA: true });
}

/** out[p, j] = x[p, index[p, j]]. */
export function gatherColumns(x: Value, index: Value): Value {
  const { graph } = x;
  if (x.axes.length !== 2 || index.axes.length !== 2 || x.axes[0] !== index.axes[0])
    throw new AxisError('gatherColumns', `${showAxes(x.axes)} and index ${showAxes(index.axes)} do not fit`);
  return one(
    graph.node('GatherElements', [x, index], {
      outputs: [{ axes: index.axes }],
      attributes: { axis: 1 },
      backward: ([dy]) => {
        const outputs = [{ axes: x.axes }];
        const attributes = { axis: 1, reduction: 'add' };
        return [one(graph.node('ScatterElements', [zeros(x, x.axes), index, dy!], { outputs, attributes })), undefined];
      },
    }),
  );
}

/** The log-probability [P, 1] of column index[p] under softmax(x[p]), x [P, V]. The gradient, onehot - softmax, is made in place of the probabilities. */
export function logLikelihood(x: Value, index: Value): Value {
  const y = logSoftmax(x);
  const picked = gatherColumns(y, index);
  return picked.graph.alias('logLikelihood', picked, picked.axes, [x, index], ([dy]) => {
    const ones = expand(x.graph.scalar(-1), index.axes);
    const attributes = { axis: 1, reduction: 'add' };
    const wrong = one(x.graph.node('ScatterElements', [exp(y), index, ones], { outputs: [{ axes: x.axes }], attributes }));
    return [mul(wrong, scale(dy!, -1)), undefined];
  });
}
