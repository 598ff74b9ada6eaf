/**
 * `household-compact-1`: what a model reads of a household game. Numbered entities are one token, function words are dropped, the admissible commands
 * are left out: about seven tokens a turn. Made from the words alone. Unknown words become `<unk>`; they are never guessed.
 *
 *     <task> clean mug cabinet <home> cabinet_2 fridge_1 > goto cabinet_2 : closed > open cabinet_2 : see mug_1 > take mug_1 cabinet_2 : ok >
 */
import type { Codec } from '../environment.ts';
import { FAMILIES, readInstruction } from './families.ts';
import { HIGHEST_NUMBER, LAMP, OBJECT_KINDS, RECEPTACLE_KINDS } from './kinds.ts';
import { entitiesIn, readIntroduction, readObservation } from './reading.ts';

const UNKNOWN = '<unk>';
/** The token before every decision. */
const DECIDE = '>';
const VERBS = ['goto', 'open', 'close', 'take', 'move', 'clean', 'heat', 'cool', 'use', 'examine', 'look', 'inventory'];
/** What feedback says: a door is closed, things are seen, nothing is there, it was done, nothing happened; and what a thing is like. */
const STATES = ['closed', 'see', 'empty', 'ok', 'fail', 'hot'];
const KINDS = [...Object.keys(RECEPTACLE_KINDS), ...Object.keys(OBJECT_KINDS), LAMP];

const VOCABULARY: readonly string[] = Object.freeze([
  ...new Set([
    '<pad>',
    UNKNOWN,
    '<task>',
    '<home>',
    ':',
    DECIDE,
    ...VERBS,
    ...STATES,
    ...FAMILIES,
    ...KINDS,
    ...KINDS.flatMap((kind) => Array.from({ length: HIGHEST_NUMBER }, (_, i) => `${kind}_${i + 1}`)),
  ]),
]);
const KNOWN: ReadonlySet<string> = new Set(VOCABULARY);

const known = (token: string): string => (KNOWN.has(token) ? token : UNKNOWN);
const entityToken = (name: string): string => known(name.replace(' ', '_'));
/** `go to x` is one verb; prepositions say nothing that the order does not. */
const COMMAND = /^(go to|[a-z]+)(?: ([a-z]+ \d+))?(?: (?:from|to|with) ([a-z]+ \d+))?$/;
const QUALITIES = /^This is a (?:(hot|cool) and )?(clean|hot|cool) /;

function feedbackTokens(observation: string): string[] {
  const quality = QUALITIES.exec(observation);
  if (quality !== null) return quality.slice(1).filter((word) => word !== undefined);
  if (observation === 'You are not carrying anything.') return ['empty'];
  const { event, seen, closed } = readObservation(observation);
  if (event === 'nothing') return ['fail'];
  if (closed) return ['closed'];
  if (seen === undefined) return ['ok'];
  return seen.length === 0 ? ['empty'] : ['see', ...seen.map(entityToken)];
}

export const householdCodec: Codec = {
  version: 'household-compact-1',
  vocabulary: VOCABULARY,

  start(instruction, introduction) {
    const { family, object, target } = readInstruction(instruction);
    return ['<task>', family, object, target, '<home>', ...readIntroduction(introduction).map(entityToken), DECIDE];
  },

  command(command) {
    const found = COMMAND.exec(command);
    if (found === null) return command.split(/\s+/).map((word) => known(word));
    const verb = found[1] === 'go to' ? 'goto' : known(found[1] as string);
    return [verb, ...entitiesIn(command).map(entityToken)];
  },

  feedback(_command, observation) {
    return [':', ...feedbackTokens(observation), DECIDE];
  },
};
