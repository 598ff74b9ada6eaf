/**
 * Makes homes with a task in them. The role, family and number of a task decide everything; nothing else does. Roles share no game: `unseen` holds
 * layouts and object-target pairs that no other role ever has, and the other three divide all remaining games by the hash of their content.
 */
import { badInput } from '../../core/errors.ts';
import { digestJson, sha256 } from '../../core/digest.ts';
import type { TaskPanel } from '../../core/nouns.ts';
import { Random } from '../../core/random.ts';
import { DOMAIN_TEXT, GRAMMAR_TEXT } from './domain.ts';
import { FAMILIES, FAMILY_RULES, goalsOf } from './families.ts';
import type { Family, Goal } from './families.ts';
import * as kinds from './kinds.ts';
import { kindOf } from './kinds.ts';

export type Role = TaskPanel['role'];

/** The full content of a game. Entities are named as in the text, `mug 1`. */
export interface Home {
  /** Sorted by name. */
  receptacles: string[];
  /** Where everything lies at the start, sorted by name of the thing; the lamp is among them. */
  things: [thing: string, receptacle: string][];
  goal: Goal;
}

/** Objects in a home, the lamp not counted. */
const OBJECTS = { least: 8, most: 14 } as const;
/** Receptacles in a home. */
const RECEPTACLES = { least: 8, most: 11 } as const;
/** How often an object lies where its class usually does; otherwise it may lie anywhere. */
const USUAL = 0.75;
/** At least this many distractors are of the goal object's own class: things that could be taken for it. */
const LOOKALIKES = 2;
/** How often there is one more thing of the wanted kind than is needed. */
const SPARE = 0.25;

const ROLES: readonly Role[] = ['train', 'validation', 'seen', 'unseen'];
const OBJECT_NAMES = Object.keys(kinds.OBJECT_KINDS);
const NUMBERS = Array.from({ length: kinds.HIGHEST_NUMBER }, (_, i) => i + 1);

/** 32 bits of the text's SHA-256. Part of what the splits are: changing it changes every task. */
const hash = (text: string): number => Number.parseInt(sha256(text).slice(0, 8), 16);

/** How many receptacles of each kind a home has, as text. */
export function layoutOf(home: Pick<Home, 'receptacles'>): string {
  const counts = new Map<string, number>();
  for (const receptacle of home.receptacles) counts.set(kindOf(receptacle), (counts.get(kindOf(receptacle)) ?? 0) + 1);
  return [...counts].map(([kind, count]) => `${kind}*${count}`).join(' ');
}

export const pairOf = (goal: Goal): string => `${goal.object}/${goal.target}`;

/** A quarter of the layouts is held out for `unseen`. */
const isLayoutHeldOut = (layout: string): boolean => hash(`layout ${layout}`) % 4 === 0;
/** Of the objects that may be asked for at each target, a fifth (at least one) is held out for `unseen`, the same for all families. */
const HELD_OUT_PAIRS: ReadonlySet<string> = new Set(
  Object.values(Object.groupBy(FAMILIES.flatMap(goalsOf), (goal) => goal.target)).flatMap((goals) => {
    const pairs = [...new Set(goals?.map(pairOf))].sort((a, b) => hash(`pair ${a}`) - hash(`pair ${b}`));
    return pairs.slice(0, Math.max(1, Math.round(pairs.length / 5)));
  }),
);

/** Of what is not held out, half of the games train, a quarter each validates and is reported as `seen`. */
const roleOfContent = (home: Home): Role => (['seen', 'validation', 'train', 'train'] as const)[hash(JSON.stringify(home)) % 4] as Role;

const GOALS = Object.fromEntries(
  [true, false].map((heldOut) => [
    String(heldOut),
    Object.fromEntries(FAMILIES.map((family) => [family, goalsOf(family).filter((goal) => HELD_OUT_PAIRS.has(pairOf(goal)) === heldOut)])),
  ]),
) as Record<string, Record<Family, Goal[]>>;

/** `unseen/clean/000017`: the 18th task of the family in its role. */
export const taskId = (role: Role, family: Family, number: number): string => `${role}/${family}/${String(number).padStart(6, '0')}`;

/** Throws RatchetError('BadInput') for an id that no task has. */
export function parseTaskId(id: string): { role: Role; family: Family; number: number } {
  const [role, family, number] = id.split('/') as [Role, Family, string];
  const value = Number(number);
  if (
    !ROLES.includes(role) ||
    !FAMILIES.includes(family) ||
    !Number.isSafeInteger(value) ||
    value < 0 ||
    taskId(role, family, value) !== id
  )
    throw badInput(
      'task',
      id,
      `a household task is named <role>/<family>/<six digits>, role ${ROLES.join(', ')}, family ${FAMILIES.join(', ')}`,
    );
  return { role, family, number: value };
}

/** The home of a task. */
export function homeOf(id: string): Home {
  const { role, family } = parseTaskId(id);
  const random = new Random(['household', id]);
  for (;;) {
    const home = drawHome(random, role === 'unseen', family);
    if (home !== null && (role === 'unseen' || roleOfContent(home) === role)) return home;
  }
}

const DOMAIN_DIGEST = digestJson({ domain: DOMAIN_TEXT, grammar: GRAMMAR_TEXT });

/** The digest of everything that defines the game: its content and the rules and words it is played with. */
export const digestOf = (home: Home): string => digestJson({ rules: DOMAIN_DIGEST, ...home });

/** One draw, or null where the drawn layout belongs to another role or has no place for any of the family's goals. */
function drawHome(random: Random, heldOut: boolean, family: Family): Home | null {
  const receptacles = drawReceptacles(random);
  if (isLayoutHeldOut(layoutOf({ receptacles })) !== heldOut) return null;
  const present = new Set(receptacles.map(kindOf)).add(kinds.LAMP);
  const goals = (GOALS[String(heldOut)] as Record<Family, Goal[]>)[family].filter(({ target }) => present.has(target));
  if (goals.length === 0) return null;
  // First the object, then its target: kinds with many usual places are not asked for more often.
  const object = random.pick([...new Set(goals.map((goal) => goal.object))]);
  const goal = random.pick(goals.filter((g) => g.object === object));
  return { receptacles, things: drawThings(random, receptacles, goal), goal };
}

function drawReceptacles(random: Random): string[] {
  const wanted: string[] = [...kinds.ALWAYS_ONCE];
  for (const kind of kinds.ONE_OR_TWO) for (let n = 1 + random.below(2); n > 0; n--) wanted.push(kind);
  const total = RECEPTACLES.least + random.below(RECEPTACLES.most - RECEPTACLES.least + 1);
  wanted.push(...random.shuffled(kinds.OPTIONAL).slice(0, total - wanted.length));
  return numbered(random, wanted);
}

function drawThings(random: Random, receptacles: readonly string[], goal: Goal): [string, string][] {
  const { count } = FAMILY_RULES[goal.family];
  const wanted: string[] = Array.from({ length: count + (random.uniform() < SPARE ? 1 : 0) }, () => goal.object);
  const others = OBJECT_NAMES.filter((kind) => kind !== goal.object);
  const classOf = (kind: string): string | undefined => kinds.OBJECT_KINDS[kind]?.class;
  const alike = others.filter((kind) => classOf(kind) === classOf(goal.object));
  for (let n = 0; n < LOOKALIKES; n++) wanted.push(random.pick(alike));
  const total = OBJECTS.least + random.below(OBJECTS.most - OBJECTS.least + 1);
  while (wanted.length < total) {
    const kind = random.pick(others);
    if (wanted.filter((k) => k === kind).length < kinds.HIGHEST_NUMBER) wanted.push(kind);
  }
  const things = numbered(random, wanted).map((thing): [string, string] => {
    const kind = kindOf(thing);
    const usual = kinds.USUAL_PLACES[(kinds.OBJECT_KINDS[kind] as kinds.ObjectKind).class];
    // Nothing of the wanted kind lies where it is wanted: no task is solved, or half solved, at the start.
    const allowed = receptacles.filter((r) => !(kind === goal.object && kindOf(r) === goal.target));
    const likely = allowed.filter((r) => usual.includes(kindOf(r)));
    return [thing, random.pick(random.uniform() < USUAL && likely.length > 0 ? likely : allowed)];
  });
  const lamp = random.pick(receptacles.filter((r) => (kinds.LAMP_PLACES as readonly string[]).includes(kindOf(r))));
  things.push([`${kinds.LAMP} ${random.pick(NUMBERS)}`, lamp]);
  return things.sort((a, b) => (a[0] < b[0] ? -1 : 1));
}

/** A name for each wanted kind: numbers are drawn without replacement within a kind. Sorted. */
function numbered(random: Random, wanted: readonly string[]): string[] {
  const names: string[] = [];
  const counts = new Map<string, number>();
  for (const kind of wanted) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  for (const [kind, count] of counts) {
    if (count === 1) names.push(`${kind} ${random.pick(NUMBERS)}`);
    else for (const number of random.shuffled(NUMBERS).slice(0, count)) names.push(`${kind} ${number}`);
  }
  return names.sort();
}
