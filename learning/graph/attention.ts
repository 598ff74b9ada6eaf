/**
 * Attention over tokens that come after everything they see: queries are taken in chunks, each with the keys up to its own end only. One operator with its
 * own gradient, because gradients of keys that several chunks see are summed over as few keys as possible. It knows nothing of heads or positions.
 */
import { add, concat, first, matmul, mul, reduceSum, restoreFirst, softmax, split, sub } from './operators.ts';
import type { Value } from './graph.ts';

/** A chunk of queries. */
export interface Chunk {
  /** The axis of its queries. */
  queries: string;
  /** The axis of the keys that it sees, the first ones; the last chunk sees all. */
  keys: string;
  /** The axis of those that the chunk before does not see. */
  added: string;
  /** Repeats to [batch.., queries, keys], is added to the scores, and gets no gradient. */
  mask: Value;
}

/**
 * softmax(alpha * q k^T + mask) v. Shapes: q [batch.., T, E] or with `batchQ` [T, batch.., E], its T cut into the chunks; k and v [S, batch.., E]. Result
 * [batch.., T, E]. The gradient uses sum(dP * P) = sum(dO * O), a shorter sum (arXiv 2205.14135, App. B).
 */
export function attention(q: Value, k: Value, v: Value, chunks: readonly Chunk[], alpha: number, batchQ: boolean): Value {
  const last = q.axes.length - 1;
  const place = last - 1;
  const cut = (value: Value, at: number) =>
    chunks.length === 1
      ? [value]
      : split(
          value,
          at,
          chunks.map(({ queries }) => queries),
        );
  const join = (parts: Value[]) => (parts.length === 1 ? parts[0]! : concat(parts, place, q.axes[batchQ ? 0 : place]!));
  const parts = cut(q, batchQ ? 0 : place).map((own, c) => {
    const { keys, mask } = chunks[c]!;
    const [ks, vs] = [first(k, keys), first(v, keys)];
    const p = softmax(add(matmul(own, ks, { batchA: batchQ, batchB: true, transB: true, alpha }), mask));
    return { own, ks, vs, p, out: matmul(p, vs, { batchB: true }) };
  });
  const out = join(parts.map((part) => part.out));
  return out.graph.alias('attention', out, out.axes, [q, k, v, ...chunks.map(({ mask }) => mask)], ([dy]) => {
    const gradients = cut(dy!, place).map((d, c) => {
      const { own, ks, vs, p, out: o } = parts[c]!;
      const dp = matmul(d, vs, { batchB: true, transB: true });
      const ds = mul(p, sub(dp, reduceSum(mul(d, o), [last])));
      return {
        dq: matmul(ds, ks, { batchB: true, alpha }),
        dk: matmul(ds, own, { transA: true, batchB: batchQ, alpha }),
        dv: matmul(p, d, { transA: true }),
      };
    });
    const dq = join(gradients.map((one) => one.dq));
    const [dk, dv] = (['dk', 'dv'] as const).map((name) =>
      sumOfFirsts(
        gradients.map((one) => one[name]),
        chunks,
        place,
      ),
    ) as [Value, Value];
    return [batchQ ? restoreFirst(dq) : dq, restoreFirst(dk), restoreFirst(dv)];
  });
}

/** The sum of what the chunks say of the keys that they see. */
function sumOfFirsts(values: Value[], chunks: readonly Chunk[], place: number): Value {
  let sum = values.at(-1)!;
  const done: Value[] = [];
  for (let c = chunks.length - 2; c >= 0; c--) {
    const [seen, rest] = split(sum, place, [chunks[c]!.keys, chunks[c + 1]!.added]) as [Value, Value];
    done.unshift(rest);
    sum = add(seen, values[c]!);
  }
  return done.length === 0 ? sum : concat([sum, ...done], place, chunks.at(-1)!.keys);
}
