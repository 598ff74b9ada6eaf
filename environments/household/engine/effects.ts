/**
 * The effects of one action as Fast Downward leaves them: without those that cannot change what the precondition says, and the texts' view of each.
 * An action that has none left does not exist: going where one already is, for example.
 */
import { RatchetError } from '../../../core/errors.ts';
import { FACT, MADE_FALSE, MADE_TRUE, NOT_FACT, TRUE } from './state.ts';
import type { Cells, State } from './state.ts';

/** Ground literals that must all hold: an atom's number, or its complement where it must be false. */
export type Condition = readonly number[];

export function holds(cells: Cells, state: State, condition: Condition): boolean {
  for (const literal of condition)
    if (literal >= 0 ? (cells.bits(state, literal) & TRUE) === 0 : (cells.bits(state, ~literal) & TRUE) !== 0) return false;
  return true;
}

/** What happens to one atom under conditions: it becomes true if one of `adds` holds before the action, else false if one of `deletes` does. */
interface ConditionalEffect {
  atom: number;
  adds: readonly Condition[];
  deletes: readonly Condition[];
  /** The facts that the texts see, whatever holds: the atom, or `not_` it; the latter wins. */
  told: number;
}

export interface Effects {
  /** Atom, its bits afterwards, atom, bits, ...: the effects that always happen. */
  always: readonly number[];
  conditional: readonly ConditionalEffect[];
}

export interface GroundEffect {
  condition: Condition;
  negated: boolean;
  atom: number;
}

/** Combinations of conditions on one atom that are looked at; a domain beyond it is refused. */
const MOST_COMBINATIONS = 4096;

/** The effects that an operator with this precondition has, or null where it has none: it then does not exist. Source: translate.py of Fast Downward. */
export function effectsOf(precondition: Condition, effects: readonly GroundEffect[]): Effects | null {
  if (effects.every(({ condition }) => condition.length === 0)) return plainEffects(precondition, effects);
  const adds = new Map<number, Condition[]>();
  const deletes = new Map<number, Condition[]>();
  for (const { condition, negated, atom } of effects) {
    const map = negated ? deletes : adds;
    const known = map.get(atom);
    if (known === undefined) map.set(atom, [condition]);
    else known.push(condition);
  }
  const always: number[] = [];
  const conditional: ConditionalEffect[] = [];
  for (const atom of new Set([...adds.keys(), ...deletes.keys()])) {
    const added = adds.get(atom) ?? [];
    const isAdded = added.some((condition) => condition.length === 0);
    const deleted = isAdded ? [] : (deletes.get(atom) ?? []).filter((c) => !added.some((a) => String(a) === String(c)));
    const tellsTrue = !precondition.includes(atom) && added.some((condition) => isPossible([...precondition, ...condition]));
    const tellsFalse =
      !precondition.includes(~atom) && deleted.some((condition) => fires([...precondition, ...condition, atom], added, atom));
    if (!tellsTrue && !tellsFalse) continue;
    if (isAdded) always.push(atom, MADE_TRUE);
    else if (added.length === 0 && deleted.some((condition) => condition.length === 0)) always.push(atom, MADE_FALSE);
    else conditional.push({ atom, adds: added, deletes: deleted, told: tellsFalse ? NOT_FACT : FACT });
  }
  return always.length + conditional.length === 0 ? null : { always, conditional };
}

const NONE: readonly ConditionalEffect[] = [];

/** The same where nothing has a condition. */
function plainEffects(precondition: Condition, effects: readonly GroundEffect[]): Effects | null {
  const always: number[] = [];
  for (const { negated, atom } of effects) {
    if (negated && effects.some((other) => !other.negated && other.atom === atom)) continue;
    if (!precondition.includes(negated ? ~atom : atom)) always.push(atom, negated ? MADE_FALSE : MADE_TRUE);
  }
  return always.length === 0 ? null : { always, conditional: NONE };
}

const isPossible = (condition: Condition): boolean => {
  const literals = new Set(condition);
  return condition.every((literal) => !literals.has(~literal));
};

/** Can the condition hold without any of the adds firing? */
function fires(condition: Condition, adds: readonly Condition[], atom: number): boolean {
  let ways: Condition[] = isPossible(condition) ? [condition] : [];
  for (const add of adds) {
    if (ways.length * add.length > MOST_COMBINATIONS)
      throw new RatchetError('BadInput', `atom ${atom}: its conditional effects have more than ${MOST_COMBINATIONS} combinations`);
    ways = ways.flatMap((way) => add.map((literal) => [...way, ~literal])).filter(isPossible);
  }
  return ways.length > 0;
}

/** The state after the effects. */
export function apply(cells: Cells, effects: Effects, state: State): State {
  const next = state.slice();
  const { always } = effects;
  for (let i = 0; i < always.length; i += 2) cells.set(next, always[i] as number, always[i + 1] as number);
  for (const { atom, adds, deletes, told } of effects.conditional) {
    let isTrue = cells.bits(state, atom) & TRUE;
    if (adds.some((condition) => holds(cells, state, condition))) isTrue = TRUE;
    else if (deletes.some((condition) => holds(cells, state, condition))) isTrue = 0;
    cells.set(next, atom, isTrue | told);
  }
  return next;
}
