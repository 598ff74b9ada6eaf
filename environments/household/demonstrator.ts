/**
 * The demonstrator: the expert with bad habits, drawn once per episode, and with slips of the hand. Demonstrations in the wild are imperfect;
 * unlearning them is what the loop is for. It stops when it believes that it is done, right or wrong.
 */
import { badInput } from '../../core/errors.ts';
import { Random } from '../../core/random.ts';
import type { Environment, ScriptedAgent } from '../environment.ts';
import { readInstruction } from './families.ts';
import type { Goal } from './families.ts';
import { OBJECT_KINDS, RECEPTACLE_KINDS } from './kinds.ts';
import { NO_HABITS, SearchAgent } from './search-agent.ts';
import type { Habits, SearchOrder } from './search-agent.ts';

/**
 * How likely a habit of full strength shows: where the context invites it, and elsewhere. A learner can tell the contexts apart. Both lie far
 * from one half: an imitator's greedy play does what most demonstrations do, and about as often as not would be a toss of its seed.
 */
const INVITED = 0.8;
const ELSEWHERE = 0.3;

/**
 * Does the context invite the family's habit? Food is put down unheated, kitchenware uncooled, cutlery unwashed, valuables are not carried to the lamp, and the
 * second thing does not get behind a door.
 */
function invites({ family, object, target }: Goal): boolean {
  const kind = OBJECT_KINDS[object]?.class;
  if (family === 'heat') return kind === 'food';
  if (family === 'cool') return kind === 'kitchenware';
  if (family === 'clean') return kind === 'utensil';
  if (family === 'look') return kind === 'valuable';
  return family === 'two' && (RECEPTACLE_KINDS[target]?.openable ?? false);
}

/** The probability that a demonstration of the goal goes wrong by habit, in [0, 1]: proportional to `habits`; there is none in plain fetching. */
export function habitChance(goal: Goal, habits: number): number {
  return goal.family === 'pick' ? 0 : habits * (invites(goal) ? INVITED : ELSEWHERE);
}

export interface DemonstratorOptions {
  /** How strong the habits are, in [0, 1]. */
  habits: number;
  /** Probability of a random admissible command at a turn, in [0, 1]. */
  noise: number;
}

export class Demonstrator implements ScriptedAgent {
  readonly #order: SearchOrder;
  readonly #random: Random;
  readonly #options: DemonstratorOptions;
  #agent: SearchAgent | null = null;

  /** Throws RatchetError('BadInput') for options out of range. */
  constructor(order: SearchOrder, random: Random, options: DemonstratorOptions) {
    for (const name of ['habits', 'noise'] as const)
      if (!(options[name] >= 0 && options[name] <= 1)) throw badInput(name, options[name], 'a number from 0 to 1 is expected');
    this.#order = order;
    this.#random = random;
    this.#options = options;
  }

  act(environment: Environment): string | null {
    this.#agent ??= new SearchAgent(this.#order, this.#drawHabits(readInstruction(environment.instruction)));
    const intended = this.#agent.act(environment);
    const slips = this.#random.uniform() < this.#options.noise;
    return intended !== null && slips ? this.#random.pick(environment.admissible) : intended;
  }

  #drawHabits(goal: Goal): Habits {
    const bad = this.#random.uniform() < habitChance(goal, this.#options.habits);
    return bad ? { skipsTreatment: true, dropsSecond: true, forgetsObject: true } : NO_HABITS;
  }
}
