/**
 * The state of a game: what is true, and what its texts hold to be true. A state is never changed, only replaced; it stores how it differs from the start.
 *
 * TextWorld keeps two states of one game. Rules look at what is true. Texts look at facts: those of the start, and after an action those that its
 * effects name, whether or not their conditions held. What an effect has made false is the fact `not_p`: history, not the opposite of p. Hence
 * three bits for an atom: true, a fact, a `not_` fact.
 */

import { badInput } from '../../../core/errors.ts';

/** Small integers that hold, cell by cell, in which bits an atom differs from the start. What lies behind its end does not differ. */
export type State = readonly number[];

export const TRUE = 1;
export const FACT = 2;
export const NOT_FACT = 4;
/** As an effect leaves an atom that it makes true, and one that it makes false. */
export const MADE_TRUE = TRUE | FACT;
export const MADE_FALSE = NOT_FACT;

const BITS = 3;
const ALL = (1 << BITS) - 1;
/** Cells in one integer: 24 bits of the 31 that V8 holds without a box. */
const CELLS = 8;
export const START: State = Object.freeze([]);

/**
 * Where the atoms of one game are in its states. Only atoms that some action met so far can change have a cell; so states stay as small as what
 * has been done in the game.
 */
export class Cells {
  /** Atom -> its cell, or -1. */
  readonly #cellOf: Int32Array;
  readonly #atoms: number[] = [];
  readonly #initial: Uint8Array;

  /** `initial`: atom -> is it true at the start? */
  constructor(initial: ArrayLike<number>) {
    this.#cellOf = new Int32Array(initial.length).fill(-1);
    this.#initial = Uint8Array.from(initial, (each) => (each === 1 ? MADE_TRUE : 0));
  }

  /** The three bits of an atom. */
  bits(state: State, atom: number): number {
    const cell = this.#cellOf[atom] as number;
    const initial = this.#initial[atom] as number;
    if (cell < 0) return initial;
    const word = cell >> 3;
    return word < state.length ? initial ^ (((state[word] as number) >> ((cell & 7) * BITS)) & ALL) : initial;
  }

  /** Gives the atom a cell: from now on states may hold it changed. */
  touch(atom: number): void {
    if ((this.#cellOf[atom] as number) < 0) this.#cellOf[atom] = this.#atoms.push(atom) - 1;
  }

  /** Sets the three bits of a touched atom in a state that is still being made. */
  set(state: number[], atom: number, bits: number): void {
    const cell = this.#cellOf[atom] as number;
    const word = cell >> 3;
    while (state.length <= word) state.push(0);
    const shift = (cell & 7) * BITS;
    state[word] = ((state[word] as number) & ~(ALL << shift)) | ((bits ^ (this.#initial[atom] as number)) << shift);
  }

  /** What differs from the start: atom, bits, atom, bits, ...; ascending by atom. Equal for equal states, in whatever order cells were given. */
  differences(state: State): number[] {
    const atoms: number[] = [];
    state.forEach((word, i) => {
      for (let j = 0; word >> (j * BITS) !== 0 && j < CELLS; j++)
        if (((word >> (j * BITS)) & ALL) !== 0) atoms.push(this.#atoms[i * CELLS + j] as number);
    });
    return atoms.sort((a, b) => a - b).flatMap((atom) => [atom, this.bits(state, atom)]);
  }

  /** The state with these differences, in the form of `differences`. Throws RatchetError('BadInput') where they are none. */
  stateOf(differences: unknown): State {
    const wrong = (): never => {
      throw badInput('state', differences, 'a list of atoms and their bits, as a snapshot of this game has it, is expected');
    };
    if (!Array.isArray(differences) || differences.length % 2 !== 0) wrong();
    const list = differences as unknown[];
    const state: number[] = [];
    for (let i = 0; i < list.length; i += 2) {
      const [atom, bits] = [list[i] as number, list[i + 1] as number];
      if (!Number.isSafeInteger(atom) || atom < 0 || atom >= this.#initial.length) wrong();
      if (!Number.isSafeInteger(bits) || bits < 0 || bits > ALL) wrong();
      this.touch(atom);
      this.set(state, atom, bits);
    }
    return state;
  }
}
