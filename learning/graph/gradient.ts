/** Reverse-mode differentiation: adds to a graph the nodes that compute d loss / d values. Second derivatives are not its business. */
import { AxisError, showAxes } from './graph.ts';
import type { Value } from './graph.ts';
import { add } from './operators.ts';

/** For every value that `to` is computed from: whether it is one of `from` or computed from one. */
function between(to: Value, from: Value[]): Map<Value, boolean> {
  const known = new Map<Value, boolean>(from.map((value) => [value, true]));
  const matters = (value: Value): boolean => {
    const before = known.get(value);
    if (before !== undefined) return before;
    known.set(value, false);
    const result = value.node?.inputs.map(matters).includes(true) ?? false;
    known.set(value, result);
    return result;
  };
  matters(to);
  return known;
}

/** Whether a value is computed from another. */
export const dependsOn = (value: Value, other: Value): boolean => between(value, [other]).get(value) === true;

/** The gradients of a scalar with respect to `values`, in their order and with their axes. A value that the loss does not depend on is an error. */
export function gradients(loss: Value, values: Value[]): Value[] {
  if (loss.axes.length !== 0) throw new AxisError('gradients', `the loss must have no axes, not ${showAxes(loss.axes)}`);
  // What lies between the values and the loss, in the order of creation, which is an order of computation.
  const wanted = between(loss, values);
  const path = [...wanted].filter(([value, on]) => on && value.node).map(([value]) => value);
  const found = new Map<Value, Value>([[loss, loss.graph.scalar(1)]]);
  const done = new Set<object>();
  const { graph } = loss;
  const { section } = graph;
  for (const value of path.sort((a, b) => b.id - a.id)) {
    const node = value.node!;
    if (done.has(node) || !node.outputs.some((output) => found.has(output))) continue;
    done.add(node);
    if (!node.backward) throw new AxisError(node.op, 'this operator has no gradient');
    graph.section = `gradient of ${node.section}`;
    const flows = node.backward(node.outputs.map((output) => found.get(output)));
    node.inputs.forEach((input, i) => {
      const flow = flows[i];
      if (!flow || !wanted.get(input)) return;
      if (flow.axes.join() !== input.axes.join())
        throw new AxisError(node.op, `its gradient has the axes ${showAxes(flow.axes)}, its operand ${showAxes(input.axes)}`);
      const before = found.get(input);
      found.set(input, before ? add(before, flow) : flow);
    });
  }
  graph.section = section;
  return values.map((value) => {
    const gradient = found.get(value);
    if (!gradient) throw new AxisError('gradients', `the loss does not depend on '${value.name}' ${showAxes(value.axes)}`);
    return gradient;
  });
}
