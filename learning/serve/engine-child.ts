/**
 * The engine child: the process in which served models compute, so that the HTTP process stays responsive and survives what kills native code. Requests
 * join the running batch between two decoding steps, in the order of their arrival; scores are computed beside it. It ends with its owner.
 */
import { RatchetError, badInput } from '../../core/errors.ts';
import { candidateAppend } from '../action-tree.ts';
import { ContinuousBatch } from '../continuous-batch.ts';
import { createDecoder } from '../decoder.ts';
import type { GenerationRequest } from '../generation.ts';
import { createReader } from '../reader.ts';
import type { Read, Reader, TokenTree } from '../types.ts';
import { openServedModel } from './served-model.ts';
import type { EngineOptions, FromEngine, ScoreGroup, ToEngine } from './protocol.ts';

/** Tokens of score requests that are read in one go: some tens of milliseconds for a small model, so that a late request does not wait for many. */
const SCORE_TOKENS = 8192;
/** Every token of a tree is compared with every other: beyond this, reading the prefix again costs less than comparing candidates in vain. */
const TREE_TOKENS = 512;

const send = (message: FromEngine): void => {
  process.send!(message);
};
const failureOf = (error: unknown) => ({
  error: error instanceof RatchetError ? error.type : ('ComputeCrashed' as const),
  message: error instanceof Error ? error.message : String(error),
});

process.on('disconnect', () => process.exit(0));
// Ending is the owner's business: signals meant for the whole process group must not cut off what is being answered.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

try {
  const options = JSON.parse(process.argv[2]!) as EngineOptions;
  const generation = options.policy === undefined ? null : await openPolicy(options.policy, options);
  const scoring = options.rewardModel === undefined ? null : await openRewardModel(options.rewardModel, options);
  process.on('message', (message: ToEngine) => {
    if (message.type === 'cancel') generation?.cancel(message.id);
    else {
      try {
        if (message.type === 'generate') must(generation, 'policy').add(message.id, message.request);
        else must(scoring, 'reward model').add(message.id, message.groups);
      } catch (error) {
        send({ type: 'failed', id: message.id, ...failureOf(error) });
      }
    }
  });
  send({ type: 'ready', policyContext: generation?.context ?? 0, rewardContext: scoring?.context ?? 0 });
} catch (error) {
  process.send!({ type: 'refused', ...failureOf(error) } satisfies FromEngine, () => process.exit(1));
}

function must<T>(served: T | null, what: string): T {
  if (served === null) throw badInput(what, null, `this server has no ${what}`);
  return served;
}

/** A failure in the middle of native work: its state is unknown, so the owner is to start another child. */
function giveUp(error: unknown): never {
  console.error(error);
  process.exit(1);
}

async function openPolicy(folder: string, { rows, context: most, lanes }: EngineOptions) {
  const { model, tokenizer } = openServedModel(folder, 'LlamaForCausalLM');
  const context = most ?? model.config.max_position_embeddings;
  const decoder = await createDecoder(model, { rows, context, lanes });
  const batch = new ContinuousBatch<number>(decoder, { context, decode: (ids) => tokenizer.decode(ids), reuse: true });
  const waiting: { id: number; request: GenerationRequest }[] = [];
  let running = false;
  const run = async () => {
    running = true;
    while (waiting.length > 0 || batch.size > 0) {
      while (waiting.length > 0 && batch.fits(waiting[0]!.request)) {
        const { id, request } = waiting.shift()!;
        batch.add(id, request);
      }
      const events = await batch.step();
      send({ type: 'events', events, running: batch.size, waiting: waiting.length });
    }
    running = false;
  };
  return {
    context,
    add(id: number, request: GenerationRequest) {
      batch.check(request);
      waiting.push({ id, request });
      if (!running) run().catch(giveUp);
    },
    cancel(id: number) {
      const at = waiting.findIndex((one) => one.id === id);
      if (at >= 0) waiting.splice(at, 1);
      batch.cancel(id);
    },
  };
}

async function openRewardModel(folder: string, { context: most, lanes }: EngineOptions) {
  const { model } = openServedModel(folder, 'LlamaForSequenceClassification');
  const context = Math.min(most ?? Infinity, model.config.max_position_embeddings);
  const reader: Reader = await createReader(model, { lanes });
  const waiting: { id: number; trees: TokenTree[]; reads: Read[]; tokens: number }[] = [];
  let running = false;
  const run = async () => {
    running = true;
    while (waiting.length > 0) {
      let tokens = 0;
      let count = 0;
      while (count < waiting.length && (count === 0 || tokens + waiting[count]!.tokens <= SCORE_TOKENS)) tokens += waiting[count++]!.tokens;
      const jobs = waiting.splice(0, count);
      const scores = await reader.scores(jobs);
      jobs.forEach(({ id }, i) => send({ type: 'scores', id, logits: [...scores[i]!] }));
    }
    running = false;
  };
  return {
    context,
    add(id: number, groups: readonly ScoreGroup[]) {
      const trees: TokenTree[] = [];
      const reads: Read[] = [];
      for (const { prefix, candidates } of groups) {
        if (candidates.length === 0 || candidates.some((candidate) => candidate.length === 0))
          throw badInput('candidates', candidates, 'at least one, none of them empty');
        const longest = prefix.length + Math.max(...candidates.map((candidate) => candidate.length));
        if (longest > context) throw badInput('input', `${longest} tokens`, `at most ${context}`);
        const wrong = [prefix, ...candidates].flat().find((token) => token >= model.config.vocab_size);
        if (wrong !== undefined) throw badInput('input', wrong, `token ids below ${model.config.vocab_size}`);
        for (const part of partsOf(prefix, candidates)) {
          const { ids, parents, nodes } = candidateAppend(prefix, part);
          const tree = trees.push({ ids, parents }) - 1;
          for (const path of nodes) reads.push({ tree, node: path.at(-1)! });
        }
      }
      waiting.push({ id, trees, reads, tokens: trees.reduce((sum, { ids }) => sum + ids.length, 0) });
      if (!running) run().catch(giveUp);
    },
  };
}

/** Candidates that are read on one copy of the prefix: as many as a tree of `TREE_TOKENS` holds, at least one. */
function partsOf(prefix: readonly number[], candidates: readonly (readonly number[])[]): (readonly number[])[][] {
  const parts: (readonly number[])[][] = [];
  let room = 0;
  for (const candidate of candidates) {
    if (parts.length === 0 || candidate.length > room) {
      parts.push([]);
      room = TREE_TOKENS - prefix.length;
    }
    parts.at(-1)!.push(candidate);
    room -= candidate.length;
  }
  return parts;
}
