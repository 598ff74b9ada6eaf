/** Answers in OpenAI's shapes, whole or as the parts of a stream, with vLLM's additions (`stop_reason`, `token_ids`, `prompt_token_ids`). */
import type { GeneratedToken, Generation, GenerationEnd, GenerationResult } from '../generation.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { Plan } from './requests.ts';

export interface Envelope {
  id: string;
  created: number;
  model: string;
  system_fingerprint: string;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  /** Prompt tokens that had been read for an earlier request. */
  prompt_tokens_details: { cached_tokens: number };
}

export function usageOf(plan: Plan, results: readonly GenerationResult[]): Usage {
  const prompt = plan.requests.reduce((sum, request) => sum + request.prompt.length, 0);
  const completion = results.flatMap(({ samples }) => samples).reduce((sum, { tokens }) => sum + tokens.length, 0);
  const cached = results.reduce((sum, { reusedTokens }) => sum + reusedTokens, 0);
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: cached },
  };
}

export class Answers {
  readonly #plan: Plan;
  readonly #tokenizer: Tokenizer;
  readonly #envelope: Envelope;
  readonly #endIds: readonly number[];

  constructor(plan: Plan, tokenizer: Tokenizer, envelope: Envelope, endIds: readonly number[]) {
    this.#plan = plan;
    this.#tokenizer = tokenizer;
    this.#envelope = envelope;
    this.#endIds = endIds;
  }

  // --- whole answers -------------------------------------------------------------------------------------------------------------------------------

  whole(results: readonly GenerationResult[]): object {
    const { kind, requests, samples } = this.#plan;
    const choices = results.flatMap((result, p) =>
      result.samples.map((sample, s) => {
        const prompt = requests[p]!.prompt;
        const common = {
          index: p * samples + s,
          ...this.#ending(sample),
          ...this.#ids(sample.tokens, kind === 'completion' ? prompt : null),
        };
        const more = this.#choiceLogprobs(result);
        if (kind === 'chat')
          return {
            ...common,
            message: { role: 'assistant', content: this.#text(sample), refusal: null },
            logprobs: this.#chatLogprobs(sample.tokens),
            ...more,
          };
        const logprobs = this.#logprobs(this.#plan.echo ? this.#promptTokens(prompt, result) : [], sample.tokens, 0);
        return { ...common, text: this.echoed(p) + this.#text(sample), logprobs, ...more };
      }),
    );
    const usage = usageOf(this.#plan, results);
    const prompt_token_ids = kind === 'chat' && this.#plan.tokenIds ? { prompt_token_ids: requests[0]!.prompt } : {};
    return { ...this.#head(false), choices, usage, ...prompt_token_ids };
  }

  /** The text of a prompt where it is told again. */
  echoed(p: number): string {
    return this.#plan.echo ? this.#tokenizer.decode(this.#plan.requests[p]!.prompt) : '';
  }

  #text(sample: Generation): string {
    return sample.choice === undefined ? sample.text : this.#plan.choices![sample.choice]!;
  }

  // --- parts of a stream ---------------------------------------------------------------------------------------------------------------------------

  /** What comes before the first token of each choice: the role, or the prompt where it is echoed. */
  opening(): object[] {
    const { kind, requests, samples, echo, tokenIds } = this.#plan;
    return requests.flatMap(({ prompt }, p) =>
      Array.from({ length: samples }, (_, s) => {
        const index = p * samples + s;
        if (kind === 'chat') {
          const ids = tokenIds ? { prompt_token_ids: prompt } : {};
          return [this.#part([{ index, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null }], ids)];
        }
        if (!echo) return [];
        return [this.#part([{ index, text: this.echoed(p), logprobs: null, finish_reason: null }])];
      }).flat(),
    );
  }

  /** A token of a choice; null where it says nothing yet. `offset`: length of the choice's text before it. */
  token(index: number, token: GeneratedToken, offset: number): object | null {
    const { kind, top, tokenIds } = this.#plan;
    if (token.text === '' && top === null && !tokenIds) return null;
    const common = { index, finish_reason: null, ...(tokenIds ? { token_ids: [token.id] } : {}) };
    if (kind === 'chat') return this.#part([{ ...common, delta: { content: token.text }, logprobs: this.#chatLogprobs([token]) }]);
    return this.#part([{ ...common, text: token.text, logprobs: this.#logprobs([], [token], offset) }]);
  }

  /** The end of a choice, with the text that was held back. */
  end(index: number, end: GenerationEnd, result: GenerationResult): object {
    const text = end.choice === undefined ? end.text : this.#plan.choices![end.choice]!;
    const common = { index, ...this.#ending(end), ...this.#choiceLogprobs(result) };
    if (this.#plan.kind === 'chat') return this.#part([{ ...common, delta: text === '' ? {} : { content: text }, logprobs: null }]);
    return this.#part([{ ...common, text, logprobs: null }]);
  }

  usage(results: readonly GenerationResult[]): object {
    return this.#part([], { usage: usageOf(this.#plan, results) });
  }

  // --- pieces --------------------------------------------------------------------------------------------------------------------------------------

  #head(part: boolean): object {
    const object = this.#plan.kind === 'chat' ? (part ? 'chat.completion.chunk' : 'chat.completion') : 'text_completion';
    const { id, created, model, system_fingerprint } = this.#envelope;
    return { id, object, created, model, system_fingerprint };
  }

  #part(choices: object[], more: object = {}): object {
    return { ...this.#head(true), choices, ...more };
  }

  /** `stop_reason` names what stopped it unless that was the model's own end of text, as vLLM says it. */
  #ending({ finish, stoppedBy }: GenerationEnd): object {
    const own = typeof stoppedBy === 'number' && this.#endIds.includes(stoppedBy);
    return { finish_reason: finish, stop_reason: own ? null : stoppedBy };
  }

  #ids(tokens: readonly GeneratedToken[], prompt: readonly number[] | null): object {
    if (!this.#plan.tokenIds) return {};
    return { token_ids: tokens.map(({ id }) => id), ...(prompt ? { prompt_token_ids: prompt } : {}) };
  }

  /** Log-probability of every choice, in the order of the request. */
  #choiceLogprobs({ choiceLogProbabilities, drawnChoiceLogProbabilities }: GenerationResult): object {
    if (this.#plan.top === null || !choiceLogProbabilities) return {};
    const values = this.#plan.processed ? drawnChoiceLogProbabilities! : choiceLogProbabilities;
    return { choice_logprobs: values.map(finite) };
  }

  #logprob(token: GeneratedToken): number {
    return this.#plan.processed ? token.drawnLogProbability : token.logProbability;
  }

  /** Length of a token's text by itself. */
  lengthOf(id: number): number {
    return this.#tokenizer.decode([id], { special: true }).length;
  }

  /** A token as text. One that is part of a character is named by its bytes, as OpenAI does it: as text, several would be the same. */
  #name(id: number): string {
    const text = this.#tokenizer.decode([id], { special: true });
    if (!text.includes('\uFFFD')) return text;
    const bytes = this.#tokenizer.bytes(id).map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`);
    return `bytes:${bytes.join('')}`;
  }

  #promptTokens(prompt: readonly number[], result: GenerationResult): { id: number; logprob: number | null }[] {
    return prompt.map((id, i) => ({ id, logprob: result.promptLogProbabilities?.[i] ?? null }));
  }

  #logprobs(prompt: { id: number; logprob: number | null }[], tokens: readonly GeneratedToken[], offset: number): object | null {
    if (this.#plan.top === null) return null;
    const all = [...prompt, ...tokens];
    let at = offset;
    const text_offset = all.map(({ id }) => {
      const before = at;
      at += this.lengthOf(id);
      return before;
    });
    const tops = tokens.map(({ top }) => Object.fromEntries(top.map(({ id, logProbability }) => [this.#name(id), finite(logProbability)])));
    return {
      text_offset,
      tokens: all.map(({ id }) => this.#name(id)),
      token_logprobs: [...prompt.map(({ logprob }) => logprob), ...tokens.map((token) => finite(this.#logprob(token)))],
      top_logprobs: this.#plan.top === 0 ? null : [...prompt.map(() => null), ...tops],
    };
  }

  #chatLogprobs(tokens: readonly GeneratedToken[]): object | null {
    if (this.#plan.top === null) return null;
    const entry = (id: number, logprob: number) => ({ token: this.#name(id), logprob: finite(logprob), bytes: this.#tokenizer.bytes(id) });
    const content = tokens.map((token) => ({
      ...entry(token.id, this.#logprob(token)),
      top_logprobs: token.top.map(({ id, logProbability }) => entry(id, logProbability)),
    }));
    return { content, refusal: null };
  }
}

/** JSON has no infinity: what cannot be drawn has null. */
const finite = (value: number): number | null => (Number.isFinite(value) ? value : null);
