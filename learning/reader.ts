/**
 * Reads a model over trees without training it: constrained log-probabilities, scores, final hidden states. Requests are cut into runs in the order of
 * their trees by a fixed budget, so the numbers do not depend on the lanes.
 */
import { badInput } from '../core/errors.ts';
import { int64, pack } from './batch.ts';
import { shapeKey } from './config.ts';
import { foldOrders, foldedMatrices, graphShape } from './fold.ts';
import { foldPart } from './lanes/folding.ts';
import { logLikelihood } from './graph/indexing.ts';
import { mul } from './graph/operators.ts';
import { openLanes, sharedFloats, spread } from './lanes/lane.ts';
import type { Feed, Lane } from './lanes/lane.ts';
import { head, llamaGraph, llamaWeights, treeStates, valueHead } from './llama.ts';
import { FINAL_NORM, VALUE_HEAD, checkModel, hasValueHead, headName, isScore } from './model.ts';
import { constrainedLogProbabilities } from './objectives.ts';
import { allowedFeeds } from './terms.ts';
import type { LlamaConfig, Model, Read, Reader, TokenTree } from './types.ts';

/** Most tokens of one run (a single longer tree still runs alone): enough to fill the matrix products, small enough for a core's cache. */
const RUN_TOKENS = 2048;

export type Output = 'logProbabilities' | 'tokens' | 'scores' | 'values' | 'hidden';

interface Request {
  trees: TokenTree[];
  reads: Read[];
  allowed?: number[][];
  targets?: number[];
}

/** Part of a request that runs at once: some of its reads, and the trees they are in. */
interface Run {
  request: number;
  trees: TokenTree[];
  /** Indexes into the request's reads, and the reads with the trees' numbers in this run. */
  places: number[];
  reads: Read[];
}

function cut(requests: Request[]): Run[] {
  const runs: Run[] = [];
  requests.forEach(({ trees, reads }, request) => {
    const homes: { run: Run; tree: number }[] = [];
    let current: Run | undefined;
    let tokens = 0;
    for (const tree of trees) {
      if (!current || tokens + tree.ids.length > RUN_TOKENS) {
        runs.push((current = { request, trees: [], places: [], reads: [] }));
        tokens = 0;
      }
      homes.push({ run: current, tree: current.trees.push(tree) - 1 });
      tokens += tree.ids.length;
    }
    reads.forEach((read, p) => {
      const home = homes[read.tree];
      if (!home) throw badInput(`reads[${p}]`, read, `one of the ${trees.length} trees`);
      home.run.places.push(p);
      home.run.reads.push({ tree: home.tree, node: read.node });
    });
  });
  return runs.filter((run) => run.reads.length > 0);
}

/** The graph for one kind of output, with the folded matrices as inputs (and the last gain, for hidden states). */
export function readingGraph(config: LlamaConfig, output: Output): Uint8Array {
  const graph = llamaGraph(config, ['A']);
  const weights = llamaWeights(graph, config);
  const states = treeStates(graph, config, weights, true);
  if (output === 'hidden') return graph.emit({ out: mul(states, graph.input(FINAL_NORM, 'float32', ['D'])) });
  if (output === 'values') return graph.emit({ out: valueHead(weights, states) });
  const out = head(config, weights, states);
  if (output === 'tokens') return graph.emit({ out: logLikelihood(out, graph.input('targets', 'int64', ['P', '1'])) });
  return graph.emit({ out: output === 'logProbabilities' ? constrainedLogProbabilities(graph, out) : out });
}

class LlamaReader implements Reader {
  readonly #config: LlamaConfig;
  readonly #lanes: Lane[];
  /** The folded matrices and the last gain, in shared memory that all lanes read. */
  readonly #matrices = new Map<string, Float32Array>();
  readonly #weights: Record<string, Feed> = {};
  readonly #sessions = new Map<Output, Promise<unknown>>();
  #reading = 0;

  constructor(model: Model, lanes: Lane[]) {
    this.#config = { ...model.config };
    this.#lanes = lanes;
    const shapes = foldedMatrices(model.config).map((matrix): [string, number[]] => [matrix.name, graphShape(matrix)]);
    for (const [name, dims] of [...shapes, [FINAL_NORM, [model.config.hidden_size]] as const]) {
      const memory = sharedFloats(dims.reduce((a, b) => a * b, 1));
      this.#matrices.set(name, memory);
      this.#weights[name] = { data: memory, dims: [...dims] };
    }
    this.load(model);
  }

  load(model: Model): void {
    if (this.#reading > 0) throw new Error('the reader is reading; load another model when it is done');
    checkModel(model.config, model.tensors);
    if (shapeKey(model.config) !== shapeKey(this.#config))
      throw badInput('model', shapeKey(model.config), `the reader was made for ${shapeKey(this.#config)}`);
    foldOrders(foldedMatrices(this.#config), model.tensors, this.#matrices).forEach(foldPart);
    this.#matrices.get(FINAL_NORM)!.set(model.tensors.get(FINAL_NORM)!.data);
  }

  /** The session for one kind of output, made when it is first asked for. */
  #session(output: Output): Promise<unknown> {
    let session = this.#sessions.get(output);
    if (!session) {
      const bytes = readingGraph(this.#config, output);
      // A session refuses feeds that it has no input for.
      const headless = output === 'hidden' || output === 'values';
      const unused = [
        ...(output === 'values' ? [] : [VALUE_HEAD]),
        ...(output === 'hidden' ? [] : [FINAL_NORM]),
        ...(headless ? [headName(this.#config)] : []),
      ];
      const shared = Object.fromEntries(Object.entries(this.#weights).filter(([name]) => !unused.includes(name)));
      session = Promise.all(this.#lanes.map((lane) => lane.load(output, bytes, shared)));
      this.#sessions.set(output, session);
    }
    return session;
  }

  /** Runs everything; `deliver` is given the output of each run with its width per read. */
  async #read(output: Output, requests: Request[], deliver: (run: Run, data: Float32Array, width: number) => void): Promise<void> {
    const limits = { vocabulary: this.#config.vocab_size, context: this.#config.max_position_embeddings };
    const feedsOf = (run: Run): Record<string, Feed> => {
      const { feeds } = pack(run.trees, run.reads, limits, true);
      const { allowed, targets } = requests[run.request]!;
      if (targets) return { ...feeds, targets: { data: int64(run.places.map((p) => targets[p]!)), dims: [run.places.length, 1] } };
      if (!allowed) return feeds;
      const { allowed: ids, padding } = allowedFeeds(
        run.places.map((p) => allowed[p]!),
        limits.vocabulary,
      );
      return { ...feeds, allowed: ids, padding };
    };
    this.#reading++;
    try {
      await this.#session(output);
      await spread(this.#lanes, cut(requests), async (lane, run) => {
        const { out } = await lane.run(output, feedsOf(run));
        deliver(run, out!, out!.length / run.reads.length);
      });
    } finally {
      this.#reading--;
    }
  }

  #needs(score: boolean, what: string): void {
    if (isScore(this.#config) !== score)
      throw badInput(`architecture for ${what}`, this.#config.architectures[0], score ? 'a score model' : 'a causal model');
  }

  async logProbabilities(requests: { trees: TokenTree[]; reads: Read[]; allowed: number[][] }[]): Promise<Float32Array[][]> {
    this.#needs(false, 'log-probabilities');
    requests.forEach(({ reads, allowed }, i) => {
      if (allowed.length !== reads.length)
        throw badInput(`requests[${i}].allowed`, `${allowed.length} lists`, `one for each of ${reads.length} reads`);
    });
    const results = requests.map(({ reads }) => new Array<Float32Array>(reads.length));
    await this.#read('logProbabilities', requests, (run, data, width) => {
      const { allowed } = requests[run.request]!;
      run.places.forEach((p, i) => (results[run.request]![p] = data.slice(i * width, i * width + allowed[p]!.length)));
    });
    return results;
  }

  async tokenLogProbabilities(requests: { trees: TokenTree[]; reads: Read[]; targets: number[] }[]): Promise<Float32Array[]> {
    this.#needs(false, 'log-probabilities');
    requests.forEach(({ reads, targets }, i) => {
      if (targets.length !== reads.length)
        throw badInput(`requests[${i}].targets`, `${targets.length} tokens`, `one for each of ${reads.length} reads`);
      targets.forEach((token, p) => {
        if (!Number.isInteger(token) || token < 0 || token >= this.#config.vocab_size)
          throw badInput(`requests[${i}].targets[${p}]`, token, `a token below ${this.#config.vocab_size}`);
      });
    });
    return this.#flat('tokens', requests, 1);
  }

  async values(requests: { trees: TokenTree[]; reads: Read[] }[]): Promise<Float32Array[]> {
    if (!hasValueHead(this.#config)) throw badInput('model', 'without a value head', 'values are read by one');
    return this.#flat('values', requests, 1);
  }

  async scores(requests: { trees: TokenTree[]; reads: Read[] }[]): Promise<Float32Array[]> {
    this.#needs(true, 'scores');
    return this.#flat('scores', requests, 1);
  }

  async hidden(requests: { trees: TokenTree[]; reads: Read[] }[]): Promise<Float32Array[]> {
    return this.#flat('hidden', requests, this.#config.hidden_size);
  }

  async #flat(output: Output, requests: Request[], width: number): Promise<Float32Array[]> {
    const results = requests.map(({ reads }) => new Float32Array(reads.length * width));
    await this.#read(output, requests, (run, data) => {
      run.places.forEach((p, i) => results[run.request]!.set(data.subarray(i * width, (i + 1) * width), p * width));
    });
    return results;
  }

  async close(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.close()));
  }
}

/** A reader of a model that must not change while it is read. BadInput for a model that is not well formed. */
export async function createReader(model: Model, options: { lanes: number }): Promise<Reader> {
  checkModel(model.config, model.tensors);
  return new LlamaReader(model, await openLanes(options.lanes, (lane) => lane.ready()));
}
