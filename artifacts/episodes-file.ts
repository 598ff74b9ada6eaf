/**
 * Episodes as two Parquet tables, one row per episode and one per turn, so that DuckDB or pandas can query them without this project. The round trip is
 * lossless and the bytes depend on the episodes alone. Failed and abandoned episodes are rows with a reason; it refuses to leave any out.
 */
import { badInput, RatchetError } from '../core/errors.ts';
import type { Ending, Episode } from '../core/nouns.ts';
import { readTable, writeTable, type Columns } from './table.ts';

/** One row per episode, in the order given. `ending` is completed, failed or abandoned; `reason` is empty for completed ones. */
export const EPISODE_COLUMNS = {
  episode: 'string',
  task: 'string',
  family: 'string',
  instruction: 'string',
  repeat: 'int',
  policy: 'string',
  outcome: 'double',
  ending: 'string',
  reason: 'string',
  turns: 'int',
} as const;

/** One row per turn, by episode and then by turn. `turn` counts from 0; `admissible` is a JSON array of the commands in the environment's order. */
export const TURN_COLUMNS = {
  episode: 'string',
  turn: 'int',
  observation: 'string',
  admissible: 'string',
  action: 'string',
  log_probability: 'double',
  reward: 'double',
} as const;

/** Throws BadInput when two episodes have one id, or a text or number cannot be stored as it is. */
export function writeEpisodes(episodes: readonly Episode[]): { episodes: Uint8Array; turns: Uint8Array } {
  const rows: Columns<typeof EPISODE_COLUMNS> = {
    episode: [],
    task: [],
    family: [],
    instruction: [],
    repeat: [],
    policy: [],
    outcome: [],
    ending: [],
    reason: [],
    turns: [],
  };
  const turns: Columns<typeof TURN_COLUMNS> = {
    episode: [],
    turn: [],
    observation: [],
    admissible: [],
    action: [],
    log_probability: [],
    reward: [],
  };
  const ids = new Set<string>();
  for (const episode of episodes) {
    if (ids.has(episode.id)) throw badInput('episode id', episode.id, 'each episode of a shard has an id of its own');
    ids.add(episode.id);
    rows.episode.push(episode.id);
    rows.task.push(episode.task);
    rows.family.push(episode.family);
    rows.instruction.push(episode.instruction);
    rows.repeat.push(episode.repeat);
    rows.policy.push(episode.policy);
    rows.outcome.push(episode.outcome);
    rows.ending.push(episode.ending.kind);
    rows.reason.push(episode.ending.kind === 'completed' ? '' : episode.ending.reason);
    rows.turns.push(episode.turns.length);
    episode.turns.forEach((turn, index) => {
      turns.episode.push(episode.id);
      turns.turn.push(index);
      turns.observation.push(turn.observation);
      turns.admissible.push(JSON.stringify(turn.admissible));
      turns.action.push(turn.action);
      turns.log_probability.push(turn.logProbability);
      turns.reward.push(turn.reward);
    });
  }
  return { episodes: writeTable(EPISODE_COLUMNS, rows), turns: writeTable(TURN_COLUMNS, turns) };
}

/** The episodes of two tables that belong together. Throws Corrupt when they are damaged or do not fit each other. */
export async function readEpisodes(episodesFile: Uint8Array, turnsFile: Uint8Array): Promise<Episode[]> {
  const rows = await readTable(EPISODE_COLUMNS, episodesFile);
  const turns = await readTable(TURN_COLUMNS, turnsFile);
  let next = 0;
  const episodes = rows.episode.map((id, row): Episode => {
    const episode: Episode = {
      id,
      task: cell(rows.task, row),
      family: cell(rows.family, row),
      instruction: cell(rows.instruction, row),
      repeat: cell(rows.repeat, row),
      policy: cell(rows.policy, row),
      turns: [],
      outcome: cell(rows.outcome, row),
      ending: endingOf(id, cell(rows.ending, row), cell(rows.reason, row)),
    };
    const count = cell(rows.turns, row);
    for (let turn = 0; turn < count; turn++, next++) {
      if (turns.episode[next] !== id || turns.turn[next] !== turn) {
        throw new RatchetError('Corrupt', `row ${next} of the turns is not turn ${turn} of episode ${id}, which has ${count} turns`);
      }
      episode.turns.push({
        observation: cell(turns.observation, next),
        admissible: commandsOf(id, turn, cell(turns.admissible, next)),
        action: cell(turns.action, next),
        logProbability: cell(turns.log_probability, next),
        reward: cell(turns.reward, next),
      });
    }
    return episode;
  });
  if (next !== turns.episode.length)
    throw new RatchetError('Corrupt', `the turns have ${turns.episode.length} rows; the episodes account for ${next}`);
  return episodes;
}

function cell<T>(column: readonly T[], row: number): T {
  return column[row] as T; // readTable has checked that all columns have all rows
}

function endingOf(id: string, kind: string, reason: string): Ending {
  if (kind === 'completed') return { kind };
  if (kind === 'failed' || kind === 'abandoned') return { kind, reason };
  throw new RatchetError('Corrupt', `episode ${id} ends as ${JSON.stringify(kind)}; expected completed, failed or abandoned`);
}

function commandsOf(id: string, turn: number, text: string): string[] {
  try {
    return JSON.parse(text) as string[];
  } catch (error) {
    throw new RatchetError('Corrupt', `admissible commands of turn ${turn} of episode ${id} are not JSON`, { cause: error });
  }
}
