/**
 * What clients may ask, in OpenAI's fields and vLLM's additions, and what it means for the engine. A field that would change the answer but is not
 * supported is refused, and so is one that is unknown: an experiment with a misspelt setting is worse than an error.
 */
import { z } from 'zod';
import type { GenerationRequest } from '../generation.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { ApiError, invalid } from './errors.ts';
import type { ScoreGroup } from './protocol.ts';

const MOST_SAMPLES = 128;
const MOST_TOP = 20;
const MOST_STOPS = 16;
/** Far more admissible commands than any state of the built-in worlds has. */
const MOST_CHOICES = 4096;

const optional = <T extends z.ZodType>(type: T) => type.nullish().transform((value) => value ?? undefined);
const tokenIds = z.array(z.int().min(0));

/** Fields that change nothing here and are let through, because clients send them on their own. */
const IGNORED = ['user', 'metadata', 'store', 'service_tier', 'safety_identifier', 'prompt_cache_key', 'parallel_tool_calls', 'request_id'];
const ignored = Object.fromEntries(IGNORED.map((name) => [name, z.unknown().optional()]));

const shared = {
  model: optional(z.string()),
  max_tokens: optional(z.int().min(0)),
  temperature: optional(z.number().min(0)),
  top_p: optional(z.number().gt(0).max(1)),
  top_k: optional(z.int().min(-1)),
  n: optional(z.int().min(1).max(MOST_SAMPLES)),
  seed: optional(z.int()),
  stop: optional(z.union([z.string().min(1), z.array(z.string().min(1)).max(MOST_STOPS)])),
  stop_token_ids: optional(tokenIds.max(MOST_STOPS)),
  ignore_eos: optional(z.boolean()),
  stream: optional(z.boolean()),
  stream_options: optional(z.strictObject({ include_usage: optional(z.boolean()), include_obfuscation: optional(z.boolean()) })),
  structured_outputs: optional(z.strictObject({ choice: z.array(z.string().min(1)).min(1).max(MOST_CHOICES) })),
  guided_choice: optional(z.array(z.string().min(1)).min(1).max(MOST_CHOICES)),
  return_token_ids: optional(z.boolean()),
  logprobs_mode: optional(z.enum(['raw_logprobs', 'processed_logprobs'])),
  presence_penalty: optional(z.literal(0)),
  frequency_penalty: optional(z.literal(0)),
  repetition_penalty: optional(z.literal(1)),
  min_p: optional(z.literal(0)),
  logit_bias: optional(z.strictObject({})),
  ...ignored,
};

const completionSchema = z.strictObject({
  ...shared,
  prompt: z.union([z.string(), z.array(z.string()).min(1), tokenIds.min(1), z.array(tokenIds.min(1)).min(1)]),
  logprobs: optional(z.int().min(0).max(MOST_TOP)),
  echo: optional(z.boolean()),
  best_of: optional(z.literal(1)),
  suffix: optional(z.literal('')),
  add_special_tokens: optional(z.boolean()),
});

const textPart = z.object({ type: z.literal('text'), text: z.string() });
const chatSchema = z.strictObject({
  ...shared,
  messages: z.array(z.looseObject({ role: z.string().min(1), content: z.union([z.string(), z.array(textPart)]) })).min(1),
  max_completion_tokens: optional(z.int().min(0)),
  logprobs: optional(z.boolean()),
  top_logprobs: optional(z.int().min(0).max(MOST_TOP)),
  response_format: optional(z.strictObject({ type: z.literal('text') })),
  add_generation_prompt: optional(z.boolean()),
  chat_template_kwargs: optional(z.record(z.string(), z.unknown())),
});

const texts = z.union([z.string(), z.array(z.string()).min(1)]);
const classifySchema = z.strictObject({
  model: optional(z.string()),
  input: z.union([z.string(), z.array(z.string()).min(1), tokenIds.min(1), z.array(tokenIds.min(1)).min(1)]),
  add_special_tokens: optional(z.boolean()),
  ...ignored,
});
const scoreSchema = z.strictObject({ model: optional(z.string()), text_1: texts, text_2: texts, ...ignored });

type Shared = Omit<z.infer<typeof completionSchema>, 'prompt' | 'logprobs' | 'echo' | 'best_of' | 'suffix' | 'add_special_tokens'>;

/** Reads a body. Throws ApiError 400 naming the field. */
function parse<T>(schema: z.ZodType<T>, body: unknown): T {
  const { success, data, error } = schema.safeParse(body);
  if (success) return data;
  const issue = error.issues[0]!;
  if (issue.code === 'unrecognized_keys')
    throw invalid([...issue.path, issue.keys[0]].join('.'), `Unknown or unsupported field: ${issue.keys.join(', ')}.`, 'unknown_parameter');
  const param = issue.path.join('.') || null;
  throw invalid(param, param === null ? `The body: ${issue.message}.` : `${param}: ${issue.message}.`, 'invalid_value');
}

/** One prompt's part of a request, and how its answer is to be told. */
export interface Plan {
  kind: 'completion' | 'chat';
  requests: GenerationRequest[];
  samples: number;
  stream: boolean;
  includeUsage: boolean;
  /** Null: no log-probabilities. Else how many of the likeliest tokens are told with each. */
  top: number | null;
  processed: boolean;
  echo: boolean;
  tokenIds: boolean;
  choices: string[] | null;
}

export interface ServedPolicy {
  id: string;
  tokenizer: Tokenizer;
  endIds: readonly number[];
  /** Most tokens of prompt and generation together. */
  context: number;
  vocabulary: number;
  /** Sequences that are decoded at once, and with those that may wait. */
  rows: number;
  capacity: number;
}

export function planCompletion(body: unknown, policy: ServedPolicy, newSeed: () => number): Plan {
  const asked = parse(completionSchema, body);
  const special = asked.add_special_tokens ?? true;
  const prompts = toPrompts(asked.prompt, (text) => policy.tokenizer.encode(text, { special }));
  const plan = planOf('completion', asked, prompts, policy, newSeed, { most: asked.max_tokens ?? 16, param: 'prompt' });
  const echo = asked.echo ?? false;
  const top = asked.logprobs ?? null;
  for (const request of plan.requests) {
    request.topLogProbabilities = top ?? 0;
    request.promptLogProbabilities = echo && top !== null;
  }
  return { ...plan, echo, top };
}

export function planChat(body: unknown, policy: ServedPolicy, newSeed: () => number): Plan {
  const asked = parse(chatSchema, body);
  const messages = asked.messages.map((message) => ({
    ...message,
    content: typeof message.content === 'string' ? message.content : message.content.map(({ text }) => text).join('\n'),
  }));
  const text = policy.tokenizer.chat(messages, asked.add_generation_prompt ?? true, asked.chat_template_kwargs ?? {});
  // The template has written the special tokens already.
  const prompt = policy.tokenizer.encode(text, { special: false });
  const most = asked.max_completion_tokens ?? asked.max_tokens;
  const plan = planOf('chat', asked, [prompt], policy, newSeed, { most, param: 'messages' });
  if (asked.top_logprobs !== undefined && asked.logprobs !== true) throw invalid('top_logprobs', 'top_logprobs: needs logprobs: true.');
  const top = asked.logprobs === true ? (asked.top_logprobs ?? 0) : null;
  for (const request of plan.requests) request.topLogProbabilities = top ?? 0;
  return { ...plan, top };
}

function toPrompts(given: string | string[] | number[] | number[][], encode: (text: string) => number[]): number[][] {
  if (typeof given === 'string') return [encode(given)];
  if (typeof given[0] === 'number') return [given as number[]];
  return (given as (string | number[])[]).map((one) => (typeof one === 'string' ? encode(one) : one));
}

/** The field that choices are refused by, whichever of the two names they came under. */
const CHOICE = 'structured_outputs.choice';

/** What completions and chats have in common. `most`: tokens of a continuation; absent: as many as the context holds. */
function planOf(
  kind: Plan['kind'],
  asked: Shared,
  prompts: number[][],
  policy: ServedPolicy,
  newSeed: () => number,
  { most, param }: { most: number | undefined; param: string },
): Plan {
  checkModel(asked.model, policy.id);
  const samples = asked.n ?? 1;
  const choices = asked.structured_outputs?.choice ?? asked.guided_choice ?? null;
  const rows = choices ? 1 : samples;
  if (rows > policy.rows) throw invalid('n', `n: at most ${policy.rows} here.`, 'invalid_value');
  if (rows * prompts.length > policy.capacity)
    throw invalid(param, `${param}: ${rows * prompts.length} sequences in one request; at most ${policy.capacity} here.`, 'invalid_value');
  const choiceIds = choices?.map((choice) => policy.tokenizer.encode(choice, { special: false }));
  const { unknown } = policy.tokenizer;
  const strange =
    unknown &&
    choices?.find((choice, i) => choiceIds![i]!.filter((id) => id === unknown.id).length > choice.split(unknown.text).length - 1);
  if (strange !== undefined)
    throw invalid(CHOICE, `${CHOICE}: ${JSON.stringify(strange)} has words outside the model's vocabulary.`, 'invalid_value');
  if (choiceIds && new Set(choiceIds.map((ids) => ids.join())).size < choiceIds.length)
    throw invalid(CHOICE, `${CHOICE}: two choices are the same tokens.`, 'invalid_value');
  const longestChoice = Math.max(0, ...(choiceIds ?? []).map((ids) => ids.length + 1));
  const seed = asked.seed ?? newSeed();
  const requests = prompts.map((prompt, p): GenerationRequest => {
    if (prompt.length === 0) throw invalid(param, `${param}: no tokens.`, 'invalid_value');
    const wrong = prompt.find((id) => id >= policy.vocabulary);
    if (wrong !== undefined) throw invalid(param, `${param}: token ${wrong}; the vocabulary has ${policy.vocabulary}.`, 'invalid_value');
    const wanted = choices ? longestChoice : (most ?? 1);
    if (prompt.length + wanted > policy.context)
      throw invalid(
        param,
        `This model's context is ${policy.context} tokens; the ${param} has ${prompt.length} and ${wanted} more are asked for.`,
        'context_length_exceeded',
      );
    return {
      prompt,
      samples,
      key: ['serve', seed, p],
      sampling: {
        temperature: asked.temperature ?? 1,
        topP: asked.top_p,
        topK: asked.top_k === undefined || asked.top_k < 1 ? undefined : asked.top_k,
      },
      maxTokens: most ?? policy.context - prompt.length,
      stopIds: [...(asked.ignore_eos && !choices ? [] : policy.endIds), ...(asked.stop_token_ids ?? [])],
      stopTexts: [asked.stop ?? []].flat(),
      topLogProbabilities: 0,
      promptLogProbabilities: false,
      ...(choiceIds ? { choices: choiceIds } : {}),
    };
  });
  return {
    kind,
    requests,
    samples,
    stream: asked.stream ?? false,
    includeUsage: asked.stream_options?.include_usage ?? false,
    top: null,
    processed: asked.logprobs_mode === 'processed_logprobs',
    echo: false,
    tokenIds: asked.return_token_ids ?? false,
    choices,
  };
}

export function checkModel(asked: string | undefined, served: string): void {
  if (asked !== undefined && asked !== served)
    throw new ApiError(404, `The model '${asked}' does not exist; this server has '${served}'.`, {
      param: 'model',
      code: 'model_not_found',
    });
}

export interface ServedRewardModel {
  id: string;
  tokenizer: Tokenizer;
  context: number;
  capacity: number;
}

/** Token ids of the texts to classify. */
export function planClassify(body: unknown, model: ServedRewardModel): number[][] {
  const asked = parse(classifySchema, body);
  checkModel(asked.model, model.id);
  const special = asked.add_special_tokens ?? true;
  return checkTexts(
    toPrompts(asked.input, (text) => model.tokenizer.encode(text, { special })),
    'input',
    model,
  );
}

/** The pairs to score: one text with each, or each with its own, as in vLLM. One text with many is read once. */
export function planScore(body: unknown, model: ServedRewardModel): { groups: ScoreGroup[]; tokens: number } {
  const asked = parse(scoreSchema, body);
  checkModel(asked.model, model.id);
  const [first, second] = [[asked.text_1].flat(), [asked.text_2].flat()];
  if (first.length !== 1 && first.length !== second.length)
    throw invalid('text_1', `text_1: ${first.length} texts; it takes one, or as many as text_2 has (${second.length}).`, 'invalid_value');
  const pairs = checkTexts(
    second.map((text, i) => model.tokenizer.encodePair(first.length === 1 ? first[0]! : first[i]!, text)),
    'text_2',
    model,
  );
  const tokens = pairs.reduce((sum, pair) => sum + pair.length, 0);
  if (first.length > 1) return { groups: pairs.map((pair) => ({ prefix: [], candidates: [pair] })), tokens };
  let common = Math.min(...pairs.map((pair) => pair.length)) - 1;
  for (const pair of pairs) for (let i = 0; i < common; i++) if (pair[i] !== pairs[0]![i]) common = i;
  return { groups: [{ prefix: pairs[0]!.slice(0, common), candidates: pairs.map((pair) => pair.slice(common)) }], tokens };
}

function checkTexts(ids: number[][], param: string, model: ServedRewardModel): number[][] {
  if (ids.length > model.capacity) throw invalid(param, `${param}: ${ids.length} texts; at most ${model.capacity} here.`, 'invalid_value');
  for (const one of ids) {
    if (one.length === 0) throw invalid(param, `${param}: a text without tokens.`, 'invalid_value');
    if (one.length > model.context)
      throw invalid(param, `This model's context is ${model.context} tokens; a text has ${one.length}.`, 'context_length_exceeded');
    const wrong = one.find((id) => id >= model.tokenizer.size);
    if (wrong !== undefined) throw invalid(param, `${param}: token ${wrong}; the vocabulary has ${model.tokenizer.size}.`, 'invalid_value');
  }
  return ids;
}
