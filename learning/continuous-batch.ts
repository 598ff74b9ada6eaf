/**
 * Many generations at once over one decoder: requests join between two steps and leave when they are done, so that no row waits for the slowest.
 * Rows are given out and read in a fixed order, and every draw is keyed by its request, so what a request gets depends on the others only through the
 * last bits of its logits (other shapes, other kernels). It keeps no queue and knows no time: the caller decides who joins.
 */
import { badInput } from '../core/errors.ts';
import { Random } from '../core/random.ts';
import { actionTree, commandLogProbabilities, decisionAppend, greedyCommand } from './action-tree.ts';
import type { ActionTree } from './action-tree.ts';
import type { GeneratedToken, GenerationEnd, GenerationRequest } from './generation.ts';
import { checkSampling, distribution, draw, likeliest, logSoftmaxOver, logSumExp } from './sampling.ts';
import { TextStream } from './text-stream.ts';
import { RowPool } from './row-pool.ts';
import type { Append, Decoder } from './types.ts';

/** Something that happened to a request in a step. The events of one request come in order; `end` is the last of a sample, `sample` counts from 0. */
export type GenerationEvent<Id> =
  /** The prompt has been read; so many of its first tokens had been before. */
  | { id: Id; kind: 'begin'; reused: number }
  /** Natural-log probability of each prompt token given those before it (null for the first); only if asked for. */
  | { id: Id; kind: 'prompt'; logProbabilities: (number | null)[] }
  /** Natural-log probability of each choice under the constraint, at temperature 1 and as drawn from. */
  | { id: Id; kind: 'choices'; logProbabilities: number[]; drawnLogProbabilities: number[] }
  | { id: Id; kind: 'token'; sample: number; token: GeneratedToken }
  | ({ id: Id; kind: 'end'; sample: number } & GenerationEnd);

interface Sample {
  number: number;
  row: number;
  random: Random;
  stream: TextStream;
  tokens: number;
  /** The token that was drawn last and has not been fed yet. */
  next: number;
}

/** The choices as they are decided, each with a token that ends it where one is needed, and their tree. */
interface Choices {
  lists: readonly (readonly number[])[];
  tree: ActionTree;
}

interface Job<Id> {
  id: Id;
  request: GenerationRequest;
  /** Most tokens of a sample. */
  most: number;
  choices: Choices | null;
  prompted: boolean;
  /** Prompt tokens that its first row had read before. */
  reused: number;
  /** The rows that it holds. */
  rows: number[];
  samples: Sample[];
  cancelled: boolean;
}

export class ContinuousBatch<Id> {
  readonly #decoder: Decoder;
  readonly #context: number;
  readonly #decode: (ids: readonly number[]) => string;
  readonly #rows: RowPool;
  readonly #jobs = new Map<Id, Job<Id>>();
  #stepping = false;

  /**
   * `context`: most tokens of prompt and generation together. `decode`: text of tokens, for stop strings; without it there is no text. `reuse`: what rows
   * have read serves later prompts that begin alike (see row-pool.ts).
   */
  constructor(decoder: Decoder, options: { context: number; decode?: (ids: readonly number[]) => string; reuse?: boolean }) {
    this.#decoder = decoder;
    this.#context = options.context;
    this.#decode = options.decode ?? (() => '');
    this.#rows = new RowPool(decoder, options.reuse ?? false);
  }

  /** Requests in the batch. */
  get size(): number {
    return this.#jobs.size;
  }

  /** Whether the rows that the request needs are free now. */
  fits(request: GenerationRequest): boolean {
    return rowsOf(request) <= this.#rows.free;
  }

  /** Refuses (BadInput) what cannot be generated at all, whatever else runs. */
  check(request: GenerationRequest): void {
    const { prompt, samples, maxTokens, choices } = request;
    checkSampling(request.sampling);
    if (prompt.length === 0) throw badInput('prompt', prompt, 'at least one token');
    if (prompt.length >= this.#context)
      throw badInput('prompt', `${prompt.length} tokens`, `at most ${this.#context - 1} (the context is ${this.#context} tokens)`);
    if (!Number.isInteger(samples) || samples < 1) throw badInput('samples', samples, 'a whole number of at least 1');
    if (rowsOf(request) > this.#decoder.rows)
      throw badInput('samples', samples, `at most ${this.#decoder.rows}, the rows that are decoded at once`);
    if (!Number.isInteger(maxTokens) || maxTokens < 0) throw badInput('maxTokens', maxTokens, 'a whole number of at least 0');
    if (request.stopTexts.includes('')) throw badInput('stop', '', 'strings of at least one character');
    if (!choices) return;
    if (choices.length === 0 || choices.some((choice) => choice.length === 0))
      throw badInput('choices', choices, 'at least one, none of them empty');
    const longest = Math.max(...choices.map((choice) => choice.length));
    if (prompt.length + longest > this.#context)
      throw badInput('choices', `${longest} tokens`, `at most ${this.#context - prompt.length} after this prompt`);
    choicesOf(request);
  }

  /** Adds a request that `fits`. Its first tokens come with the next step. Throws BadInput as `check` does. */
  add(id: Id, request: GenerationRequest): void {
    this.check(request);
    if (this.#jobs.has(id)) throw new Error(`the batch has a request ${String(id)} already`);
    if (!this.fits(request)) throw new Error('the batch has too few free rows');
    // For the probabilities of the prompt all of it must be read.
    const { rows, read } = this.#rows.take(rowsOf(request), request.promptLogProbabilities ? [] : request.prompt);
    const most = Math.min(request.maxTokens, this.#context - request.prompt.length);
    this.#jobs.set(id, {
      id,
      request,
      most,
      choices: choicesOf(request),
      prompted: false,
      reused: read,
      rows,
      samples: [],
      cancelled: false,
    });
  }

  /** Takes a request out; its rows are free at once, or after the step that is under way. Nothing more is told of it. Unknown ids are no mistake. */
  cancel(id: Id): void {
    const job = this.#jobs.get(id);
    if (!job) return;
    if (this.#stepping) job.cancelled = true;
    else this.#remove(job);
  }

  /** One pass of the decoder for all requests: the prompts of the new ones, and the next token of every sample of the others. */
  async step(): Promise<GenerationEvent<Id>[]> {
    const jobs = [...this.#jobs.values()];
    const parts = jobs.map((job) => (job.prompted ? job.samples.map(nextAppend) : [promptAppend(job)]));
    this.#stepping = true;
    let outputs: Float32Array[];
    try {
      outputs = await this.#decoder.step(parts.flat());
    } finally {
      this.#stepping = false;
    }
    for (const { row, ids, keep } of parts.flat()) this.#rows.hasRead(row, ids.slice(0, keep));
    const events: GenerationEvent<Id>[] = [];
    let at = 0;
    jobs.forEach((job, j) => {
      const reads = parts[j]!.reduce((sum, append) => sum + append.reads.length, 0);
      const mine = outputs.slice(at, (at += reads));
      if (!job.cancelled) events.push(...(job.prompted ? this.#advance(job, job.samples, mine) : this.#begin(job, mine)));
      if (job.cancelled || job.samples.length === 0) this.#remove(job);
    });
    return events;
  }

  /** The prompt has been read: what was asked about it, and the first token of every sample. */
  #begin(job: Job<Id>, outputs: Float32Array[]): GenerationEvent<Id>[] {
    const { id, request, choices } = job;
    const events: GenerationEvent<Id>[] = [{ id, kind: 'begin', reused: job.reused }];
    job.prompted = true;
    if (request.promptLogProbabilities) {
      const logProbabilities = request.prompt.map((token, i) => (i === 0 ? null : outputs[i - 1]![token]! - logSumExp(outputs[i - 1]!)));
      events.push({ id, kind: 'prompt', logProbabilities });
    }
    if (choices) return [...events, ...chooseAll(job, choices, outputs.slice(outputs.length - choices.tree.points.length))];
    const [first, ...others] = job.rows as [number, ...number[]];
    for (const row of others) this.#rows.copy(first, row);
    job.samples = job.rows.map((row, number) => ({
      number,
      row,
      random: new Random([...request.key, number]),
      stream: new TextStream(this.#decode, request.stopTexts),
      tokens: 0,
      next: -1,
    }));
    if (job.most === 0) {
      for (const { number } of job.samples) events.push({ id, kind: 'end', sample: number, finish: 'length', stoppedBy: null, text: '' });
      job.samples = [];
      return events;
    }
    return [
      ...events,
      ...this.#advance(
        job,
        job.samples,
        job.samples.map(() => outputs.at(-1)!),
      ),
    ];
  }

  /** Draws the next token of every sample from its logits. Samples that are done leave. */
  #advance(job: Job<Id>, samples: readonly Sample[], logits: readonly Float32Array[]): GenerationEvent<Id>[] {
    const { id, request } = job;
    return samples.flatMap((sample, i) => {
      const drawn = drawToken(logits[i]!, request, sample.random);
      const end = (
        told: string,
        finish: GenerationEnd['finish'],
        stoppedBy: GenerationEnd['stoppedBy'],
        rest: string,
      ): GenerationEvent<Id>[] => {
        this.#release(job, [sample.row]);
        job.samples = job.samples.filter((one) => one !== sample);
        return [
          { id, kind: 'token', sample: sample.number, token: { ...drawn, text: told } },
          { id, kind: 'end', sample: sample.number, finish, stoppedBy, text: rest },
        ];
      };
      sample.next = drawn.id;
      sample.tokens++;
      // The stop token is one of the tokens, but not part of the text.
      if (request.stopIds.includes(drawn.id)) {
        const rest = sample.stream.end();
        return end('', 'stop', rest.stoppedBy ?? drawn.id, rest.text);
      }
      const { text, stoppedBy } = sample.stream.push(drawn.id);
      if (stoppedBy !== null) return end(text, 'stop', stoppedBy, '');
      if (sample.tokens === job.most) {
        const rest = sample.stream.end();
        return end(text, rest.stoppedBy === null ? 'length' : 'stop', rest.stoppedBy, rest.text);
      }
      return [{ id, kind: 'token', sample: sample.number, token: { ...drawn, text } }];
    });
  }

  #remove(job: Job<Id>): void {
    this.#release(job, job.rows);
    this.#jobs.delete(job.id);
  }

  #release(job: Job<Id>, rows: readonly number[]): void {
    job.rows = job.rows.filter((row) => !rows.includes(row));
    this.#rows.release(rows);
  }
}

/** Choices are read on top of the prompt and drawn at once: they take one row, however many samples. */
const rowsOf = ({ samples, choices }: GenerationRequest): number => (choices ? 1 : samples);

/** Where one of the choices begins another, each gets the first stop token at its end: stopping is then one of the possibilities. */
function choicesOf({ choices, stopIds }: GenerationRequest): Choices | null {
  if (!choices) return null;
  const begins = (a: readonly number[], b: readonly number[]) => a.length < b.length && a.every((id, i) => id === b[i]);
  // In this order a list stands right before the lists that it begins.
  const sorted = [...choices].sort(compareLists);
  const ambiguous = sorted.some((choice, i) => i + 1 < sorted.length && begins(choice, sorted[i + 1]!));
  if (!ambiguous) return { lists: choices, tree: actionTree(choices) };
  const [end] = stopIds;
  if (end === undefined)
    throw badInput('choices', choices, 'none the beginning of another, because the model has no token that ends a text');
  const lists = choices.map((choice) => [...choice, end]);
  return { lists, tree: actionTree(lists) };
}

function compareLists(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((id, i) => id !== b[i]);
  return at < 0 ? a.length - b.length : at >= b.length ? 1 : a[at]! - b[at]!;
}

function promptAppend<Id>({ request, choices, rows, reused }: Job<Id>): Append {
  const row = rows[0]!;
  const prompt = request.prompt.slice(reused);
  const keep = prompt.length;
  const before = request.promptLogProbabilities ? prompt.map((_, i) => i) : [];
  if (!choices) return { row, ids: prompt, reads: before.length > 0 ? before : [keep - 1], keep };
  const { ids, parents, reads } = decisionAppend(prompt, choices.tree);
  return { row, ids, parents, reads: [...before, ...reads], keep };
}

const nextAppend = ({ row, next }: Sample): Append => ({ row, ids: [next], reads: [0], keep: 1 });

/** Draws one choice per sample from the logits at the tree's decision points. */
function chooseAll<Id>({ id, request }: Job<Id>, { lists, tree }: Choices, logits: Float32Array[]): GenerationEvent<Id>[] {
  const given = tree.points.map(({ allowed }, p) => logSoftmaxOver(logits[p]!, allowed, 1));
  const drawnFrom = tree.points.map(({ allowed }, p) => {
    const { ids, probabilities } = distribution(
      allowed.map((token) => logits[p]![token]!),
      request.sampling,
    );
    const logs = new Float64Array(allowed.length).fill(-Infinity);
    Array.from(ids).forEach((option, i) => (logs[option] = Math.log(probabilities[i]!)));
    return logs;
  });
  const drawnLogProbabilities = commandLogProbabilities(tree, drawnFrom);
  const events: GenerationEvent<Id>[] = [
    { id, kind: 'choices', logProbabilities: [...commandLogProbabilities(tree, given)], drawnLogProbabilities: [...drawnLogProbabilities] },
  ];
  for (let sample = 0; sample < request.samples; sample++) {
    const random = new Random([...request.key, sample]);
    const choice = request.sampling.temperature === 0 ? greedyCommand(tree, given) : draw(drawnLogProbabilities.map(Math.exp), random);
    const depths = new Map(tree.choices[choice]!.map(({ point, option }) => [pointDepth(tree, point), { point, option }]));
    lists[choice]!.forEach((token, depth) => {
      const decided = depths.get(depth);
      const logProbability = decided ? given[decided.point]![decided.option]! : 0;
      const drawnLogProbability = decided ? drawnFrom[decided.point]![decided.option]! : 0;
      const top = decided
        ? tree.points[decided.point]!.allowed.map((other, option) => ({ id: other, logProbability: given[decided.point]![option]! }))
            .sort((a, b) => b.logProbability - a.logProbability)
            .slice(0, request.topLogProbabilities)
        : [{ id: token, logProbability: 0 }].slice(0, request.topLogProbabilities);
      events.push({ id, kind: 'token', sample, token: { id: token, logProbability, drawnLogProbability, top, text: '' } });
    });
    events.push({ id, kind: 'end', sample, finish: 'stop', stoppedBy: null, choice, text: '' });
  }
  return events;
}

/** How many tokens of a command come before the choice at this point. */
function pointDepth(tree: ActionTree, point: number): number {
  let depth = 0;
  for (let branch = tree.points[point]!.after; branch >= 0; branch = tree.branches[branch]!.parent) depth++;
  return depth;
}

function drawToken(
  logits: Float32Array,
  { sampling, topLogProbabilities }: GenerationRequest,
  random: Random,
): Omit<GeneratedToken, 'text'> {
  const { ids, probabilities } = distribution(logits, sampling);
  const place = draw(probabilities, random);
  const id = ids[place]!;
  const drawnLogProbability = Math.log(probabilities[place]!);
  // At temperature 1 without filters it was drawn from the model's own distribution: nothing needs computing again.
  const own = sampling.temperature === 1 && ids.length === logits.length;
  const log = own ? logits[id]! - drawnLogProbability : logSumExp(logits);
  return { id, logProbability: logits[id]! - log, drawnLogProbability, top: likeliest(logits, log, topLogProbabilities) };
}
