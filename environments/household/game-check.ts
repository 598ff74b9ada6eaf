/** Plays a game through: does the engine load it, and can it be solved? What is said to solve it is tried first; where that does not do, search decides. */
import { RatchetError } from '../../core/errors.ts';
import { HouseholdEnvironment } from './engine/environment.ts';
import type { Game } from './engine/game.ts';
import type { IndexedGame } from './game-index.ts';
import { loadIndexed } from './indexed-games.ts';
import { MOST_STATES, searchPlan } from './planner.ts';
import { ALFWORLD_TURN_CAP } from './world.ts';

/**
 * - `solved`: by its walkthrough.
 * - `solvable`: the planner solves it, within the turns that ALFWorld gives; it has no walkthrough, or one that does not solve it.
 * - `unsolvable`: every state that can be reached in those turns was looked at, and none solves it.
 * - `undecided`: the planner found no plan, and the game has more states than it looks at.
 * - `broken`: it cannot be loaded or played.
 */
export type Verdict = 'solved' | 'solvable' | 'unsolvable' | 'undecided' | 'broken';

export interface GameVerdict {
  id: string;
  file: string;
  verdict: Verdict;
  /** Turns of the walkthrough, or of the planner's shortest plan; null where neither solves it. */
  turns: number | null;
  /** What is wrong or notable, or null. */
  detail: string | null;
}

type Finding = Pick<GameVerdict, 'verdict' | 'turns' | 'detail'>;

/** Never throws for what the file holds. `mostStates` bounds each of at most two searches. */
export function checkGame(game: IndexedGame, { mostStates = MOST_STATES }: { mostStates?: number } = {}): GameVerdict {
  const { id, file, walkthrough } = game;
  try {
    const loaded = loadIndexed(game);
    const walked = walkthrough === null ? 'it has no walkthrough' : walk(loaded, walkthrough);
    return { id, file, ...(typeof walked === 'string' ? searched(loaded, walked, mostStates) : walked) };
  } catch (error) {
    if (!(error instanceof RatchetError)) throw error;
    return { id, file, verdict: 'broken', turns: null, detail: error.message };
  }
}

/** Plays the walkthrough; what is wrong with it where it does not solve the game. */
function walk(game: Game, walkthrough: readonly string[]): Finding | string {
  const play = new HouseholdEnvironment(game, { turnCap: walkthrough.length + 1 });
  const solved = (detail: string | null): Finding => ({ verdict: 'solved', turns: play.turn, detail });
  let idle: string | null = null;
  for (const command of walkthrough) {
    if (play.won) return solved(`its walkthrough goes on for ${walkthrough.length - play.turn} more turns`);
    // ALFWorld's own walkthroughs say `help` in games that know no such command; it takes a turn there too.
    if (idle === null && !play.admissible.includes(command.trim()))
      idle = `turn ${play.turn + 1} of its walkthrough, ${JSON.stringify(command)}, is not admissible`;
    play.step(command);
  }
  if (!play.won) return idle ?? `its walkthrough of ${walkthrough.length} turns does not solve it`;
  return solved(idle ?? (play.turn > ALFWORLD_TURN_CAP ? `more turns than the ${ALFWORLD_TURN_CAP} that ALFWorld gives` : null));
}

/** First with the commands that matter in a household, which is fast; only where those do not solve it with all of them, which decides. */
function searched(game: Game, why: string, mostStates: number): Finding {
  for (const everyCommand of [false, true]) {
    const play = new HouseholdEnvironment(game, { turnCap: ALFWORLD_TURN_CAP });
    try {
      const plan = searchPlan(play, { mostStates, everyCommand });
      if (plan !== null) return { verdict: 'solvable', turns: plan.length, detail: why };
    } catch (error) {
      if (error instanceof RatchetError && error.type === 'OutOfMemory')
        return { verdict: 'undecided', turns: null, detail: `${why}, and the planner found no plan among ${mostStates} states` };
      throw error;
    }
  }
  return { verdict: 'unsolvable', turns: null, detail: `${why}, and no commands of at most ${ALFWORLD_TURN_CAP} turns solve it` };
}
