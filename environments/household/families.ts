/** The six task families of ALFWorld: which objects they ask for, how the task is said, here and by ALFWorld, and when it is solved. */
import { badInput } from '../../core/errors.ts';
import { isOf, LAMP, OBJECT_KINDS, pluralOf, RECEPTACLE_KINDS, USUAL_PLACES } from './kinds.ts';
import type { Affordance, KindSet } from './kinds.ts';

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
  /** ALFWorld's name of the family, `task_type` of `traj_data.json`. */
  taskType: string;
  /** What the object must allow. */
  needs: Affordance | null;
  /** How many such things are asked for. */
  count: 1 | 2;
  /** The appliance, which is never the target: the thing would only have to be left there. */
  appliance: string | null;
  instruction(goal: Goal): string;
  /** PDDL over the predicates of `domain.ts`. */
  solved(goal: Goal): string;
}

const into = (target: string): string => `${RECEPTACLE_KINDS[target]?.preposition ?? 'on'} the ${target}`;
const isA = (variable: string, kind: string): string => `(kind ?${variable} ${kind}type)`;
const treated = (taskType: string, adjective: string, needs: Affordance, appliance: string): FamilyRules => ({
  taskType,
  needs,
  count: 1,
  appliance,
  instruction: ({ object, target }) => `put a ${adjective} ${object} ${into(target)}.`,
  solved: ({ object, target }) =>
    `(exists (?o - thing ?r - furniture) (and ${isA('o', object)} ${isA('r', target)} (lies ?o ?r) (${adjective} ?o)))`,
});

export const FAMILY_RULES: Readonly<Record<Family, FamilyRules>> = {
  pick: {
    taskType: 'pick_and_place_simple',
    needs: null,
    count: 1,
    appliance: null,
    instruction: ({ object, target }) => `put a ${object} ${into(target)}.`,
    solved: ({ object, target }) => `(exists (?o - thing ?r - furniture) (and ${isA('o', object)} ${isA('r', target)} (lies ?o ?r)))`,
  },
  look: {
    taskType: 'look_at_obj_in_light',
    needs: 'readable',
    count: 1,
    appliance: null,
    instruction: ({ object, target }) => `examine a ${object} under the ${target}.`,
    solved: ({ object, target }) =>
      `(exists (?h - hand ?o - thing ?l - thing ?r - furniture ?p - spot) ` +
      `(and ${isA('o', object)} (carries ?h ?o) ${isA('l', target)} (lit ?l) (lies ?l ?r) (stands ?r ?p) (near ?p)))`,
  },
  clean: treated('pick_clean_then_place_in_recep', 'clean', 'cleanable', 'sinkbasin'),
  heat: treated('pick_heat_then_place_in_recep', 'hot', 'heatable', 'microwave'),
  cool: treated('pick_cool_then_place_in_recep', 'cool', 'coolable', 'fridge'),
  two: {
    taskType: 'pick_two_obj_and_place',
    needs: null,
    count: 2,
    appliance: null,
    instruction: ({ object, target }) => `put two ${pluralOf(object)} ${into(target)}.`,
    // Both in the same receptacle, as in ALFWorld.
    solved: ({ object, target }) =>
      `(exists (?r - furniture ?o - thing ?q - thing) ` +
      `(and ${isA('r', target)} ${isA('o', object)} ${isA('q', object)} (not (= ?o ?q)) (lies ?o ?r) (lies ?q ?r)))`,
  },
};

/** Every goal of a family that makes sense among these kinds, in a fixed order. */
export function goalsOf(family: Family, kinds: KindSet): Goal[] {
  const { needs, appliance } = FAMILY_RULES[family];
  return Object.entries(OBJECT_KINDS)
    .filter(([object, kind]) => isOf(kinds, object) && (needs === null || kind.affordances.includes(needs)))
    .flatMap(([object, kind]) =>
      (family === 'look' ? [LAMP] : USUAL_PLACES[kind.class].filter((target) => target !== appliance && isOf(kinds, target))).map(
        (target) => ({ family, object, target }),
      ),
    );
}

const SINGULAR: ReadonlyMap<string, string> = new Map(Object.keys(OBJECT_KINDS).map((kind) => [pluralOf(kind), kind]));
const TREATED: Readonly<Record<string, Family>> = { clean: 'clean', hot: 'heat', cool: 'cool', heat: 'heat' };

/** ALFWorld's sentences and those of `FAMILY_RULES`, with the places of family word, object and target among the groups. */
const SENTENCES: readonly [RegExp, (groups: string[]) => Goal][] = [
  [
    /^put two (\w+) (?:in|on) (?:the )?(\w+)$|^find two (\w+) and put them in (\w+)$/,
    ([a, b, c, d]) => ({ family: 'two', object: singular(a ?? (c as string)), target: (b ?? d) as string }),
  ],
  [
    /^put (?:a|some) (clean|hot|cool) (\w+) (?:in|on) (?:the )?(\w+)$|^(clean|heat|cool) some (\w+) and put it in (\w+)$/,
    ([a, b, c, d, e, f]) => ({
      family: TREATED[(a ?? d) as string] as Family,
      object: (b ?? e) as string,
      target: (c ?? f) as string,
    }),
  ],
  [/^put (?:a|some) (\w+) (?:in|on) (?:the )?(\w+)$/, ([a, b]) => ({ family: 'pick', object: a as string, target: b as string })],
  [
    /^(?:look at|examine) (?:a |the )?(\w+) (?:under|with) the (\w+)$/,
    ([a, b]) => ({ family: 'look', object: a as string, target: b as string }),
  ],
];

const singular = (word: string): string => SINGULAR.get(word) ?? word;

/** What an instruction asks for, or null for a sentence that is none of the known ones (people write their own). */
export function goalIn(instruction: string): Goal | null {
  const sentence = instruction.trim().toLowerCase().replace(/\.$/, '');
  for (const [pattern, goal] of SENTENCES) {
    const found = pattern.exec(sentence);
    if (found !== null) return goal(found.slice(1));
  }
  return null;
}

/** Throws RatchetError('BadInput') for a sentence that is none of the known ones. */
export function readInstruction(instruction: string): Goal {
  const goal = goalIn(instruction);
  if (goal === null) throw badInput('instruction', instruction, 'a sentence such as "put a clean mug in the cabinet." is expected');
  return goal;
}
