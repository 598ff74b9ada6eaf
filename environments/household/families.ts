/** The six task families of ALFWorld: which objects they ask for, how the task is said, and when it is solved. */
import { badInput } from '../../core/errors.ts';
import { LAMP, OBJECT_KINDS, pluralOf, RECEPTACLE_KINDS, USUAL_PLACES } from './kinds.ts';
import type { Affordance } from './kinds.ts';
import type { Formula } from './pddl.ts';
import { readExpressions, readFormula } from './pddl.ts';

/** In the order in which the task lists interleave them. */
export const FAMILIES = ['pick', 'look', 'clean', 'heat', 'cool', 'two'] as const;
export type Family = (typeof FAMILIES)[number];

/** What is asked: a thing of kind `object`, treated as the family says, in or on a receptacle of kind `target` (the lamp for `look`). */
export interface Goal {
  family: Family;
  object: string;
  target: string;
}

interface FamilyRules {
  /** What the object must allow. */
  needs: Affordance | null;
  /** How many such things are asked for. */
  count: 1 | 2;
  /** The appliance, which is never the target: the thing would only have to be left there. */
  appliance: string | null;
  instruction(goal: Goal): string;
  /** PDDL. */
  solved(goal: Goal): string;
}

const into = (target: string): string => `${RECEPTACLE_KINDS[target]?.preposition ?? 'on'} the ${target}`;
const treated = (adjective: string, needs: Affordance, appliance: string): FamilyRules => ({
  needs,
  count: 1,
  appliance,
  instruction: ({ object, target }) => `Put a ${adjective} ${object} ${into(target)}.`,
  solved: ({ object, target }) => `(exists (?o - ${object} ?r - ${target}) (and (inside ?o ?r) (${adjective} ?o)))`,
});

export const FAMILY_RULES: Readonly<Record<Family, FamilyRules>> = {
  pick: {
    needs: null,
    count: 1,
    appliance: null,
    instruction: ({ object, target }) => `Put a ${object} ${into(target)}.`,
    solved: ({ object, target }) => `(exists (?o - ${object} ?r - ${target}) (inside ?o ?r))`,
  },
  look: {
    needs: 'readable',
    count: 1,
    appliance: null,
    instruction: ({ object, target }) => `Examine a ${object} under the ${target}.`,
    solved: ({ object, target }) =>
      `(exists (?o - ${object} ?l - ${target} ?r - receptacle) (and (holding ?o) (lit ?l) (at ?r) (inside ?l ?r)))`,
  },
  clean: treated('clean', 'cleanable', 'sinkbasin'),
  heat: treated('hot', 'heatable', 'microwave'),
  cool: treated('cool', 'coolable', 'fridge'),
  two: {
    needs: null,
    count: 2,
    appliance: null,
    instruction: ({ object, target }) => `Put two ${pluralOf(object)} ${into(target)}.`,
    // Both in the same receptacle, as in ALFWorld.
    solved: ({ object, target }) =>
      `(exists (?r - ${target} ?o - ${object} ?p - ${object}) (and (not (= ?o ?p)) (inside ?o ?r) (inside ?p ?r)))`,
  },
};

export const goalFormula = (goal: Goal): Formula => readFormula(readExpressions(FAMILY_RULES[goal.family].solved(goal))[0] ?? []);

/** Every goal of a family that makes sense, in a fixed order. */
export function goalsOf(family: Family): Goal[] {
  const { needs, appliance } = FAMILY_RULES[family];
  return Object.entries(OBJECT_KINDS)
    .filter(([, kind]) => needs === null || kind.affordances.includes(needs))
    .flatMap(([object, kind]) =>
      (family === 'look' ? [LAMP] : USUAL_PLACES[kind.class].filter((target) => target !== appliance)).map((target) => ({
        family,
        object,
        target,
      })),
    );
}

const INSTRUCTIONS: ReadonlyMap<string, Goal> = new Map(
  FAMILIES.flatMap(goalsOf).map((goal) => [FAMILY_RULES[goal.family].instruction(goal), goal]),
);

/** What an instruction asks for. Throws RatchetError('BadInput') for a sentence that no family says. */
export function readInstruction(instruction: string): Goal {
  const goal = INSTRUCTIONS.get(instruction);
  if (goal === undefined) throw badInput('instruction', instruction, 'a sentence such as "Put a clean mug in the cabinet." is expected');
  return goal;
}
