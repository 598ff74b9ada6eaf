/** One play of a game that goes on as long as one likes: the moment it is at, and the way back to any moment. Nothing of a moment is ever changed. */
import { badInput } from '../../../core/errors.ts';
import type { Available, Game } from './game.ts';
import type { State } from './state.ts';
import { SPACE } from './twl2.ts';

export const NOTHING_HAPPENS = 'Nothing happens.';

/** Where a play is. Moments share what they have in common, so keeping one costs little. */
export interface Moment {
  /** A moment goes back into plays of the same game only. */
  readonly game: Game;
  readonly state: State;
  readonly observation: string;
  readonly solved: boolean;
  /** Filled when first asked for. */
  available: Available | null;
}

export class Play {
  readonly game: Game;
  #now: Moment;

  constructor(game: Game) {
    this.game = game;
    this.#now = { game, state: game.start, observation: game.introduction, solved: game.solved(game.start), available: null };
  }

  get moment(): Moment {
    return this.#now;
  }

  /** Throws RatchetError('BadInput') for a moment of another game. */
  set moment(moment: Moment) {
    const { game, state, observation, solved } = moment;
    if (game === this.game) this.#now = moment;
    else if (game.id !== this.game.id) throw badInput('snapshot', game.id, `a snapshot of ${this.game.id} is expected`);
    // The same game, loaded once more: its states are laid out in another order.
    else this.#now = { game: this.game, state: this.game.stateOf(game.describe(state)), observation, solved, available: null };
  }

  get available(): Available {
    return (this.#now.available ??= this.game.available(this.#now.state));
  }

  /** Takes the action of the command, if there is one; white space around it does not count. Says whether there was. */
  step(command: string): boolean {
    const { game, state, solved } = this.#now;
    const available = this.available;
    const index = indexOf(available.commands, trimmed(command));
    if (index < 0) {
      this.#now = { game, state, observation: NOTHING_HAPPENS, solved, available };
      return false;
    }
    const action = available.actions[index] as Available['actions'][number];
    const next = this.game.apply(action, state);
    this.#now = {
      game,
      state: next,
      observation: this.game.feedback(action, next),
      solved: action.operator.decides ? this.game.solved(next) : solved,
      available: this.game.available(next, available, action),
    };
    return true;
  }
}

/** The place of a word in a sorted list, or -1. */
function indexOf(sorted: readonly string[], word: string): number {
  let [low, high] = [0, sorted.length - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    const at = sorted[middle] as string;
    if (at === word) return middle;
    if (at < word) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}

const IS_SPACE = new RegExp(`[${SPACE}]`, 'u');

/** Without the white space around it that Python's `strip` takes away, as TextWorld does. */
function trimmed(text: string): string {
  let [from, to] = [0, text.length];
  while (from < to && IS_SPACE.test(text[from] as string)) from++;
  while (from < to && IS_SPACE.test(text[to - 1] as string)) to--;
  return text.slice(from, to);
}
