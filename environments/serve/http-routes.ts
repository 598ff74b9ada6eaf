/**
 * The plain HTTP routes: OpenEnv's descriptions, its Task API, and its stateless `/reset` and `/step` (each opens a game, answers and forgets it, as OpenEnv
 * has it: episodes exist only on `/ws`); and AgentGym's ALFWorld routes, whose `/reset` and `/step` have the same names and are told by their `id`.
 */
import { Hono, type Context } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import * as z from 'zod';
import { RatchetError } from '../../core/errors.ts';
import { agentGymRequests, agentGymRoutes } from './agentgym.ts';
import { action, answerMcp, chosenTask, issuesOf, resetRequest, resetSession, schemas, stateOf, stepSession } from './openenv.ts';
import type { Issue, StepResult } from './openenv.ts';
import { Session } from './session.ts';
import type { Sessions } from './sessions.ts';
import { splitNamed, taskAt, type ServedTasks } from './tasks.ts';

/** Requests are some hundred bytes. */
export const LARGEST_BODY_BYTES = 1024 * 1024;

/** What a route answers a wrong request with; told to the client as FastAPI does. */
class Refusal extends Error {
  readonly status: 400 | 404 | 422;
  readonly detail: string | Issue[];
  constructor(status: 400 | 404 | 422, detail: string | Issue[]) {
    super(typeof detail === 'string' ? detail : 'Invalid request');
    this.status = status;
    this.detail = detail;
  }
}

const stepRequest = z.looseObject({
  action,
  timeout_s: z.number().positive().nullish(),
  request_id: z.string().max(255).nullish(),
});
const ofSplit = z.object({ split: z.string() });
const ofTask = z.object({ split: z.string(), index: z.int() });
const ofRange = z.object({ split: z.string(), start: z.int().nullish(), stop: z.int().nullish() });

/** The JSON body; an absent one is `{}`. */
async function bodyOf(context: Context): Promise<unknown> {
  const text = await context.req.text();
  if (text === '') return {};
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Refusal(422, [{ type: 'json_invalid', loc: ['body'], msg: (error as Error).message }]);
  }
}

function valid<T extends z.ZodType>(schema: T, body: unknown): z.infer<T> {
  const parsed = schema.safeParse(body);
  if (!parsed.success) throw new Refusal(422, issuesOf(parsed.error, ['body']));
  return parsed.data;
}

/** A session that nobody keeps, with an episode. */
function openOnce(tasks: ServedTasks, body: unknown): { session: Session; result: StepResult } {
  const request = { episode_id: 'of one request', ...valid(resetRequest, body) };
  const session = new Session(-1, performance.now(), () => undefined);
  return { session, result: resetSession(session, tasks, chosenTask(session, tasks, request), request) };
}

/** AgentGym's requests name their environment by `id`; OpenEnv's have no such key. */
const isAgentGym = (body: unknown): boolean => typeof body === 'object' && body !== null && Object.hasOwn(body, 'id');

export function httpRoutes(tasks: ServedTasks, sessions: Sessions, version: string, onBug: (error: unknown) => void): Hono {
  const app = new Hono();
  // The rest of the body was not read: the connection cannot be used again.
  const tooLarge = (c: Context) => c.json({ detail: `at most ${LARGEST_BODY_BYTES} bytes` }, 413, { connection: 'close' });
  app.use(bodyLimit({ maxSize: LARGEST_BODY_BYTES, onError: tooLarge }));
  app.onError((error, c) => {
    if (error instanceof Refusal) return c.json({ detail: error.detail }, error.status);
    if (error instanceof RatchetError && error.type === 'BadInput')
      return c.json({ detail: [{ type: 'value_error', loc: ['body'], msg: error.message }] }, 422);
    if (!(error instanceof RatchetError)) onBug(error);
    return c.json({ detail: error instanceof RatchetError ? error.message : 'Internal error' }, 500);
  });
  app.notFound((c) => c.json({ detail: 'Not Found' }, 404));

  const counts = () => ({ ...sessions.counts, max: sessions.bounds.maxSessions });
  const full = () => sessions.active >= sessions.bounds.maxSessions;
  app.get('/', (c) => c.text(`${tasks.description}. OpenEnv: WebSocket /ws. AgentGym: POST /create.\n`));
  app.get('/health', (c) => c.json({ status: full() ? 'degraded' : 'healthy' }));
  app.get('/metadata', (c) => c.json({ name: tasks.name, description: tasks.description, version }));
  app.get('/schema', (c) => c.json(schemas()));
  app.get('/state', (c) => c.json({ ...stateOf(null, counts()), sessions: sessions.counts }));
  app.get('/metrics', (c) => c.text(metrics(sessions), 200, { 'content-type': 'text/plain; version=0.0.4' }));
  app.post('/mcp', async (c) => {
    try {
      return c.json(answerMcp(JSON.parse(await c.req.text())));
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      return c.json({ jsonrpc: '2.0', id: null, error: { code: -32700, message: `Parse error: ${error.message}` } });
    }
  });

  const agentGym = agentGymRoutes(tasks, sessions);
  app.post('/reset', async (c) => {
    const body = await bodyOf(c);
    if (isAgentGym(body)) return c.json(agentGym.reset(valid(agentGymRequests.reset, body)));
    return c.json(openOnce(tasks, body).result);
  });
  app.post('/step', async (c) => {
    const body = await bodyOf(c);
    if (isAgentGym(body)) return c.json(agentGym.step(valid(agentGymRequests.step, body)));
    const { action, timeout_s: _, request_id: __, ...reset } = valid(stepRequest, body);
    const { session } = openOnce(tasks, reset);
    return c.json(stepSession(session, action.command));
  });
  app.post('/create', (c) => {
    const created = agentGym.create();
    return c.json(created, 'error' in created ? 503 : 200);
  });
  app.post('/close', async (c) => c.json(agentGym.close(valid(agentGymRequests.close, await bodyOf(c)))));
  for (const what of ['available_actions', 'observation', 'detail'] as const)
    app.get(`/${what}`, (c) => c.json(agentGym[what](valid(agentGymRequests.query, c.req.query()))));

  app.get('/list_environments', (c) => c.json([tasks.name]));
  const named = (c: Context): void => {
    const name = c.req.param('environment') ?? '';
    if (name.toLowerCase() !== tasks.name.toLowerCase()) throw new Refusal(404, `unknown environment ${JSON.stringify(name)}`);
  };
  const asked = async <T extends z.ZodType<{ split: string }>>(c: Context, schema: T) => {
    named(c);
    const request = valid(schema, await bodyOf(c));
    try {
      return { ...request, list: splitNamed(tasks, request.split) };
    } catch (error) {
      throw new Refusal(404, (error as Error).message);
    }
  };
  app.get('/:environment/splits', (c) => {
    named(c);
    return c.json(tasks.splits.map(({ name, type }) => ({ name, type })));
  });
  app.post('/:environment/num_tasks', async (c) => c.json({ num_tasks: (await asked(c, ofSplit)).list.tasks.length }));
  app.post('/:environment/tasks', async (c) => {
    const { list, split } = await asked(c, ofSplit);
    return c.json({ tasks: list.tasks.map((task, index) => ({ ...task, split, index })), env_name: tasks.name });
  });
  app.post('/:environment/task', async (c) => {
    const { list, split, index } = await asked(c, ofTask);
    if (!list.tasks[index]) throw new Refusal(400, 'Invalid task index');
    return c.json({ task: { ...taskAt(list, index).task, split, index } });
  });
  app.post('/:environment/task_range', async (c) => {
    const { list, split, start, stop } = await asked(c, ofRange);
    // The rules of JavaScript's slice are those of Python's.
    const all = list.tasks.map((task, index) => ({ ...task, split, index }));
    return c.json({ tasks: all.slice(start ?? 0, stop ?? all.length) });
  });
  return app;
}

/** The counts in Prometheus' text format. */
function metrics(sessions: Sessions): string {
  const { active, opened, refused, ended } = sessions.counts;
  const lines = [
    ['gauge', 'active', 'sessions open now', [['', active]]],
    ['gauge', 'limit', 'most sessions at a time', [['', sessions.bounds.maxSessions]]],
    ['counter', 'opened_total', 'sessions opened', [['', opened]]],
    ['counter', 'refused_total', 'sessions refused because all were taken', [['', refused]]],
    ['counter', 'ended_total', 'sessions ended, by reason', Object.entries(ended).map(([why, n]) => [`{reason="${why}"}`, n])],
  ] as const;
  return lines
    .map(([type, name, help, values]) => {
      const full = `ratchet_env_sessions_${name}`;
      return [`# HELP ${full} ${help}`, `# TYPE ${full} ${type}`, ...values.map(([labels, value]) => `${full}${labels} ${value}`), ''].join(
        '\n',
      );
    })
    .join('');
}
