/**
 * `household-compact-2`: what a model reads of a household game, ours or ALFWorld's. Numbered entities are one token up to the number 4 and two from there on,
 * function words are dropped, the admissible commands are left out: about seven tokens a turn. Made from the words alone. Unknown words
 * become `<unk>`; they are never guessed.
 *
 *     <task> clean mug cabinet <home> cabinet_2 fridge_1 > goto cabinet_2 : closed > open cabinet_2 : see mug_1 > take mug_1 cabinet_2 : ok >
 */
import type { Codec } from '../environment.ts';
import { FAMILIES, goalIn } from './families.ts';
import { LAMPS, OBJECT_KINDS, RECEPTACLE_KINDS } from './kinds.ts';
import { readCommand, readIntroduction, readObservation } from './reading.ts';

const UNKNOWN = '<unk>';
/** The token before every decision, and the one between a command and its feedback. */
const DECIDE = '>';
const FEEDBACK = ':';
const VERBS = ['goto', 'open', 'close', 'take', 'move', 'clean', 'heat', 'cool', 'use', 'slice', 'examine', 'look', 'inventory', 'help'];
/** What feedback says: a door is closed, things are seen, nothing is there, it was done, nothing happened; and what a thing is like. */
const STATES = ['closed', 'see', 'empty', 'ok', 'fail', 'hot', 'sliced'];
const KINDS = [...Object.keys(RECEPTACLE_KINDS), ...Object.keys(OBJECT_KINDS), ...LAMPS];
/** Numbers up to here are part of an entity's token, `cabinet_4`; higher ones follow it, `cabinet #13`. */
const HIGHEST_WITHIN = 4;
/** ALFWorld's largest homes have some thirty drawers. */
const HIGHEST = 60;

const upTo = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

const VOCABULARY: readonly string[] = Object.freeze([
  ...new Set([
    '<pad>',
    UNKNOWN,
    '<task>',
    '<home>',
    FEEDBACK,
    DECIDE,
    ...VERBS,
    ...STATES,
    ...FAMILIES,
    ...KINDS,
    ...KINDS.flatMap((kind) => upTo(1, HIGHEST_WITHIN).map((number) => `${kind}_${number}`)),
    ...upTo(HIGHEST_WITHIN + 1, HIGHEST).map((number) => `#${number}`),
  ]),
]);
const KNOWN: ReadonlySet<string> = new Set(VOCABULARY);

const known = (token: string): string => (KNOWN.has(token) ? token : UNKNOWN);

function entityTokens(name: string): string[] {
  const [kind, number] = name.split(' ') as [string, string];
  return Number(number) <= HIGHEST_WITHIN ? [known(`${kind}_${number}`)] : [known(kind), known(`#${number}`)];
}

/** Adjectives of a thing in the hand; what is not told of it needs no token. */
const QUALITY =
  /^This is an? (?:normal )?((?:(?:hot|cool|cold|clean|sliced)(?: and | ))+)\w+ \d+\.$|^The \w+ \d+ is ((?:hot|cool|clean)(?: and clean)?)\.$/;

function feedbackTokens(observation: string): string[] {
  const quality = QUALITY.exec(observation);
  if (quality !== null)
    return ((quality[1] ?? quality[2]) as string)
      .split(/ and | /)
      .filter((word) => word !== '')
      .map((word) => (word === 'cold' ? 'cool' : word));
  if (observation === 'You are not carrying anything.' || observation === 'Your hands are empty.') return ['empty'];
  const { event, seen, closed } = readObservation(observation);
  if (event === 'nothing') return ['fail'];
  if (closed) return ['closed'];
  if (seen === undefined) return ['ok'];
  return seen.length === 0 ? ['empty'] : ['see', ...seen.flatMap(entityTokens)];
}

/** The words of a task that somebody wrote in sentences of their own. */
const taskWords = (instruction: string): string[] => (instruction.toLowerCase().match(/[a-z]+/g) ?? []).map(known);

export const householdCodec: Codec = {
  version: 'household-compact-2',
  vocabulary: VOCABULARY,

  start(instruction, introduction) {
    const goal = goalIn(instruction);
    const task = goal === null ? taskWords(instruction) : [goal.family, known(goal.object), known(goal.target)];
    return ['<task>', ...task, '<home>', ...readIntroduction(introduction).flatMap(entityTokens), DECIDE];
  },

  command(command) {
    const read = readCommand(command);
    if (read === null) return command.split(/\s+/).map(known);
    return [known(read.verb), ...read.names.flatMap(entityTokens)];
  },

  feedbackStart: FEEDBACK,

  feedback(_command, observation) {
    return [FEEDBACK, ...feedbackTokens(observation), DECIDE];
  },
};
