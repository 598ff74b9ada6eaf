/**
 * A scripted agent that looks through the home place by place and goes straight to what it has seen. It reads the words and the admissible commands and
 * nothing else: it cannot know what it has not been told. Its habits may make it do less than is asked.
 */
import type { Environment, ScriptedAgent } from '../environment.ts';
import { FAMILY_RULES, readInstruction } from './families.ts';
import type { Goal } from './families.ts';
import { kindOf, OBJECT_KINDS, USUAL_PLACES } from './kinds.ts';
import { readCommand, readIntroduction, readObservation } from './reading.ts';

/** What the agent leaves out, for a whole episode. Without any it is the expert. */
export interface Habits {
  /** Does not clean, heat or cool what it delivers. */
  skipsTreatment: boolean;
  /** Leaves the second of two things on the countertop instead of where it belongs. */
  dropsSecond: boolean;
  /** Turns on the lamp without fetching what is to be examined. */
  forgetsObject: boolean;
}

export const NO_HABITS: Habits = { skipsTreatment: false, dropsSecond: false, forgetsObject: false };

/** Where to look first: in the order of the introduction, which is easily learnt, or where such things usually are, which large homes need. */
export type SearchOrder = 'list' | 'usual';

const TREATMENTS = {
  clean: { verb: 'clean', appliance: 'sinkbasin', undoneBy: null },
  heat: { verb: 'heat', appliance: 'microwave', undoneBy: 'cool' },
  cool: { verb: 'cool', appliance: 'fridge', undoneBy: 'heat' },
} as const;

/** Must see every observation of its episode, from the introduction on; the commands in between may be others than those it named. */
export class SearchAgent implements ScriptedAgent {
  readonly #order: SearchOrder;
  readonly #habits: Habits;
  #goal: Goal | null = null;
  #receptacles: string[] = [];
  /** The receptacles in the order in which they are searched. */
  #places: string[] = [];
  #where: string | null = null;
  #carried: string | null = null;
  /** What lies where, as far as it was told. */
  readonly #contents = new Map<string, string[]>();
  readonly #shut = new Set<string>();
  readonly #treated = new Set<string>();
  readonly #delivered = new Set<string>();
  /** Places where what is carried could not be put down. */
  readonly #refusing = new Set<string>();
  #lit = false;
  #admissible: readonly string[] = [];

  constructor(order: SearchOrder, habits: Habits = NO_HABITS) {
    this.#order = order;
    this.#habits = habits;
  }

  act(environment: Environment): string | null {
    this.#admissible = environment.admissible;
    if (this.#goal === null) {
      this.#goal = readInstruction(environment.instruction);
      this.#begin(environment.observation, this.#goal);
    } else this.#learn(environment.observation, this.#goal);
    return this.#goal.family === 'look' ? this.#examine(this.#goal) : this.#deliver(this.#goal);
  }

  #begin(introduction: string, goal: Goal): void {
    // A game that begins in front of something lists only that; the rest is known as what one can go to.
    const reachable = this.#admissible.flatMap((command) => {
      const { verb, names } = readCommand(command) ?? { verb: '', names: [] };
      return verb === 'goto' ? names : [];
    });
    this.#receptacles = [...new Set([...readIntroduction(introduction), ...reachable])];
    const usual = USUAL_PLACES[OBJECT_KINDS[goal.object]?.class ?? 'food'];
    const isUsual = (place: string) => usual.includes(kindOf(place));
    this.#places =
      this.#order === 'list'
        ? this.#receptacles
        : [...this.#receptacles.filter(isUsual), ...this.#receptacles.filter((place) => !isUsual(place))];
  }

  #learn(observation: string, goal: Goal): void {
    const { event, thing, place, seen, closed } = readObservation(observation);
    const treatment = TREATMENTS[goal.family as keyof typeof TREATMENTS] as (typeof TREATMENTS)[keyof typeof TREATMENTS] | undefined;
    if (event === 'arrive') this.#where = place as string;
    if (event === 'close' || closed) this.#shut.add(place as string);
    else if (place !== undefined && seen !== undefined) {
      this.#shut.delete(place);
      this.#contents.set(place, seen);
    }
    if (thing === undefined) return;
    const there = this.#contents.get(place ?? '') ?? [];
    if (event === 'take') {
      this.#carried = thing;
      this.#refusing.clear();
      this.#delivered.delete(thing);
      this.#contents.set(
        place as string,
        there.filter((each) => each !== thing),
      );
    } else if (event === 'move') {
      if (this.#isReady(thing, goal) && place === this.#destination(goal)) this.#delivered.add(thing);
      this.#carried = null;
      this.#contents.set(place as string, [...there, thing]);
    } else if (event === 'use') this.#lit = true;
    else if (event === treatment?.verb) this.#treated.add(thing);
    else if (event === treatment?.undoneBy) this.#treated.delete(thing);
  }

  #isReady(thing: string, goal: Goal): boolean {
    return kindOf(thing) === goal.object && (!(goal.family in TREATMENTS) || this.#habits.skipsTreatment || this.#treated.has(thing));
  }

  /** Where the next thing is to be put: always the first of its kind in the list. */
  #destination(goal: Goal): string | undefined {
    const kind = this.#habits.dropsSecond && this.#delivered.size === 1 ? 'countertop' : goal.target;
    return this.#firstOf(kind);
  }

  #firstOf(kind: string): string | undefined {
    return this.#receptacles.find((receptacle) => kindOf(receptacle) === kind);
  }

  /** Null when it believes that it is done, or sees no way. */
  #deliver(goal: Goal): string | null {
    if (this.#delivered.size >= FAMILY_RULES[goal.family].count) return null;
    if (this.#carried === null) return this.#fetch(goal) ?? this.#search();
    if (kindOf(this.#carried) !== goal.object) return this.#putAside(this.#carried);
    if (!this.#isReady(this.#carried, goal)) {
      const { verb, appliance } = TREATMENTS[goal.family as keyof typeof TREATMENTS];
      const place = this.#firstOf(appliance);
      return place === undefined ? null : (this.#goTo(place) ?? `${verb} ${this.#carried} with ${place}`);
    }
    const place = this.#destination(goal);
    return place === undefined ? null : (this.#reach(place) ?? this.#move(this.#carried, place));
  }

  #examine(goal: Goal): string | null {
    const forgets = this.#habits.forgetsObject;
    if (!forgets && this.#carried === null) return this.#fetch(goal) ?? this.#search();
    if (!forgets && kindOf(this.#carried as string) !== goal.object) return this.#putAside(this.#carried as string);
    const found = this.#find((thing) => kindOf(thing) === goal.target);
    if (found === null) return this.#search();
    if (forgets && this.#lit) return null;
    return this.#reach(found.place) ?? (this.#lit ? null : `use ${found.thing}`);
  }

  #find(wanted: (thing: string) => boolean): { thing: string; place: string } | null {
    for (const place of this.#places) {
      const thing = this.#contents.get(place)?.find(wanted);
      if (thing !== undefined) return { thing, place };
    }
    return null;
  }

  /** The next step to the first known thing that is wanted, or null if none is known. */
  #fetch(goal: Goal): string | null {
    const found = this.#find((thing) => kindOf(thing) === goal.object && !this.#delivered.has(thing));
    return found === null ? null : (this.#reach(found.place) ?? `take ${found.thing} from ${found.place}`);
  }

  /** The next step of the search, or null when everything has been seen. */
  #search(): string | null {
    const place = this.#places.find((each) => !this.#contents.has(each));
    return place === undefined ? null : this.#reach(place);
  }

  /** Puts down what is not wanted, here or at the next place that takes it. */
  #putAside(thing: string): string | null {
    const put = this.#admissible.find((command) => {
      const { verb, names } = readCommand(command) ?? { verb: '', names: [] };
      return verb === 'move' && names[0] === thing;
    });
    if (put !== undefined) return put;
    const here = this.#where as string;
    if (this.#shut.has(here)) return `open ${here}`;
    this.#refusing.add(here);
    const next = this.#receptacles.find((place) => !this.#refusing.has(place) && !this.#isHere(place));
    return next === undefined ? null : `go to ${next}`;
  }

  /** ALFWorld's older games say it otherwise. */
  #move(thing: string, place: string): string {
    const older = `put ${thing} in/on ${place}`;
    return this.#admissible.includes(older) ? older : `move ${thing} to ${place}`;
  }

  /** One stands there: nobody can go to where he is, also not to what stands at the same location. */
  #isHere(place: string): boolean {
    return this.#where === place || !this.#admissible.includes(`go to ${place}`);
  }

  #goTo(place: string): string | null {
    return this.#isHere(place) ? null : `go to ${place}`;
  }

  /** The next step to stand at the place, see what is there and have its door open, or null. */
  #reach(place: string): string | null {
    const step = this.#goTo(place);
    if (step !== null) return step;
    if (this.#shut.has(place)) return `open ${place}`;
    return this.#contents.has(place) ? null : `examine ${place}`;
  }
}
