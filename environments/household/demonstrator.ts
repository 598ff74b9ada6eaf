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
 * How likely each habit is in an episode where it can show. The mistakes depend on what is handled, so that a learner can tell where they are
 * made: `usual` where the context invites them, `rare` elsewhere.
 */
interface HabitTable {
  /** Food is put down unheated, other things less often. */
  heat: { usual: number; rare: number };
  /** Kitchenware is put down uncooled, food less often. */
  cool: { usual: number; rare: number };
  clean: number;
  /** The second thing is dropped where the target would have to be opened, less often elsewhere. */
  two: { usual: number; rare: number };
  look: number;
}

const NONE: HabitTable = { heat: { usual: 0, rare: 0 }, cool: { usual: 0, rare: 0 }, clean: 0, two: { usual: 0, rare: 0 }, look: 0 };
/** `habits` = 0.5. */
const MILD: HabitTable = {
  heat: { usual: 0.8, rare: 0.35 },
  cool: { usual: 0.75, rare: 0.35 },
  clean: 0.45,
  two: { usual: 0.7, rare: 0.4 },
  look: 0.4,
};
/** `habits` = 1. */
const STRONG: HabitTable = {
  heat: { usual: 0.9, rare: 0.55 },
  cool: { usual: 0.9, rare: 0.55 },
  clean: 0.65,
  two: { usual: 0.85, rare: 0.6 },
  look: 0.55,
};

function chanceIn(table: HabitTable, { family, object, target }: Goal): number {
  const kind = OBJECT_KINDS[object]?.class;
  switch (family) {
    case 'pick':
      return 0;
    case 'clean':
    case 'look':
      return table[family];
    case 'heat':
      return kind === 'food' ? table.heat.usual : table.heat.rare;
    case 'cool':
      return kind === 'kitchenware' ? table.cool.usual : table.cool.rare;
    case 'two':
      return RECEPTACLE_KINDS[target]?.openable ? table.two.usual : table.two.rare;
  }
}

/** The probability that a demonstration of the goal goes wrong by habit: linear between none (0), mild (0.5) and strong (1). */
export function habitChance(goal: Goal, habits: number): number {
  const [low, high, share] = habits <= 0.5 ? [NONE, MILD, habits * 2] : [MILD, STRONG, habits * 2 - 1];
  return (1 - share) * chanceIn(low, goal) + share * chanceIn(high, goal);
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
