/** Operators that pick and sum by index, with their gradients. Indexes are int64 tensors and get none. */
import { currentProvider } from '../providers.ts';
import { AxisError, showAxes } from './graph.ts';
import type { Backward, Value } from './graph.ts';
import { DATA_TYPE } from './onnx.ts';
import { expand, logSoftmax, matmul, mul, one, requireRank, reshape, scale, softmax, zeros } from './operators.ts';

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
 * Rows of x in other places: out[p..] = x[index[p..]], and row n lies at place inverse[n..] of the flattened out. Of all places that show the same row only this
 * one may matter to what is differentiated: the gradient of a row is picked there instead of summed.
 */
export function arrange(x: Value, index: Value, inverse: Value): Value {
  const [rows, ...rest] = x.axes;
  if (rows !== inverse.axes.join('*')) throw new AxisError('arrange', `${showAxes(x.axes)} and inverse ${showAxes(inverse.axes)} differ`);
  const flat = [index.axes.join('*'), ...rest];
  return one(
    x.graph.node('Gather', [x, index], {
      outputs: [{ axes: [...index.axes, ...rest] }],
      attributes: { axis: 0 },
      backward: ([dy]) => [reshape(arrange(reshape(dy!, flat), inverse, index), x.axes), undefined],
    }),
  );
}

/**
 * out[n] = sum of x[p] where index[p] = n, for the n of `axis`. On the CPU ScatterND adds row after row in the order of the index where its session has one
 * thread, as all of ours have (`lanes/lane-worker.ts`): the same bits every time, and those of ScatterElements, which takes eight times as long.
 */
export function scatterSum(x: Value, index: Value, axis: string): Value {
  const { graph } = x;
  requireRank('scatterSum', index, 1);
  if (x.axes[0] !== index.axes[0]) throw new AxisError('scatterSum', `${showAxes(x.axes)} and index ${showAxes(index.axes)} differ`);
  const onCpu = currentProvider().name === 'cpu';
  if (!onCpu && x.axes.length === 2 && graph.size(axis) !== 'symbolic') return oneHotSum(x, index, axis);
  const axes = [axis, ...x.axes.slice(1)];
  const inner = onCpu ? ['1'] : x.axes.slice(1).map(() => '1');
  const column = one(
    graph.node('Reshape', [index, graph.integers([-1, ...inner.map(() => 1)])], {
      outputs: [{ axes: [x.axes[0]!, ...inner], type: 'int64' }],
    }),
  );
  const outputs = [{ axes }];
  const backward: Backward = ([dy]) => [undefined, undefined, gather(dy!, index)];
  if (onCpu) return one(graph.node('ScatterND', [zeros(x, axes), column, x], { outputs, attributes: { reduction: 'add' }, backward }));
  const indexes = one(graph.node('Expand', [column, graph.shape(x.axes)], { outputs: [{ axes: x.axes, type: 'int64' }] }));
  const attributes = { axis: 0, reduction: 'add' };
  return one(graph.node('ScatterElements', [zeros(x, axes), indexes, x], { outputs, attributes, backward }));
}

/**
 * `scatterSum` of rows into a table as the product with the index's one-hot matrix: devices add scattered numbers in the order of their threads, that is in
 * none, and the rows of an embedding's gradient meet often. (Reads of states are distinct unless a caller repeats them, so
 * their scattering has no order to lose.)
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

/**
 * The log-probability [P, 1] of column index[p] under softmax(x[p]), x [P, V]. The gradient, onehot - softmax, is made in place of the probabilities, which are
 * a softmax again: a third of what exp of the log-probabilities costs.
 */
export function logLikelihood(x: Value, index: Value): Value {
  const picked = gatherColumns(logSoftmax(x), index);
  return picked.graph.alias('logLikelihood', picked, picked.axes, [x, index], ([dy]) => {
    const ones = expand(x.graph.scalar(-1), index.axes);
    const attributes = { axis: 1, reduction: 'add' };
    const wrong = one(x.graph.node('ScatterElements', [softmax(x), index, ones], { outputs: [{ axes: x.axes }], attributes }));
    return [mul(wrong, scale(dy!, -1)), undefined];
  });
}
