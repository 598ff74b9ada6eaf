/** One live game as an agent plays it: it counts turns, and ends when the game is solved or the turn cap is reached. */
import { badInput } from '../../../core/errors.ts';
import type { Environment, Snapshot } from '../../environment.ts';
import type { Game } from './game.ts';
import { Play } from './play.ts';
import type { Moment } from './play.ts';

const NONE: readonly string[] = Object.freeze([]);

/** What a snapshot is. */
type Turn = Snapshot & { readonly moment: Moment; readonly turn: number };

export class HouseholdEnvironment implements Environment {
  readonly #play: Play;
  readonly #turnCap: number;
  #turn = 0;

  /** `turnCap`: most turns of an episode, at least 1. */
  constructor(game: Game, { turnCap }: { turnCap: number }) {
    if (!Number.isSafeInteger(turnCap) || turnCap < 1) throw badInput('turnCap', turnCap, 'a whole number of at least 1 is expected');
    this.#play = new Play(game);
    this.#turnCap = turnCap;
  }

  get game(): Game {
    return this.#play.game;
  }

  get instruction(): string {
    return this.#play.game.instruction;
  }

  /** The goal in PDDL, for planners. */
  get goalText(): string {
    return this.#play.game.goalText;
  }

  get observation(): string {
    return this.#play.moment.observation;
  }

  get turn(): number {
    return this.#turn;
  }

  /** Solved now; the goal of a game may be undone again where one plays on. */
  get won(): boolean {
    return this.#play.moment.solved;
  }

  get done(): boolean {
    return this.won || this.#turn >= this.#turnCap;
  }

  get outcome(): 0 | 1 {
    return this.won ? 1 : 0;
  }

  get admissible(): readonly string[] {
    return this.done ? NONE : this.#play.available.commands;
  }

  /** SHA-256 of what is true now and of what texts hold to be true. Equal for equal states of the same game, however they were reached and said. */
  get stateDigest(): string {
    return this.#play.game.digest(this.#play.moment.state);
  }

  /** Throws RatchetError('BadInput') when the episode is done. */
  step(command: string): void {
    if (this.done) throw badInput('command', command, `the episode is done (turn ${this.#turn}, outcome ${this.outcome})`);
    this.#play.step(command);
    this.#turn++;
  }

  snapshot(): Snapshot {
    const turn: Turn = { moment: this.#play.moment, turn: this.#turn };
    return turn;
  }

  /** Throws RatchetError('BadInput') for a snapshot of another game. */
  restore(snapshot: Snapshot): void {
    const { moment, turn } = snapshot as Turn;
    this.#play.moment = moment;
    this.#turn = turn;
  }
}
