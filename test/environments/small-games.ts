/** Small games in the file format of ALFWorld, in words of our own: a few bells are to be rung. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const DOMAIN = `(define (domain belfry)
  (:requirements :typing)
  (:types bell - object)
  (:predicates (hangs ?b - bell) (rung ?b - bell))
  (:action Ring :parameters (?b - bell) :precondition (hangs ?b) :effect (rung ?b))
  (:action Muffle :parameters (?b - bell) :precondition (rung ?b) :effect (not (rung ?b))))`;

const grammarOf = (task: string): string => `grammar :: """${JSON.stringify({
  intro: [{ rhs: '-= A belfry =-\n\nYou see [{b.name | hangs(b:bell)}].\n\n#task#' }],
  task: [{ rhs: `Your task is to: ${task}` }],
  list_empty: [{ rhs: 'nothing' }],
  list_separator: [{ rhs: ', ' }],
  list_last_separator: [{ rhs: ', and ' }],
})}""";
action Ring { template :: "ring {b.name}"; feedback :: "It sounds."; }
action Muffle { template :: "muffle {b.name}"; feedback :: "It is still."; }`;

/** A game with `bells` bells, solved when the first `wanted` are rung. `number` only makes it another file. */
export function bellGame(
  number: number,
  { bells = 3, wanted = 2, ...more }: { bells?: number; wanted?: number; [key: string]: unknown } = {},
): string {
  const ids = Array.from({ length: bells }, (_, i) => `bell_bar_${i}`);
  // The first id has the highest number, as ALFWorld numbers things.
  const names = ids.map((_, i) => `bell ${bells - i}`);
  return JSON.stringify({
    pddl_domain: DOMAIN,
    pddl_problem: `(define (problem n${number}) (:domain belfry) (:objects ${ids.join(' ')} - bell)
      (:init ${ids.map((id) => `(hangs ${id})`).join(' ')}) (:goal (and ${ids
        .slice(0, wanted)
        .map((id) => `(rung ${id})`)
        .join(' ')})))`,
    grammar: grammarOf(`ring ${wanted} bells.`),
    walkthrough: names.slice(0, wanted).map((name) => `ring ${name}`),
    solvable: true,
    ...more,
  });
}

/** Writes games below `folder` and returns it. */
export function writeGames(folder: string, files: Readonly<Record<string, string>>): string {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  return folder;
}

/** A folder in ALFWorld's layout: `train`, `valid_seen` and `valid_unseen` with this many games each, of two families in turn. */
export function belfries(folder: string, counts: Readonly<Record<string, number>>): string {
  const types = ['pick_and_place_simple', 'look_at_obj_in_light'];
  let number = 0;
  for (const [split, games] of Object.entries(counts))
    for (let i = 0; i < games; i++)
      writeGames(folder, { [`json_2.1.1/${split}/${types[i % 2]}-Bell-None-Tower-${i}/trial_${i}/game.tw-pddl`]: bellGame(number++) });
  return folder;
}
