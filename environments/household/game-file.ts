/** A game file in ALFWorld's format (`game.tw-pddl`): one JSON object that carries its own rules (PDDL), words (twl2) and problem (PDDL). */
import { badInput } from '../../core/errors.ts';

export interface GameFile {
  pddl_domain: string;
  grammar: string;
  pddl_problem: string;
  /** Commands that solve the game; null where none are known. */
  walkthrough: readonly string[] | null;
  /** Whether somebody checked that the game can be solved; null where nobody did. */
  solvable: boolean | null;
}

/** Reads the text of a game file. `where` (its path) names it in messages. Throws RatchetError('BadInput') naming the key that is wrong. */
export function readGameFile(text: string, where: string): GameFile {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw badInput('game file', where, `it is not JSON: ${(error as Error).message}`);
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw badInput('game file', where, 'it must be a JSON object');
  const file = json as Record<string, unknown>;
  const wrong = (key: string, expected: string): never => {
    throw badInput('game file', where, `its "${key}" must be ${expected}`);
  };
  const textOf = (key: string): string => (typeof file[key] === 'string' ? file[key] : wrong(key, 'a text'));
  const walkthrough = file['walkthrough'] ?? null;
  if (walkthrough !== null && !(Array.isArray(walkthrough) && walkthrough.every((each) => typeof each === 'string')))
    wrong('walkthrough', 'a list of commands, or null');
  const solvable = file['solvable'] ?? null;
  if (solvable !== null && typeof solvable !== 'boolean') wrong('solvable', 'true, false or null');
  return {
    pddl_domain: textOf('pddl_domain'),
    grammar: textOf('grammar'),
    pddl_problem: textOf('pddl_problem'),
    walkthrough: walkthrough as string[] | null,
    solvable: solvable as boolean | null,
  };
}
