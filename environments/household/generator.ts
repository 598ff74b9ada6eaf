/**
 * Makes homes with a task in them. The id of a task (role, family, number, and how difficult) decides everything; nothing else does. Roles share no game:
 * `unseen` holds layouts and object-target pairs that no other role ever has, and the other three divide all remaining games by the hash of
 * their content.
 */
import { badInput } from '../../core/errors.ts';
import { canonicalJson, sha256 } from '../../core/digest.ts';
import type { TaskPanel } from '../../core/nouns.ts';
import { Random } from '../../core/random.ts';
import { FAMILIES, FAMILY_RULES, goalsOf } from './families.ts';
import type { Family, Goal } from './families.ts';
import * as kinds from './kinds.ts';
import { isOf, kindOf } from './kinds.ts';
import type { KindSet } from './kinds.ts';

export type Role = TaskPanel['role'];

/** The full content of a game. Entities are named as in the text, `mug 1`; of a kind that there are three of, the numbers are 1 to 3. */
export interface Home {
  /** Sorted by name. */
  receptacles: string[];
  /** Where everything lies at the start, sorted by name of the thing; the lamp is among them. */
  things: [thing: string, receptacle: string][];
  goal: Goal;
}

interface Range {
  least: number;
  most: number;
}

/** How difficult homes are. */
export interface Dials {
  kinds: KindSet;
  /** Places to search. */
  receptacles: Range;
  /** Things in a home, the lamp not counted. */
  objects: Range;
  /** At least so many distractors are of the wanted object's own class: things that could be taken for it. */
  lookalikes: number;
  /** How often there is one more thing of the wanted kind than is needed, in [0, 1]. */
  spare: number;
  /** How often an object lies anywhere instead of where its class usually does, in [0, 1]. */
  noise: number;
}

/** The homes there are by name. `small` has cap 30 in mind, `large` ALFWorld's homes and its cap of 50. */
export const HOMES = {
  small: { kinds: 'core', receptacles: { least: 8, most: 11 }, objects: { least: 8, most: 14 }, lookalikes: 2, spare: 0.25, noise: 0.25 },
  large: { kinds: 'all', receptacles: { least: 8, most: 32 }, objects: { least: 14, most: 30 }, lookalikes: 3, spare: 0.5, noise: 0.1 },
} as const satisfies Record<string, Dials>;
export type HomeSize = keyof typeof HOMES;

const ROLES: readonly Role[] = ['train', 'validation', 'seen', 'unseen'];

/** Throws RatchetError('BadInput') naming the dial that is out of range. */
export function checkDials(dials: Dials): Dials {
  const within = (name: keyof Dials, value: number, least: number, most: number) => {
    if (!(value >= least && value <= most)) throw badInput(name, value, `a number from ${least} to ${most}`);
  };
  const range = (name: 'receptacles' | 'objects', least: number, most: number) => {
    within(name, dials[name].least, least, most);
    within(name, dials[name].most, dials[name].least, most);
    if (!Number.isInteger(dials[name].least + dials[name].most)) throw badInput(name, dials[name], 'whole numbers');
  };
  range('receptacles', FEWEST_RECEPTACLES, dials.kinds === 'core' ? MOST_CORE_RECEPTACLES : 40);
  range('objects', dials.lookalikes + 3, 80);
  within('lookalikes', dials.lookalikes, 0, 10);
  within('spare', dials.spare, 0, 1);
  within('noise', dials.noise, 0, 1);
  return dials;
}

const FEWEST_RECEPTACLES = kinds.ALWAYS_ONCE.length + 2 * kinds.ONE_OR_TWO.length;
const MOST_CORE_RECEPTACLES = kinds.ALWAYS_ONCE.length + kinds.ONE_OR_TWO.length + kinds.CORE_OPTIONAL.length;

/** 32 bits of the text's SHA-256. Part of what the splits are: changing it changes every task. */
const hash = (text: string): number => Number.parseInt(sha256(text).slice(0, 8), 16);

/** How many receptacles of each kind a home has, as text: its floor plan. */
export function layoutOf(home: Pick<Home, 'receptacles'>): string {
  const counts = new Map<string, number>();
  for (const receptacle of home.receptacles) counts.set(kindOf(receptacle), (counts.get(kindOf(receptacle)) ?? 0) + 1);
  return [...counts].map(([kind, count]) => `${kind}*${count}`).join(' ');
}

export const pairOf = (goal: Goal): string => `${goal.object}/${goal.target}`;

/** A quarter of the layouts is held out for `unseen`. */
const isLayoutHeldOut = (layout: string): boolean => hash(`layout ${layout}`) % 4 === 0;

/** Of the objects that may be asked for at each target, a fifth (at least one) is held out for `unseen`, the same for all families. */
function heldOutOf(goals: readonly Goal[]): string[] {
  return Object.values(Object.groupBy(goals, (goal) => goal.target)).flatMap((there) => {
    const pairs = [...new Set(there?.map(pairOf))].sort((a, b) => hash(`pair ${a}`) - hash(`pair ${b}`));
    return pairs.slice(0, Math.max(1, Math.round(pairs.length / 5)));
  });
}

/** What is held out among the core kinds is held out among all. */
const HELD_OUT_PAIRS: ReadonlySet<string> = (() => {
  const core = FAMILIES.flatMap((family) => goalsOf(family, 'core'));
  const known = new Set(core.map(pairOf));
  const more = FAMILIES.flatMap((family) => goalsOf(family, 'all')).filter((goal) => !known.has(pairOf(goal)));
  return new Set([...heldOutOf(core), ...heldOutOf(more)]);
})();

/** Of what is not held out, half of the games train, a quarter each validates and is reported as `seen`. */
const roleOfContent = (home: Home): Role => (['seen', 'validation', 'train', 'train'] as const)[hash(JSON.stringify(home)) % 4] as Role;

const GOALS = Object.fromEntries(
  (['core', 'all'] as const).flatMap((set) =>
    [true, false].map((heldOut) => [
      `${set} ${heldOut}`,
      Object.fromEntries(
        FAMILIES.map((family) => [family, goalsOf(family, set).filter((goal) => HELD_OUT_PAIRS.has(pairOf(goal)) === heldOut)]),
      ),
    ]),
  ),
) as Record<string, Record<Family, Goal[]>>;

export interface TaskName {
  role: Role;
  family: Family;
  number: number;
  size: HomeSize;
}

/** `unseen/clean/000017`: the 18th task of the family in its role; `large/unseen/clean/000017` the same in a large home. */
export const taskId = ({ role, family, number, size }: TaskName): string =>
  `${size === 'small' ? '' : `${size}/`}${role}/${family}/${String(number).padStart(6, '0')}`;

/** The task at a place of a role's endless list: the families take turns. */
export function taskAt(role: Role, at: number, size: HomeSize): TaskName {
  return { role, family: FAMILIES[at % FAMILIES.length] as Family, number: Math.floor(at / FAMILIES.length), size };
}

/** Null for an id that is not a generated task's. */
export function parseTaskId(id: string): TaskName | null {
  const parts = id.split('/');
  const size = (parts.length === 4 ? parts.shift() : 'small') as HomeSize;
  const [role, family, number] = parts as [Role, Family, string];
  const name = { role, family, number: Number(number), size };
  const known = Object.hasOwn(HOMES, size) && ROLES.includes(role) && FAMILIES.includes(family);
  return known && Number.isSafeInteger(name.number) && name.number >= 0 && taskId(name) === id ? name : null;
}

/** Throws RatchetError('BadInput') for an id that no generated task has. */
export function nameOf(id: string): TaskName {
  const name = parseTaskId(id);
  if (name !== null) return name;
  const known = `role ${ROLES.join(', ')}, family ${FAMILIES.join(', ')}`;
  throw badInput('task', id, `a generated household task is named <role>/<family>/<six digits>, ${known}`);
}

/** The home of a task. Throws RatchetError('BadInput') for an id that no generated task has. */
export function homeOf(id: string): Home {
  const name = nameOf(id);
  return drawTask(['household', id], name, HOMES[name.size]);
}

/** A home of the role and family is found among a few dozen draws, unless the dials allow none. */
const MOST_DRAWS = 20_000;

/** The home that a key draws for a role and a family under these dials. Throws RatchetError('BadInput') when the dials leave none. */
export function drawTask(key: readonly (string | number)[], { role, family }: Pick<TaskName, 'role' | 'family'>, dials: Dials): Home {
  const random = new Random(key);
  for (let draw = 0; draw < MOST_DRAWS; draw++) {
    const home = drawHome(random, role === 'unseen', family, dials);
    if (home !== null && (role === 'unseen' || roleOfContent(home) === role)) return home;
  }
  throw badInput('dials', dials, 'dials that some home fits: none was found among ' + MOST_DRAWS);
}

/** The key of a home drawn with other dials than those of `HOMES`. */
export const dialsKey = (dials: Dials, id: string): string[] => ['household', canonicalJson(dials), id];

/** One draw, or null where the drawn layout belongs to another role or has no place for any of the family's goals. */
function drawHome(random: Random, heldOut: boolean, family: Family, dials: Dials): Home | null {
  const { receptacles, classes } = drawPlan(random, dials);
  const { least, most } = dials.receptacles;
  if (receptacles.length < least || receptacles.length > most) return null;
  if (isLayoutHeldOut(layoutOf({ receptacles })) !== heldOut) return null;
  const present = new Set(receptacles.map(kindOf)).add(kinds.LAMP);
  const { appliance } = FAMILY_RULES[family];
  if (appliance !== null && !present.has(appliance)) return null;
  const goals = (GOALS[`${dials.kinds} ${heldOut}`] as Record<Family, Goal[]>)[family].filter(
    ({ object, target }) => present.has(target) && classes.includes(kinds.classOf(object)),
  );
  if (goals.length === 0) return null;
  // First the object, then its target: kinds with many usual places are not asked for more often.
  const object = random.pick([...new Set(goals.map((goal) => goal.object))]);
  const goal = random.pick(goals.filter((g) => g.object === object));
  return { receptacles, things: drawThings(random, receptacles, classes, goal, dials), goal };
}

/** The receptacles and the classes of things of a small home with something of everything, or of one room as large homes are. */
function drawPlan(random: Random, dials: Dials): { receptacles: string[]; classes: readonly kinds.ObjectClass[] } {
  if (dials.kinds === 'all') {
    const room = random.pick(kinds.ROOMS);
    const wanted = Object.entries(room.receptacles).flatMap(([kind, [least, most]]) =>
      Array.from({ length: least + random.below(most - least + 1) }, () => kind),
    );
    return { receptacles: numbered(wanted), classes: room.classes };
  }
  const wanted: string[] = [...kinds.ALWAYS_ONCE];
  for (const kind of kinds.ONE_OR_TWO) for (let n = 1 + random.below(2); n > 0; n--) wanted.push(kind);
  const total = dials.receptacles.least + random.below(dials.receptacles.most - dials.receptacles.least + 1);
  wanted.push(...random.shuffled(kinds.CORE_OPTIONAL).slice(0, total - wanted.length));
  return { receptacles: numbered(wanted), classes: Object.keys(kinds.USUAL_PLACES) as kinds.ObjectClass[] };
}

function drawThings(
  random: Random,
  receptacles: readonly string[],
  classes: readonly kinds.ObjectClass[],
  goal: Goal,
  dials: Dials,
): [string, string][] {
  const { count } = FAMILY_RULES[goal.family];
  const wanted: string[] = Array.from({ length: count + (random.uniform() < dials.spare ? 1 : 0) }, () => goal.object);
  const others = Object.keys(kinds.OBJECT_KINDS).filter(
    (kind) => kind !== goal.object && isOf(dials.kinds, kind) && classes.includes(kinds.classOf(kind)),
  );
  const alike = others.filter((kind) => kinds.classOf(kind) === kinds.classOf(goal.object));
  for (let n = 0; n < dials.lookalikes; n++) wanted.push(random.pick(alike));
  const total = dials.objects.least + random.below(dials.objects.most - dials.objects.least + 1);
  while (wanted.length < total) {
    const kind = random.pick(others);
    if (wanted.filter((k) => k === kind).length < kinds.MOST_OF_A_KIND) wanted.push(kind);
  }
  const things = numbered(wanted).map((thing): [string, string] => {
    const kind = kindOf(thing);
    const usual = kinds.USUAL_PLACES[kinds.classOf(kind)];
    // Nothing of the wanted kind lies where it is wanted: no task is solved, or half solved, at the start.
    const allowed = receptacles.filter((r) => !(kind === goal.object && kindOf(r) === goal.target));
    const likely = allowed.filter((r) => usual.includes(kindOf(r)));
    return [thing, random.pick(random.uniform() < 1 - dials.noise && likely.length > 0 ? likely : allowed)];
  });
  const lamp = random.pick(receptacles.filter((r) => (kinds.LAMP_PLACES as readonly string[]).includes(kindOf(r))));
  things.push([`${kinds.LAMP} 1`, lamp]);
  return things.sort((a, b) => (a[0] < b[0] ? -1 : 1));
}

/** A name for each wanted kind, numbered from 1 within the kind. Sorted. */
function numbered(wanted: readonly string[]): string[] {
  const counts = new Map<string, number>();
  const names = wanted.map((kind) => {
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
    return `${kind} ${counts.get(kind)}`;
  });
  return names.sort();
}
