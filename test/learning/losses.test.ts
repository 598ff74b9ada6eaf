/**
 * The losses alone, over given scores and logits: published and hand-computed values, and what each refuses. (With the model beneath them they are
 * checked in `objectives.test.ts` by differences, and in `parity.test.ts` against PyTorch.)
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { pack } from '../../learning/batch.ts';
import { gradients } from '../../learning/graph/gradient.ts';
import { Graph } from '../../learning/graph/graph.ts';
import { Lane } from '../../learning/lanes/lane.ts';
import { OBJECTIVE_AXES, formOf, lossOf } from '../../learning/objectives.ts';
import { batchFeeds } from '../../learning/terms.ts';
import type { LlamaConfig, PolicyGradientTerms, PreferenceTerms, Terms } from '../../learning/types.ts';
import { chain, tinyModel } from './reference.ts';

let lane: Lane;
before(() => {
  lane = new Lane();
});
after(() => lane.close());

const causal = tinyModel(1).config;
const TREE = chain([0, 0, 0, 0, 0, 0]);
const nodes = (count: number) => Array.from({ length: count }, (_, node) => ({ tree: 0, node }));

/** The feeds of terms over one tree of six nodes. */
function feedsOf(terms: Terms, config: LlamaConfig) {
  const packed = pack([TREE], terms.reads, { vocabulary: config.vocab_size, context: 64 }, false);
  const all = batchFeeds({ trees: [TREE], terms }, packed, terms.objective, config);
  return Object.fromEntries(Object.entries(all).filter(([name]) => !(name in packed.feeds)));
}

/** Loss of terms, and its gradient by the heads' outputs, which are given: one score, or one list of logits, per read. */
async function evaluate(terms: Terms, outputs: number[] | number[][]): Promise<{ loss: number; gradient: number[] }> {
  const vocabulary = Array.isArray(outputs[0]) ? outputs[0].length : 1;
  const graph = new Graph({ P: 'symbolic', V: vocabulary, ...Object.fromEntries(OBJECTIVE_AXES.map((axis) => [axis, 'symbolic'])) });
  const scores = vocabulary === 1;
  const out = graph.input('out', 'float32', scores ? ['P'] : ['P', 'V']);
  const form = formOf(terms);
  const loss = lossOf(form, graph, scores ? { scores: out } : { logits: out });
  const session = `${form.key} ${vocabulary}`;
  await lane.load(session, graph.emit({ loss, gradient: gradients(loss, [out])[0]! }));
  const data = Float32Array.from(outputs.flat());
  const feeds = {
    ...feedsOf(terms, { ...causal, vocab_size: vocabulary }),
    out: { data, dims: scores ? [data.length] : [data.length / vocabulary, vocabulary] },
  };
  const results = await lane.run(session, feeds);
  return { loss: results['loss']![0]!, gradient: [...results['gradient']!] };
}
const lossAt = async (terms: Terms, outputs: number[] | number[][]) => (await evaluate(terms, outputs)).loss;
const close = (found: number, expected: number, digits = 5) =>
  assert.ok(Math.abs(found - expected) < 0.51 * 10 ** -digits, `${found}, expected ${expected}`);

/** Logits of two tokens of which token 0 has this log-probability. */
const withLogProbability = (lp: number) => [lp, Math.log(-Math.expm1(lp))];

test('inverse loss: gamma .95, Q .5, Q′ .2 give z = .31, and the loss of either label; at a terminal state z = Q', async () => {
  const at = (label: number, next: number | null): Terms => {
    return { objective: 'inverse', reads: nodes(2), transitions: [{ now: 0, next, label, weight: 1 }], gamma: 0.95 };
  };
  // log(1 + e^-.31), log(1 + e^.31), log(1 + e^-.5)
  close(await lossAt(at(1, 1), [0.5, 0.2]), 0.55011);
  close(await lossAt(at(0, 1), [0.5, 0.2]), 0.86011);
  close(await lossAt(at(1, null), [0.5, 0.2]), 0.47408);
  // dz/dQ' = -gamma: both passes are differentiated.
  const { gradient } = await evaluate(at(1, 1), [0.5, 0.2]);
  close(gradient[0]!, -1 / (1 + Math.exp(0.31)), 6);
  close(gradient[1]!, 0.95 / (1 + Math.exp(0.31)), 6);
});

/** One pair: token 0 at read 0 over token 0 at read 1. */
const pairOf = (pair: Partial<PreferenceTerms['pairs'][number]>, more: Partial<PreferenceTerms> = {}): PreferenceTerms => ({
  objective: 'preference',
  reads: nodes(2),
  actions: [[{ point: 0, token: 0 }], [{ point: 1, token: 0 }]],
  nllWeights: [0, 0],
  pairs: [{ chosen: 0, rejected: 1, referenceMargin: 0, weight: 1, ...pair }],
  beta: 0.1,
  ...more,
});

test('DPO: chosen -10 against reference -12, rejected -11 against -11.5, beta .03 give a difference of 1.5 and -log sigma(.045) = .67090', async () => {
  const logits = [withLogProbability(-10), withLogProbability(-11)];
  close(await lossAt(pairOf({ referenceMargin: -12 - -11.5 }, { beta: 0.03 }), logits), 0.6709);
});

test('cDPO as in arXiv 2405.00451: 9 and 3 visits give a smoothing of .25; at beta .1 and difference 2 the loss is .648139; IPO there is (2 - 5)^2', async () => {
  const smoothing = Math.min(1 - 1 / (1 + 3 / 9), 0.5);
  const logits = [withLogProbability(-1), withLogProbability(-3)];
  close(await lossAt(pairOf({ labelSmoothing: smoothing }), logits), 0.648139, 6);
  close(await lossAt(pairOf({}, { loss: 'ipo' }), logits), 9);
});

test('Bradley-Terry: equal scores cost log 2, the margin counts, and large differences lose no digits', async () => {
  const at = (margin: number): Terms => ({
    objective: 'bradleyTerry',
    reads: nodes(2),
    pairs: [{ chosen: 0, rejected: 1, margin, weight: 1 }],
  });
  close(await lossAt(at(0), [0.7, 0.7]), Math.LN2, 6);
  close(await lossAt(at(1), [1.5, -0.5]), Math.log1p(Math.exp(-1)), 6);
  const far = await lossAt(at(0), [20, 0]);
  assert.ok(Math.abs(far / Math.log1p(Math.exp(-20)) - 1) < 1e-5, `${far}`);
});

test('regression: squared error and Huber’s loss by hand', async () => {
  const terms: Terms = { objective: 'regression', reads: nodes(2), labels: [0, 0], weights: [1, 10] };
  close(await lossAt(terms, [0.5, -3]), 0.25 + 90, 4);
  close(await lossAt({ ...terms, huber: 1 }, [0.5, -3]), 0.125 + 25, 4);
});

/** One action, token 0 at read 0, with this ratio to the old policy; log-probability log(1/2). */
function ppoOf(ratio: number, advantage: number): PolicyGradientTerms {
  const clip = { oldLogProbabilities: [Math.log(0.5) - Math.log(ratio)], low: 0.2, high: 0.3 };
  return { objective: 'policyGradient', reads: nodes(1), actions: [[{ point: 0, token: 0 }]], advantages: [advantage], weights: [1], clip };
}

test('PPO-clip: what is gained is min(r A, clip(r) A), and clipped actions have no gradient (arXiv 1707.06347 Fig. 1)', async () => {
  for (const [ratio, advantage, gain, moves] of [
    [1.2, 2, 2.4, true],
    [1.5, 2, 2.6, false], // likelier than 1.3 is not rewarded
    [0.5, 2, 1, true], // rarer is still pulled back
    [0.9, -2, -1.8, true],
    [0.5, -2, -1.6, false], // rarer than 0.8 is not rewarded
    [1.5, -2, -3, true],
    [1.5, 0, 0, false],
  ] as const) {
    const { loss, gradient } = await evaluate(ppoOf(ratio, advantage), [[0, 0]]);
    close(loss, -gain);
    // d lp / d logit of the token is 1/2, and r moves as r d lp.
    close(gradient[0]!, moves ? -ratio * advantage * 0.5 : 0);
  }
});

test('REINFORCE: the gradient of the logits is -A (onehot - p); k3 and the entropy of a fair choice of two', async () => {
  const terms: PolicyGradientTerms = {
    objective: 'policyGradient',
    reads: nodes(1),
    actions: [[{ point: 0, token: 0 }]],
    advantages: [3],
    weights: [0.5],
  };
  const { loss, gradient } = await evaluate(terms, [[0, 0]]);
  close(loss, 1.5 * Math.LN2);
  close(gradient[0]!, -0.75);
  close(gradient[1]!, 0.75);
  const still = { ...terms, advantages: [0] };
  // d = log(1/4) - log(1/2): e^d - d - 1 = 1/2 + log 2 - 1, times coefficient 2 and weight 1/2
  close(await lossAt({ ...still, reference: { logProbabilities: [Math.log(0.25)], coefficient: 2 } }, [[0, 0]]), Math.LN2 - 0.5);
  close(await lossAt({ ...still, entropyWeights: [4] }, [[0, 0]]), -4 * Math.LN2);
});

test('k3 is never negative, and its mean over the policy’s own choices is KL(policy || reference), exactly', async () => {
  const lists = fc.array(fc.double({ min: -3, max: 3, noNaN: true }), { minLength: 4, maxLength: 4 });
  const logSoftmax = (x: number[]) => x.map((value) => value - Math.log(x.reduce((sum, other) => sum + Math.exp(other), 0)));
  await fc.assert(
    fc.asyncProperty(lists, lists, async (logits, other) => {
      const [policy, reference] = [logSoftmax(logits), logSoftmax(other)];
      const terms = (token: number, weight: number): PolicyGradientTerms => ({
        objective: 'policyGradient',
        reads: nodes(1),
        actions: [[{ point: 0, token }]],
        advantages: [0],
        weights: [weight],
        reference: { logProbabilities: [reference[token]!], coefficient: 1 },
      });
      let mean = 0;
      for (const token of [0, 1, 2, 3]) {
        const each = await lossAt(terms(token, 1), [logits]);
        assert.ok(each > -1e-6);
        mean += Math.exp(policy[token]!) * each;
      }
      const kl = policy.reduce((sum, lp, i) => sum + Math.exp(lp) * (lp - reference[i]!), 0);
      assert.ok(Math.abs(mean - kl) < 1e-5 * (1 + kl), `${mean}, KL ${kl}`);
    }),
    { numRuns: 10, seed: 3 },
  );
});

test('what does not fit is refused by field', () => {
  const reads = nodes(2);
  const [score, policy] = [tinyModel(1, { score: true }).config, causal];
  const pair = { chosen: 0, rejected: 1, weight: 1 };
  const gradient: PolicyGradientTerms = { ...ppoOf(1, 1) };
  const clip = gradient.clip!;
  const bad: [Terms, LlamaConfig, RegExp][] = [
    [{ objective: 'bradleyTerry', reads, pairs: [{ ...pair, rejected: 2 }] }, score, /pairs\[0\]\.rejected: 2 .*reads 0 to 1/],
    [{ objective: 'bradleyTerry', reads, pairs: [{ ...pair, margin: NaN }] }, score, /pairs\[0\]\[0\]: "NaN"/],
    [{ objective: 'inverse', reads, transitions: [], gamma: 1.1 }, score, /gamma: 1\.1 .*\[0, 1\]/],
    [
      { objective: 'inverse', reads, transitions: [{ now: 0, next: 2, label: 1, weight: 1 }], gamma: 1 },
      score,
      /transitions\[0\]\.next: 2/,
    ],
    [
      { objective: 'inverse', reads, transitions: [{ now: 0, next: null, label: 2, weight: 1 }], gamma: 1 },
      score,
      /transitions\[0\]\.label: 2/,
    ],
    [{ objective: 'regression', reads, labels: [1], weights: [1, 1] }, score, /labels: "1 entries" .*2 are needed/],
    [{ objective: 'regression', reads, labels: [1, Infinity], weights: [1, 1] }, score, /labels\[1\]/],
    [{ objective: 'regression', reads, labels: [1, 1], weights: [1, 1], huber: 0 }, score, /huber: 0 .*above 0/],
    [pairOf({ labelSmoothing: 0.6 }), policy, /pairs\[0\]\.labelSmoothing: 0\.6 .*\[0, 0\.5\]/],
    [pairOf({ labelSmoothing: 0.1 }, { loss: 'ipo' }), policy, /pairs\[0\]\.labelSmoothing: 0\.1 .*\[0, 0\]/],
    [pairOf({}, { loss: 'ipo', beta: 0 }), policy, /beta: 0 .*above 0/],
    [pairOf({}, { loss: 'kto' as 'ipo' }), policy, /loss: "kto"/],
    [pairOf({ chosen: 2 }), policy, /pairs\[0\]\.chosen: 2 .*actions 0 to 1/],
    [pairOf({}, { actions: [[{ point: 2, token: 0 }], []] }), policy, /actions\[0\]\[0\]\.point: 2/],
    [pairOf({}, { actions: [[{ point: 0, token: 11 }], []] }), policy, /actions\[0\]\[0\]\.token: 11 .*below 11/],
    [pairOf({}, { allowed: [[1], [0]] }), policy, /actions\[0\]: .*"token":0.*allowed/],
    [{ ...gradient, advantages: [] }, policy, /advantages: "0 entries"/],
    [{ ...gradient, clip: { ...clip, low: 0 } }, policy, /clip\.low: 0/],
    [{ ...gradient, clip: { ...clip, high: -1 } }, policy, /clip\.high: -1/],
    [{ ...gradient, clip: { ...clip, oldLogProbabilities: [] } }, policy, /clip\.oldLogProbabilities: "0 entries"/],
    [{ ...gradient, reference: { logProbabilities: [-1], coefficient: NaN } }, policy, /reference\.coefficient/],
    [{ ...gradient, entropyWeights: [] }, policy, /entropyWeights: "0 entries"/],
    [{ ...gradient, values: [{ read: 0, target: 1, weight: 1 }] }, policy, /values: .*no value head/],
    [{ ...gradient, values: [{ read: 1, target: 1, weight: 1 }] }, { ...policy, value_head: true }, /values\[0\]\.read: 1/],
  ];
  for (const [terms, config, message] of bad) assert.throws(() => feedsOf(terms, config), { type: 'BadInput', message });
});
