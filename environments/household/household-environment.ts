/** One live household game. A snapshot is a handful of references: states are never changed, only replaced. */
import { sha256 } from '../../core/digest.ts';
import { badInput } from '../../core/errors.ts';
import type { Environment, Snapshot } from '../environment.ts';
import type { Action } from './actions.ts';
import type { Game } from './game.ts';

/** Most turns of an episode. Homes are smaller than ALFWorld's, which allows 50. */
export const TURN_CAP = 30;
export const NOTHING_HAPPENS = 'Nothing happens.';

interface Moment {
  /** The game's id; a snapshot goes back into games of the same task only. */
  game: string;
  state: Uint8Array;
  observation: string;
  turn: number;
  solved: boolean;
}

export class HouseholdEnvironment implements Environment {
  readonly #game: Game;
  #now: Moment;
  #actions: Action[] | null = null;
  #commands: readonly string[] | null = null;

  constructor(game: Game) {
    this.#game = game;
    this.#now = { game: game.id, state: game.start, observation: game.introduction, turn: 0, solved: game.solved(game.start) };
  }

  get instruction(): string {
    return this.#game.instruction;
  }

  get observation(): string {
    return this.#now.observation;
  }

  get turn(): number {
    return this.#now.turn;
  }

  get done(): boolean {
    return this.#now.solved || this.#now.turn >= TURN_CAP;
  }

  get outcome(): 0 | 1 {
    return this.#now.solved ? 1 : 0;
  }

  get admissible(): readonly string[] {
    this.#commands ??= Object.freeze(this.#available().map((action) => action.command));
    return this.#commands;
  }

  /** SHA-256 of what is true now. Equal for equal states of the same task, however they were reached and said. */
  get stateDigest(): string {
    return sha256(`${this.#game.id}\n${Buffer.from(this.#now.state).toString('hex')}`);
  }

  /** Throws RatchetError('BadInput') when the episode is done. */
  step(command: string): void {
    if (this.done) throw badInput('command', command, `the episode is done (turn ${this.#now.turn}, outcome ${this.outcome})`);
    const { game, state, turn } = this.#now;
    const action = this.#available().find((each) => each.command === command);
    if (action === undefined) {
      this.#now = { game, state, observation: NOTHING_HAPPENS, turn: turn + 1, solved: false };
    } else {
      const next = this.#game.apply(action, state);
      this.#now = { game, state: next, observation: this.#game.feedback(action, next), turn: turn + 1, solved: this.#game.solved(next) };
    }
    this.#actions = null;
    this.#commands = null;
  }

  snapshot(): Snapshot {
    return this.#now;
  }

  /** Throws RatchetError('BadInput') for a snapshot of another task. */
  restore(snapshot: Snapshot): void {
    const moment = snapshot as Moment;
    if (moment.game !== this.#game.id) throw badInput('snapshot', moment.game, `a snapshot of ${this.#game.id} is expected`);
    this.#now = moment;
    this.#actions = null;
    this.#commands = null;
  }

  #available(): Action[] {
    this.#actions ??= this.done ? [] : this.#game.applicable(this.#now.state);
    return this.#actions;
  }
}
