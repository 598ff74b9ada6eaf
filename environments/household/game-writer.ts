/**
 * Writes a home as a game file in ALFWorld's format (`game.tw-pddl`, with the `traj_data.json` that ALFWorld wants beside it). The same home gives the same
 * bytes, always; the digest of a generated task is that of these bytes.
 */
import { DOMAIN_TEXT, grammarText } from './domain.ts';
import { FAMILY_RULES } from './families.ts';
import type { GameFile } from './game-file.ts';
import type { Home } from './generator.ts';
import { kindOf, OBJECT_KINDS, RECEPTACLE_KINDS } from './kinds.ts';
import type { Affordance } from './kinds.ts';

const PREDICATE_OF: Readonly<Partial<Record<Affordance, string>>> = { cleanable: 'washable', heatable: 'warmable', coolable: 'chillable' };
const HAND = 'hands';
const START = 'spot_bar_00';
const two = (n: number): string => String(n).padStart(2, '0');

/**
 * The id that ALFWorld makes this name of: it numbers the ids of a kind from the last one up, and calls what has `basin` in its id a basin.
 * `mug 1` of three is `mug_bar_03`.
 */
function idsOf(names: readonly string[]): Map<string, string> {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(kindOf(name), (counts.get(kindOf(name)) ?? 0) + 1);
  return new Map(
    names.map((name) => {
      const kind = kindOf(name);
      const place = two((counts.get(kind) as number) + 1 - Number(name.slice(kind.length + 1)));
      return [name, kind.endsWith('basin') ? `${kind.slice(0, -'basin'.length)}_bar_${place}_bar_basin` : `${kind}_bar_${place}`];
    }),
  );
}

export function gameFileOf(home: Home): GameFile & { walkthrough: readonly string[] } {
  return {
    pddl_domain: DOMAIN_TEXT,
    grammar: grammarText(FAMILY_RULES[home.goal.family].instruction(home.goal)),
    pddl_problem: problemOf(home),
    walkthrough: walkthroughOf(home),
    solvable: true,
  };
}

export const bytesOf = (file: GameFile): Buffer => Buffer.from(JSON.stringify(file));

function problemOf(home: Home): string {
  const things = home.things.map(([thing]) => thing);
  const ids = idsOf([...home.receptacles, ...things]);
  const idOf = (name: string): string => ids.get(name) as string;
  const spots = new Map(home.receptacles.map((receptacle, i) => [receptacle, `spot_bar_${two(i + 1)}`]));
  const kinds = [...new Set([...ids.keys()].map(kindOf))].sort();
  const facts: string[][] = [
    ['near', START],
    ['free', HAND],
  ];
  for (const receptacle of home.receptacles) {
    facts.push(['stands', idOf(receptacle), spots.get(receptacle) as string], ['kind', idOf(receptacle), `${kindOf(receptacle)}type`]);
    if (RECEPTACLE_KINDS[kindOf(receptacle)]?.openable) facts.push(['shuttable', idOf(receptacle)]);
  }
  for (const [thing, receptacle] of home.things) {
    const kind = OBJECT_KINDS[kindOf(thing)];
    facts.push(['lies', idOf(thing), idOf(receptacle)], ['kind', idOf(thing), `${kindOf(thing)}type`]);
    facts.push([kind === undefined ? 'switchable' : 'portable', idOf(thing)]);
    for (const affordance of kind?.affordances ?? []) {
      const predicate = PREDICATE_OF[affordance];
      if (predicate !== undefined) facts.push([predicate, idOf(thing)]);
    }
  }
  const objects = [
    `${HAND} - hand`,
    `${[START, ...spots.values()].join(' ')} - spot`,
    `${home.receptacles.map(idOf).join(' ')} - furniture`,
    `${things.map(idOf).join(' ')} - thing`,
    `${kinds.map((kind) => `${kind}type`).join(' ')} - sort`,
  ];
  return `(define (problem home)
  (:domain household)
  (:objects
    ${objects.join('\n    ')})
  (:init
    ${facts.map((fact) => `(${fact.join(' ')})`).join('\n    ')})
  (:goal ${FAMILY_RULES[home.goal.family].solved(home.goal)}))
`;
}

/** A shortest solution: of all ways to fetch what is asked for and to bring it where it belongs, one with the fewest turns. */
export function walkthroughOf(home: Home): string[] {
  const { family, object, target } = home.goal;
  const wanted = home.things.filter(([thing]) => kindOf(thing) === object);
  const ends = (
    family === 'look' ? home.things.filter(([thing]) => kindOf(thing) === target) : home.receptacles.map((r) => [r, r] as const)
  ).filter(([name]) => kindOf(name) === target);
  const ways = wanted.flatMap((first, i) =>
    ends.flatMap(([end, place]) => {
      const seconds = FAMILY_RULES[family].count === 1 ? [null] : wanted.filter((_, j) => j > i);
      return seconds.map((second) => wayOf(home, [first, ...(second === null ? [] : [second])], end, place));
    }),
  );
  return ways.reduce((best, way) => (way.length < best.length ? way : best));
}

function wayOf(home: Home, wanted: readonly [string, string][], end: string, place: string): string[] {
  const { family } = home.goal;
  const { appliance } = FAMILY_RULES[family];
  const commands: string[] = [];
  const open = new Set<string>();
  let where = '';
  const walk = (to: string) => {
    if (where !== to) commands.push(`go to ${to}`);
    where = to;
  };
  const reach = (to: string) => {
    walk(to);
    if (RECEPTACLE_KINDS[kindOf(to)]?.openable && !open.has(to)) commands.push(`open ${to}`);
    open.add(to);
  };
  for (const [thing, receptacle] of wanted) {
    reach(receptacle);
    commands.push(`take ${thing} from ${receptacle}`);
    if (appliance !== null) {
      const at = home.receptacles.find((r) => kindOf(r) === appliance) as string;
      walk(at);
      commands.push(`${family} ${thing} with ${at}`);
    }
    reach(place);
    commands.push(family === 'look' ? `use ${end}` : `move ${thing} to ${place}`);
  }
  return commands;
}
