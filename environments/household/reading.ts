/**
 * Reads the household's words: what an agent, or a codec, learns from an observation. It has no access to the game; all knowledge of scripted
 * agents comes through here.
 */

/** What one observation tells. Entities are named as in the text, `mug 1`. */
export interface Reading {
  /** What happened: the verb of the sentence, or `nothing`, or `other` for texts that report no deed. */
  event: 'arrive' | 'open' | 'close' | 'take' | 'move' | 'clean' | 'heat' | 'cool' | 'use' | 'nothing' | 'other';
  /** The thing that was handled. */
  thing?: string;
  /** The receptacle where it happened. */
  place?: string;
  /** What is told to be seen or carried; empty for "nothing". */
  seen?: string[];
  /** The receptacle is told to be closed. */
  closed: boolean;
}

const ENTITY = /\b([a-z]+ \d+)\b/g;
const DEEDS: [Reading['event'], RegExp][] = [
  ['take', /^You pick up the (\w+ \d+) from the (\w+ \d+)\.$/],
  ['move', /^You move the (\w+ \d+) to the (\w+ \d+)\.$/],
  ['clean', /^You clean the (\w+ \d+) using the (\w+ \d+)\.$/],
  ['heat', /^You heat the (\w+ \d+) using the (\w+ \d+)\.$/],
  ['cool', /^You cool the (\w+ \d+) using the (\w+ \d+)\.$/],
  ['use', /^You turn on the (\w+ \d+)\.$/],
];
const ARRIVE = /^You arrive at (\w+ \d+)\./;
const OPEN = /^You open the (\w+ \d+)\./;
const CLOSE = /^You close the (\w+ \d+)\./;
const FACING = /^You are facing the (\w+ \d+)\./;
const LISTED = /you see ([^.]*)\.|You are carrying: ([^.]*)\./;

/** The names of all numbered entities in a text, in order. */
export const entitiesIn = (text: string): string[] => text.match(ENTITY) ?? [];

export function readObservation(observation: string): Reading {
  if (observation === 'Nothing happens.') return { event: 'nothing', closed: false };
  for (const [event, pattern] of DEEDS) {
    const found = pattern.exec(observation);
    if (found !== null) return { event, thing: found[1] as string, ...(found[2] === undefined ? {} : { place: found[2] }), closed: false };
  }
  const listed = LISTED.exec(observation);
  const reading: Reading = { event: 'other', closed: observation.endsWith(' is closed.') };
  if (listed !== null) reading.seen = entitiesIn((listed[1] ?? listed[2]) as string);
  for (const [event, pattern] of [
    ['arrive', ARRIVE],
    ['open', OPEN],
    ['close', CLOSE],
    ['other', FACING],
  ] as const) {
    const found = pattern.exec(observation);
    if (found !== null) return { ...reading, event, place: found[1] as string };
  }
  return reading;
}

/** The receptacles of the home, in the order in which the introduction lists them. */
export const readIntroduction = (introduction: string): string[] => entitiesIn(/you see ([^.]*)\./.exec(introduction)?.[1] ?? '');
