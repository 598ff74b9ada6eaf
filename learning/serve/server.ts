/** A server on a port: it loads the models, answers, and ends in order: no new work, what runs is finished within a bound, then the engine goes. */
import { basename, resolve } from 'node:path';
import { serve } from '@hono/node-server';
import type { Server } from 'node:http';
import { RatchetError, badInput } from '../../core/errors.ts';
import { createApp, type AppOptions } from './app.ts';
import { Engine } from './engine.ts';
import { describeServedModel } from './served-model.ts';

/** Longest that a stopping server waits for what it has begun. */
const DRAIN_BOUND_MS = 30_000;
/** Clients and proxies keep idle connections for about a minute; one that the server closes at the moment of a request is a request lost. */
const KEEP_ALIVE_MS = 75_000;

export interface ServeOptions {
  /** Folders in the Hugging Face layout; at least one. */
  policy?: string | undefined;
  rewardModel?: string | undefined;
  /** What clients call the models; the folders' names if absent. */
  policyName?: string | undefined;
  rewardModelName?: string | undefined;
  host: string;
  /** 0: any free one. */
  port: number;
  apiKey: string | null;
  /** Sequences that are decoded at once, and that may wait beyond those. */
  rows: number;
  queue: number;
  context?: number | undefined;
  lanes: number;
  /** What the engine and failures say, line by line. */
  onLine: (line: string) => void;
}

export interface RunningServer {
  url: string;
  /** What clients call the models. */
  served: string[];
  engine: Engine;
  /** Finishes what runs (30 s at most) and ends. A second call ends at once. */
  stop(): Promise<void>;
}

/** Throws BadInput for models that cannot be served, Unavailable for a port that is taken. */
export async function startServer(options: ServeOptions): Promise<RunningServer> {
  const { policy: policyFolder, rewardModel: rewardFolder, rows, queue, onLine } = options;
  if (policyFolder === undefined && rewardFolder === undefined) throw badInput('policy', null, 'a policy or a reward model is needed');
  for (const [field, least] of [
    ['rows', 1],
    ['queue', 0],
    ['lanes', 1],
  ] as const)
    if (!Number.isInteger(options[field]) || options[field] < least)
      throw badInput(field, options[field], `a whole number of at least ${least}`);
  const described = {
    policy: policyFolder === undefined ? null : await describeServedModel(policyFolder, 'LlamaForCausalLM'),
    rewardModel: rewardFolder === undefined ? null : await describeServedModel(rewardFolder, 'LlamaForSequenceClassification'),
  };
  const names = { policy: options.policyName ?? nameOf(policyFolder), rewardModel: options.rewardModelName ?? nameOf(rewardFolder) };
  if (described.policy && described.rewardModel && names.policy === names.rewardModel) names.rewardModel = `${names.rewardModel}-reward`;
  const engineOptions = { policy: policyFolder, rewardModel: rewardFolder, rows, context: options.context, lanes: options.lanes };
  const engine = await Engine.start(engineOptions, { queue, onLine });
  let draining = false;
  try {
    const capacity = rows + queue;
    const appOptions: AppOptions = {
      engine,
      policy: described.policy && {
        id: names.policy,
        tokenizer: described.policy.tokenizer,
        endIds: described.policy.endIds,
        context: engine.policyContext,
        vocabulary: described.policy.config.vocab_size,
        rows,
        capacity,
        digest: described.policy.digest,
      },
      rewardModel: described.rewardModel && {
        id: names.rewardModel,
        tokenizer: described.rewardModel.tokenizer,
        context: engine.rewardContext,
        capacity,
        digest: described.rewardModel.digest,
        label: (described.rewardModel.config['id2label'] as Record<string, string> | undefined)?.['0'] ?? 'LABEL_0',
      },
      apiKey: options.apiKey,
      draining: () => draining,
      onError: (error) => onLine(error instanceof Error ? (error.stack ?? error.message) : String(error)),
    };
    const { server, url } = await listen(createApp(appOptions), options.host, options.port);
    server.keepAliveTimeout = KEEP_ALIVE_MS;
    // A connection that outlives its answer would keep a stopping server waiting.
    server.on('request', (_, response) => response.once('close', () => draining && setImmediate(() => server.closeIdleConnections())));
    let stopping: Promise<void> | null = null;
    const end = async () => {
      await engine.close();
      server.closeAllConnections();
    };
    return {
      url,
      served: [appOptions.policy, appOptions.rewardModel].flatMap((model) => (model ? [model.id] : [])),
      engine,
      stop() {
        if (stopping) return end();
        draining = true;
        stopping = drain(server).then(end);
        return stopping;
      },
    };
  } catch (error) {
    await engine.close();
    throw error;
  }
}

const nameOf = (folder: string | undefined): string => (folder === undefined ? '' : basename(resolve(folder)));

function listen(app: ReturnType<typeof createApp>, host: string, port: number): Promise<{ server: Server; url: string }> {
  return new Promise((resolve, reject) => {
    const server = serve({ fetch: app.fetch, hostname: host, port }, (address) => {
      const name = address.family === 'IPv6' ? `[${address.address}]` : address.address;
      resolve({ server, url: `http://${name}:${address.port}` });
    }) as Server;
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(new RatchetError('Unavailable', `port ${port} of ${host} cannot be used: ${error.message}`, { cause: error }));
    });
  });
}

/** Resolves when every connection has ended its answer, or after the bound. */
async function drain(server: Server): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  await Promise.race([
    new Promise<void>((resolve) => server.close(() => resolve())),
    new Promise<void>((resolve) => {
      timer = setTimeout(resolve, DRAIN_BOUND_MS);
    }),
  ]);
  clearTimeout(timer);
}
