/** Plays a game through: does the engine load it, and does what is said to solve it solve it? */
import { RatchetError } from '../../core/errors.ts';
import { HouseholdEnvironment } from './engine/environment.ts';
import type { IndexedGame } from './game-index.ts';
import { loadIndexed } from './indexed-games.ts';
import { ALFWORLD_TURN_CAP } from './world.ts';

export interface GameVerdict {
  id: string;
  file: string;
  /** `solved` by its walkthrough; `loaded` only, as it has none; `failed`: it cannot be loaded, or its walkthrough does not solve it. */
  verdict: 'solved' | 'loaded' | 'failed';
  /** Turns that it took; null where it was not solved. */
  turns: number | null;
  /** What is wrong or notable, or null. */
  detail: string | null;
}

/** Never throws for what the file holds. */
export function checkGame(game: IndexedGame): GameVerdict {
  const { id, file, walkthrough } = game;
  const said = (verdict: GameVerdict['verdict'], turns: number | null, detail: string | null): GameVerdict => ({
    id,
    file,
    verdict,
    turns,
    detail,
  });
  try {
    const loaded = loadIndexed(game);
    if (walkthrough === null) return said('loaded', null, 'it has no walkthrough');
    const play = new HouseholdEnvironment(loaded, { turnCap: walkthrough.length + 1 });
    let idle: string | null = null;
    for (const command of walkthrough) {
      if (play.won) return said('solved', play.turn, `its walkthrough goes on for ${walkthrough.length - play.turn} more turns`);
      // ALFWorld's own walkthroughs say `help` in games that know no such command; it takes a turn there too.
      if (idle === null && !play.admissible.includes(command.trim()))
        idle = `turn ${play.turn + 1} of its walkthrough, ${JSON.stringify(command)}, is not admissible`;
      play.step(command);
    }
    if (!play.won) return said('failed', null, idle ?? `its walkthrough of ${walkthrough.length} turns does not solve it`);
    const late = play.turn > ALFWORLD_TURN_CAP ? `more turns than the ${ALFWORLD_TURN_CAP} that ALFWorld gives` : null;
    return said('solved', play.turn, idle ?? late);
  } catch (error) {
    if (!(error instanceof RatchetError)) throw error;
    return said('failed', null, error.message);
  }
}
