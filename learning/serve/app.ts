/**
 * The HTTP interface over an engine: OpenAI's completions and chats, vLLM's `/classify` and `/score`, health and metrics. It knows no model and computes
 * nothing; a client that goes away cancels what it asked for.
 */
import { createHash, randomInt, randomUUID, timingSafeEqual } from 'node:crypto';
import { Hono, type Context } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { streamSSE } from 'hono/streaming';
import type { GenerationEvent } from '../continuous-batch.ts';
import { emptyResult, record } from '../generate.ts';
import { Answers, type Envelope } from './answers.ts';
import { Channel } from './channel.ts';
import type { Engine } from './engine.ts';
import { ApiError, asApiError, invalid, RETRY_AFTER_S } from './errors.ts';
import { createMetrics } from './metrics.ts';
import type { ScoreGroup } from './protocol.ts';
import { planChat, planClassify, planCompletion, planScore, type Plan, type ServedPolicy, type ServedRewardModel } from './requests.ts';

/** Largest body. The longest contexts in use are some 100 k tokens, half a megabyte; with many prompts in one request a few. */
const BODY_BOUND_BYTES = 8 * 2 ** 20;
/** Longest wait for an answer: what OpenAI's own clients wait by default. */
const REQUEST_BOUND_MS = 10 * 60_000;
/** Seeds of requests that bring none. */
const SEEDS = 2 ** 47;

export interface AppOptions {
  engine: Engine;
  policy: (ServedPolicy & { digest: string }) | null;
  rewardModel: (ServedRewardModel & { digest: string; label: string }) | null;
  /** Clients must send it as a bearer token; null: nobody is asked. `/health` and `/metrics` are open. */
  apiKey: string | null;
  /** True once the server takes no more work. */
  draining: () => boolean;
  onError?: (error: unknown) => void;
}

/** The routes that metrics tell apart. */
const ROUTES: ReadonlySet<string> = new Set([
  '/health',
  '/metrics',
  '/v1/models',
  '/v1/models/:id',
  '/v1/completions',
  '/v1/chat/completions',
  '/classify',
  '/v1/classify',
  '/score',
  '/v1/score',
]);

export function createApp({ engine, policy, rewardModel, apiKey, draining, onError = console.error }: AppOptions) {
  const created = Math.floor(Date.now() / 1000);
  const metrics = createMetrics(engine);
  const app = new Hono<{ Variables: { began: number; id: string } }>();
  type Ctx = Context<{ Variables: { began: number; id: string } }>;

  app.use(async (c, next) => {
    c.set('began', performance.now());
    c.set('id', randomUUID());
    await next();
    c.header('x-request-id', c.get('id'));
    // Only routes that exist: a label for every path that somebody tries would be memory for the asking.
    const asked = c.req.path.replace(/^\/v1\/models\/.*/, '/v1/models/:id');
    const path = ROUTES.has(asked) ? asked : 'unknown';
    metrics.requests.inc({ path, status: c.res.status });
    if (c.res.headers.get('content-type') !== 'text/event-stream')
      metrics.seconds.observe({ path }, (performance.now() - c.get('began')) / 1000);
  });
  app.get('/health', (c) => (engine.ready && !draining() ? c.json({ status: 'ok' }) : c.json({ status: 'unavailable' }, 503)));
  app.get('/metrics', async (c) => c.text(await metrics.registry.metrics(), 200, { 'content-type': metrics.registry.contentType }));
  app.use(async (c, next) => {
    if (apiKey !== null && !sameSecret(c.req.header('authorization') ?? '', `Bearer ${apiKey}`))
      throw new ApiError(401, 'The API key is missing or wrong.', { code: 'invalid_api_key' });
    if (draining() && c.req.method === 'POST')
      throw new ApiError(503, 'The server is shutting down.', { type: 'service_unavailable_error', code: 'unavailable' });
    await next();
  });
  app.use(
    bodyLimit({
      maxSize: BODY_BOUND_BYTES,
      onError: () => {
        throw new ApiError(413, `The body is larger than ${BODY_BOUND_BYTES} bytes.`, { code: 'request_too_large' });
      },
    }),
  );

  const models = [policy, rewardModel].flatMap((model) =>
    model
      ? [{ id: model.id, object: 'model', created, owned_by: 'ratchet', root: model.digest, parent: null, max_model_len: model.context }]
      : [],
  );
  app.get('/v1/models', (c) => c.json({ object: 'list', data: models }));
  app.get('/v1/models/:id{.+}', (c) => {
    const found = models.find(({ id }) => id === c.req.param('id'));
    if (!found) throw new ApiError(404, `The model '${c.req.param('id')}' does not exist.`, { param: 'model', code: 'model_not_found' });
    return c.json(found);
  });

  // --- generation ----------------------------------------------------------------------------------------------------------------------------------

  const answer = async (c: Ctx, planned: typeof planCompletion | typeof planChat) => {
    if (!policy) throw new ApiError(404, 'This server has no policy.', { code: 'model_not_found' });
    const plan = planned(await bodyOf(c), policy, () => randomInt(SEEDS));
    const prefix = plan.kind === 'chat' ? 'chatcmpl' : 'cmpl';
    const envelope: Envelope = {
      id: `${prefix}-${c.get('id')}`,
      created: Math.floor(Date.now() / 1000),
      model: policy.id,
      system_fingerprint: `fp_${policy.digest.slice(0, 12)}`,
    };
    const answers = new Answers(plan, policy.tokenizer, envelope, policy.endIds);
    return plan.stream ? streamed(c, plan, answers) : c.json(await whole(c, plan, answers));
  };

  /** Runs all requests of a plan; if one fails, the others are cancelled. */
  const run = async (c: Ctx, plan: Plan, gone: AbortSignal, tell: (p: number, event: GenerationEvent<number>) => void): Promise<void> => {
    const failed = new AbortController();
    const signal = AbortSignal.any([gone, failed.signal, AbortSignal.timeout(REQUEST_BOUND_MS)]);
    let first = true;
    const runs = plan.requests.map((request, p) =>
      engine.generate(
        request,
        (event) => {
          if (first && event.kind === 'token') metrics.firstTokenSeconds.observe((performance.now() - c.get('began')) / 1000);
          first &&= event.kind !== 'token';
          if (event.kind === 'token') metrics.tokens.inc({ kind: 'generated' });
          tell(p, event);
        },
        signal,
      ),
    );
    metrics.tokens.inc(
      { kind: 'prompt' },
      plan.requests.reduce((sum, { prompt }) => sum + prompt.length, 0),
    );
    try {
      await Promise.all(runs);
    } catch (error) {
      failed.abort(error);
      await Promise.allSettled(runs);
      if (gone.aborted) throw new ApiError(499, 'The client went away.', { code: 'client_closed_request' });
      throw timedOut(error);
    }
  };

  const whole = async (c: Ctx, plan: Plan, answers: Answers): Promise<object> => {
    const results = plan.requests.map(({ samples }) => emptyResult(samples));
    await run(c, plan, c.req.raw.signal, (p, event) => record(results[p]!, event));
    return answers.whole(results);
  };

  const streamed = async (c: Ctx, plan: Plan, answers: Answers) => {
    const results = plan.requests.map(({ samples }) => emptyResult(samples));
    const offsets = new Map<number, number>();
    const gone = new AbortController();
    const channel = new Channel<object>();
    const tell = (p: number, event: GenerationEvent<number>) => {
      record(results[p]!, event);
      if (event.kind !== 'token' && event.kind !== 'end') return;
      const index = p * plan.samples + event.sample;
      if (event.kind === 'end') return channel.push(answers.end(index, event, results[p]!));
      const offset = offsets.get(index) ?? answers.echoed(p).length;
      offsets.set(index, offset + answers.lengthOf(event.token.id));
      const part = answers.token(index, event.token, offset);
      if (part) channel.push(part);
    };
    run(c, plan, AbortSignal.any([c.req.raw.signal, gone.signal]), tell).then(
      () => channel.close(),
      (error: unknown) => channel.fail(error),
    );
    // What is refused is refused with its status: the stream begins with the first part.
    await channel.ready();
    return streamSSE(c, async (stream) => {
      stream.onAbort(() => gone.abort(new DOMException('The client went away.', 'AbortError')));
      const write = (data: object | '[DONE]') => stream.writeSSE({ data: typeof data === 'string' ? data : JSON.stringify(data) });
      try {
        for (const part of answers.opening()) await write(part);
        for await (const part of channel) await write(part);
        if (plan.includeUsage) await write(answers.usage(results));
        await write('[DONE]');
      } catch (error) {
        report(error);
        await write(asApiError(error).body());
      }
      metrics.seconds.observe({ path: c.req.path }, (performance.now() - c.get('began')) / 1000);
    });
  };

  app.post('/v1/completions', (c) => answer(c, planCompletion));
  app.post('/v1/chat/completions', (c) => answer(c, planChat));

  // --- scores --------------------------------------------------------------------------------------------------------------------------------------

  const score = async (c: Ctx, groups: readonly ScoreGroup[]): Promise<number[]> => {
    const signal = AbortSignal.any([c.req.raw.signal, AbortSignal.timeout(REQUEST_BOUND_MS)]);
    const logits = await engine.score(groups, signal).catch((error: unknown) => {
      if (c.req.raw.signal.aborted) throw new ApiError(499, 'The client went away.', { code: 'client_closed_request' });
      throw timedOut(error);
    });
    return logits.map((logit) => 1 / (1 + Math.exp(-logit)));
  };
  const needRewardModel = () => {
    if (!rewardModel) throw new ApiError(404, 'This server has no reward model.', { code: 'model_not_found' });
    return rewardModel;
  };
  const scored = (c: Ctx, prefix: string, tokens: number, data: object[]) => {
    metrics.tokens.inc({ kind: 'prompt' }, tokens);
    const usage = { prompt_tokens: tokens, total_tokens: tokens, completion_tokens: 0 };
    return c.json({
      id: `${prefix}-${c.get('id')}`,
      object: 'list',
      created: Math.floor(Date.now() / 1000),
      model: needRewardModel().id,
      data,
      usage,
    });
  };
  const classify = async (c: Ctx) => {
    const model = needRewardModel();
    const texts = planClassify(await bodyOf(c), model);
    const probabilities = await score(
      c,
      texts.map((text) => ({ prefix: [], candidates: [text] })),
    );
    const data = probabilities.map((probability, index) => ({ index, label: model.label, probs: [probability], num_classes: 1 }));
    return scored(c, 'classify', texts.flat().length, data);
  };
  const scorePairs = async (c: Ctx) => {
    const { groups, tokens } = planScore(await bodyOf(c), needRewardModel());
    const scores = await score(c, groups);
    return scored(
      c,
      'score',
      tokens,
      scores.map((value, index) => ({ index, object: 'score', score: value })),
    );
  };
  for (const path of ['/classify', '/v1/classify']) app.post(path, classify);
  for (const path of ['/score', '/v1/score']) app.post(path, scorePairs);

  // --- failures ------------------------------------------------------------------------------------------------------------------------------------

  const report = (error: unknown) => {
    if (asApiError(error).code === 'internal_error') onError(error);
  };
  app.notFound((c) => c.json(new ApiError(404, `Unknown request: ${c.req.method} ${c.req.path}.`, { code: 'unknown_url' }).body(), 404));
  app.onError((error, c) => {
    report(error);
    const failure = asApiError(error);
    if (failure.status === 429 || failure.status === 503) c.header('Retry-After', String(RETRY_AFTER_S));
    return c.json(failure.body(), failure.status as 400);
  });
  return app;
}

async function bodyOf(c: Context): Promise<unknown> {
  let body: unknown;
  try {
    body = await c.req.json();
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw invalid(null, 'The body is not valid JSON.', 'invalid_json');
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw invalid(null, 'The body must be a JSON object.', 'invalid_json');
  return body;
}

function timedOut(error: unknown): unknown {
  if (!(error instanceof DOMException) || error.name !== 'TimeoutError') return error;
  return new ApiError(504, `The answer was not ready within ${REQUEST_BOUND_MS / 1000} s.`, { code: 'timeout' });
}

/** In the same time whatever is wrong with the guess. */
function sameSecret(given: string, expected: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(expected));
}
