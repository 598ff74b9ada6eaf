/**
 * The OpenEnv protocol without its transport: a message in, an answer out, one for one and in order (https://github.com/huggingface/OpenEnv). Every answer
 * to `reset` and `step` names the task that was opened, with its content digest, so that a client can see that it plays what it asked for.
 * A message that is refused changes nothing, and the session goes on.
 */
import * as z from 'zod';
import { RatchetError } from '../../core/errors.ts';
import type { Episode, Session } from './session.ts';
import type { SessionCounts } from './sessions.ts';
import type { PlacedTask, ServedTasks } from './tasks.ts';

/** Longer commands are refused: the longest that a household game knows has some 60 characters. */
export const LONGEST_COMMAND = 4096;
const LONGEST_ID = 255;
/** A task's id is a path below a folder of games. */
const LONGEST_TASK_ID = 4096;
/** Of a message about a message: it may quote what was sent. */
const LONGEST_ISSUE = 1000;

/** What `reset` takes. Other keys are allowed, as trainers pass whole rows of data sets; the answer's metadata lists what was ignored. */
export const resetRequest = z.looseObject({
  seed: z.int().min(0).nullish().describe('draws a task of the split: the same seed, the same task'),
  episode_id: z.string().max(LONGEST_ID).nullish(),
  split: z.string().max(LONGEST_ID).nullish(),
  index: z.int().min(0).nullish().describe('the number of the task within its split'),
  task_id: z.string().max(LONGEST_TASK_ID).nullish(),
});

export const action = z.strictObject({
  command: z.string().max(LONGEST_COMMAND).describe('what to do; an inadmissible command changes nothing but takes a turn'),
  metadata: z.record(z.string(), z.unknown()).optional(),
});

export const observation = z.strictObject({
  text: z.string().describe('what the agent sees: the introduction, later the feedback to the command'),
  admissible_commands: z.array(z.string()).describe('sorted; empty once the episode is done'),
  task_type: z.string().describe('the task family'),
  goal: z.string(),
  won: z.boolean(),
  turn: z.int().describe('turns taken so far'),
  truncated: z.boolean().describe('done because the cap on turns was reached, not because the task is solved'),
  task: z.strictObject({
    id: z.string(),
    split: z.string(),
    index: z.int(),
    sha256: z.string().describe("digest of the task's full content"),
  }),
});

const state = z.looseObject({
  episode_id: z.string().nullable(),
  step_count: z.int().min(0),
  task: observation.shape.task.nullable(),
  seed: z.int().nullable(),
  won: z.boolean(),
  done: z.boolean(),
  active_sessions: z.int(),
  max_sessions: z.int(),
});

const messages = {
  reset: z.strictObject({ type: z.literal('reset'), data: z.record(z.string(), z.unknown()).default({}) }),
  step: z.strictObject({ type: z.literal('step'), data: z.record(z.string(), z.unknown()) }),
  state: z.strictObject({ type: z.literal('state') }),
  close: z.strictObject({ type: z.literal('close') }),
  mcp: z.strictObject({ type: z.literal('mcp'), data: z.unknown() }),
};
type MessageType = keyof typeof messages;

export type ErrorCode = 'INVALID_JSON' | 'UNKNOWN_TYPE' | 'VALIDATION_ERROR' | 'EXECUTION_ERROR' | 'CAPACITY_REACHED' | 'SESSION_ERROR';

export type Answer =
  | { type: 'observation'; data: StepResult }
  | { type: 'state'; data: z.infer<typeof state> }
  | { type: 'mcp'; data: object }
  | { type: 'error'; data: { message: string; code: ErrorCode; [more: string]: unknown } };

export interface StepResult {
  observation: z.infer<typeof observation>;
  /** Null at reset: nothing was done yet. Afterwards 1 for the step that solved the task, else 0. */
  reward: number | null;
  /** Solved, or the cap on turns is reached; `observation.truncated` tells which. */
  done: boolean;
  metadata: { episode_id: string; ignored?: string[] };
}

/** One thing that is wrong with a request, as FastAPI's servers say it. */
export interface Issue {
  type: string;
  loc: (string | number)[];
  msg: string;
}

export const issuesOf = (error: z.ZodError, at: readonly string[]): Issue[] =>
  error.issues.map(({ code, path, message }) => ({
    type: code,
    loc: [...at, ...path.map((part) => (typeof part === 'number' ? part : String(part)))],
    msg: message.slice(0, LONGEST_ISSUE),
  }));

export const errorAnswer = (code: ErrorCode, message: string, more: object = {}): Answer => ({
  type: 'error',
  data: { message, code, ...more },
});

const refused = (errors: Issue[]): Answer => errorAnswer('VALIDATION_ERROR', 'Invalid message', { errors });

/** The answer to one text frame, or null for `close`. Throws only what is a bug. */
export function answerMessage(
  session: Session,
  tasks: ServedTasks,
  text: string,
  counts: () => SessionCounts & { max: number },
): Answer | null {
  let message: unknown;
  try {
    message = JSON.parse(text);
  } catch (error) {
    return errorAnswer('INVALID_JSON', `Invalid JSON: ${(error as Error).message}`);
  }
  if (typeof message !== 'object' || message === null || Array.isArray(message))
    return refused([{ type: 'invalid_type', loc: [], msg: 'a message is an object with a type' }]);
  const type = (message as { type?: unknown }).type;
  if (typeof type !== 'string' || !Object.hasOwn(messages, type)) {
    const said = JSON.stringify(type) ?? 'none';
    return errorAnswer(
      'UNKNOWN_TYPE',
      `Unknown message type: ${said.slice(0, LONGEST_ID)}; the types are ${Object.keys(messages).join(', ')}`,
    );
  }
  const parsed = messages[type as MessageType].safeParse(message);
  if (!parsed.success) return refused(issuesOf(parsed.error, []));
  try {
    switch (parsed.data.type) {
      case 'reset':
        return answerReset(session, tasks, parsed.data.data);
      case 'step':
        return answerStep(session, parsed.data.data);
      case 'state':
        return { type: 'state', data: stateOf(session, counts()) };
      case 'mcp':
        return { type: 'mcp', data: answerMcp(parsed.data.data) };
      case 'close':
        return null;
    }
  } catch (error) {
    if (!(error instanceof RatchetError)) throw error;
    return errorAnswer('EXECUTION_ERROR', error.message);
  }
}

function answerReset(session: Session, tasks: ServedTasks, data: object): Answer {
  const parsed = resetRequest.safeParse(data);
  if (!parsed.success) return refused(issuesOf(parsed.error, ['data']));
  let place: PlacedTask;
  try {
    place = chosenTask(session, tasks, parsed.data);
  } catch (error) {
    // A task that the lists do not have is a mistake in the message; a task that cannot be opened is not.
    if (!(error instanceof RatchetError)) throw error;
    return refused([{ type: 'value_error', loc: ['data'], msg: error.message }]);
  }
  return { type: 'observation', data: resetSession(session, tasks, place, parsed.data) };
}

function answerStep(session: Session, data: object): Answer {
  const parsed = action.safeParse(data);
  return parsed.success
    ? { type: 'observation', data: stepSession(session, parsed.data.command) }
    : refused(issuesOf(parsed.error, ['data']));
}

export type ResetRequest = z.infer<typeof resetRequest>;

/** Throws RatchetError('BadInput') for a task that there is not. */
export const chosenTask = (session: Session, tasks: ServedTasks, { split, index, task_id, seed }: ResetRequest): PlacedTask =>
  session.choose(tasks, { split: split ?? undefined, index: index ?? undefined, taskId: task_id ?? undefined, seed: seed ?? undefined });

/** Throws RatchetError for a task that cannot be opened. */
export function resetSession(session: Session, tasks: ServedTasks, place: PlacedTask, request: ResetRequest): StepResult {
  const episode = session.start(tasks, place, { id: request.episode_id ?? null, seed: request.seed ?? null });
  const ignored = Object.keys(request).filter((key) => !Object.hasOwn(resetRequest.shape, key));
  return { ...resultOf(episode, null), metadata: { episode_id: episode.id, ...(ignored.length > 0 && { ignored }) } };
}

/** Throws RatchetError: BadInput when there is no episode or it is done. */
export function stepSession(session: Session, command: string): StepResult {
  const { episode } = session;
  episode.environment.step(command);
  return resultOf(episode, episode.environment.outcome);
}

export const taskOf = ({ task: { id, sha256 }, split, index }: Episode): z.infer<typeof observation>['task'] => ({
  id,
  split,
  index,
  sha256,
});

function resultOf(episode: Episode, reward: number | null): StepResult {
  const { environment, task } = episode;
  const won = environment.outcome === 1;
  return {
    observation: {
      text: environment.observation,
      admissible_commands: [...environment.admissible],
      task_type: task.family,
      goal: environment.instruction,
      won,
      turn: environment.turn,
      truncated: environment.done && !won,
      task: taskOf(episode),
    },
    reward,
    done: environment.done,
    metadata: { episode_id: episode.id },
  };
}

/** Of the session's episode; of no episode when `session` is null. */
export function stateOf(session: Session | null, counts: SessionCounts & { max: number }): z.infer<typeof state> {
  const episode = session?.hasEpisode ? session.episode : null;
  return {
    episode_id: episode?.id ?? null,
    step_count: episode?.environment.turn ?? 0,
    task: episode && taskOf(episode),
    seed: episode?.seed ?? null,
    won: episode?.environment.outcome === 1,
    done: episode?.environment.done ?? false,
    active_sessions: counts.active,
    max_sessions: counts.max,
  };
}

export const schemas = (): object => ({
  action: z.toJSONSchema(action),
  observation: z.toJSONSchema(observation),
  reset_observation: z.toJSONSchema(observation),
  state: z.toJSONSchema(state),
});

const rpcRequest = z.looseObject({
  jsonrpc: z.literal('2.0'),
  id: z.union([z.string(), z.number()]).nullish(),
  method: z.string(),
  params: z.record(z.string(), z.unknown()).default({}),
});

/** JSON-RPC 2.0. A game is played by messages, so there are no tools; the answers say so. */
export function answerMcp(request: unknown): object {
  const parsed = rpcRequest.safeParse(request);
  const answer = (more: object) => ({ jsonrpc: '2.0', id: parsed.data?.id ?? null, ...more });
  const error = (code: number, message: string) => answer({ error: { code, message } });
  if (!parsed.success) return error(-32600, `Invalid request: ${issuesOf(parsed.error, [])[0]?.msg}`);
  const { method, params } = parsed.data;
  if (method === 'tools/list') return answer({ result: { tools: [] } });
  if (method === 'tools/call')
    return error(-32602, `Tool not found: ${JSON.stringify(params['name'] ?? null)}; this environment has no tools`);
  return error(-32601, `Method not found: ${method}`);
}
