/**
 * AgentGym's ALFWorld routes (https://github.com/WooooDyy/AgentGym, agentenv-alfworld): environments with integer ids, mistakes answered with
 * `{"error": ...}`. Unlike the original, finished environments can still be looked at, and `/close` gives a place back.
 * `game` counts through the splits in their order.
 */
import * as z from 'zod';
import { RatchetError } from '../../core/errors.ts';
import { LONGEST_COMMAND, taskOf } from './openenv.ts';
import type { Episode, Session } from './session.ts';
import type { Sessions } from './sessions.ts';
import { taskNumbered, type ServedTasks } from './tasks.ts';

const id = z.int().min(0);
export const agentGymRequests = {
  reset: z.object({ id, game: z.int(), world_type: z.string() }),
  step: z.object({ id, action: z.string().max(LONGEST_COMMAND) }),
  close: z.object({ id }),
  query: z.object({ id: z.coerce.number().pipe(id) }),
};

const WORLD_TYPES = ['Text', 'Embody', 'Hybrid'];

interface Failed {
  error: string;
}

export function agentGymRoutes(tasks: ServedTasks, sessions: Sessions) {
  /** Sessions that `create` opened. Those of sockets share the numbers, and belong to their sockets alone. */
  const created = new WeakSet<Session>();
  const create = (): { id: number } => {
    const session = sessions.open(() => undefined);
    created.add(session);
    return { id: session.number };
  };
  /** Does it for the open session with this id. */
  const withSession = <T>(number: number, work: (session: Session) => T): T | Failed => {
    const session = sessions.get(number);
    if (session === undefined || !created.has(session)) return { error: `The id ${number} is not valid.` };
    session.touch();
    return orError(() => work(session));
  };
  return {
    create: (): { id: number } | Failed => orError(create),

    reset: (request: z.infer<typeof agentGymRequests.reset>) =>
      withSession(request.id, (session) => {
        if (!WORLD_TYPES.includes(request.world_type)) return { error: `world_type must be one of ${WORLD_TYPES.join(', ')}` };
        const episode = session.start(tasks, taskNumbered(tasks, request.game));
        return { id: request.id, observation: seen(episode), available_actions: actions(episode), task_type: taskType(episode) };
      }),

    step: (request: z.infer<typeof agentGymRequests.step>) =>
      withSession(request.id, ({ episode }) => {
        episode.environment.step(request.action);
        return stateOfPlay(episode);
      }),

    close: (request: z.infer<typeof agentGymRequests.close>) =>
      withSession(request.id, (session) => {
        sessions.end(session, 'closed');
        return { id: request.id, closed: true };
      }),

    available_actions: (request: { id: number }) => withSession(request.id, ({ episode }) => actions(episode)),
    observation: (request: { id: number }) => withSession(request.id, ({ episode }) => seen(episode)),
    detail: (request: { id: number }) =>
      withSession(request.id, ({ episode }) => ({
        ...stateOfPlay(episode),
        task_type: taskType(episode),
        task: taskOf(episode),
        goal: episode.environment.instruction,
        turn: episode.environment.turn,
        deleted: false,
      })),
  };
}

const stateOfPlay = (episode: Episode) => ({
  observation: seen(episode),
  reward: episode.environment.outcome,
  available_actions: actions(episode),
  done: episode.environment.done,
});

const actions = ({ environment }: Episode): string[] => [...environment.admissible];

/** The last two parts of the task's id: of genuine games, the folders of task and trial. */
const taskType = ({ task }: Episode): string => task.id.split('/').slice(-2).join('/');

/** As AgentGym shows it: without TextWorld's banner and blank lines, and without the place that `go to` of old games names. */
function seen({ environment: { observation, turn } }: Episode): string {
  if (turn === 0) {
    const parts = observation.split('\n\n');
    return (parts[0]?.startsWith('-=') ? parts.slice(1) : parts).join('\n');
  }
  return observation.startsWith('You arrive at loc ') ? observation.slice(observation.indexOf('. ') + 2) : observation;
}

function orError<T>(work: () => T): T | Failed {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof RatchetError)) throw error;
    return { error: error.message };
  }
}
