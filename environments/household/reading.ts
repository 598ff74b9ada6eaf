/**
 * Reads the household's words, those of generated games and those of ALFWorld (all its generations): what an agent, or a codec, learns from an observation. It
 * has no access to the game; all knowledge of scripted agents comes through here.
 */

/** What one observation tells. Entities are named as in the text, `mug 1`. */
export interface Reading {
  /** What happened: the verb of the sentence, or `nothing`, or `other` for texts that report no deed. */
  event: 'arrive' | 'open' | 'close' | 'take' | 'move' | 'clean' | 'heat' | 'cool' | 'use' | 'slice' | 'nothing' | 'other';
  /** The thing that was handled. */
  thing?: string;
  /** The receptacle where it happened, or that is told about. */
  place?: string;
  /** What is told to be seen or carried; empty for "nothing". */
  seen?: string[];
  /** The receptacle is told to be closed. */
  closed: boolean;
}

const ENTITY = /\b([a-z]+ \d+)\b/g;
/** Deeds on things: the whole text is one sentence with a thing and a receptacle in it. */
const DEEDS: [Reading['event'], RegExp][] = [
  ['take', /^You (?:pick up|take) the (\w+ \d+) (?:from|out of) the (\w+ \d+)\.$/],
  ['move', /^You (?:move|put|leave) the (\w+ \d+) (?:to|in\/on|at) the (\w+ \d+)\.$/],
  ['clean', /^You (?:clean|wash) the (\w+ \d+) (?:using|at) the (\w+ \d+)\.$/],
  ['heat', /^You (?:heat|warm) the (\w+ \d+) (?:using|at) the (\w+ \d+)\.$/],
  ['cool', /^You (?:cool|chill) the (\w+ \d+) (?:using|at) the (\w+ \d+)\.$/],
  ['use', /^You (?:turn on the (\w+ \d+)|switch the (\w+ \d+) on)\.$/],
  ['slice', /^You sliced the (\w+ \d+) with the \w+ \d+\.$/],
];
/** Texts that begin with a deed at a receptacle and may go on with what is seen there. */
const PLACES: [Reading['event'], RegExp][] = [
  ['open', /^You (?:open|pull at) the (\w+ \d+)\./],
  ['close', /^You (?:close|shut) the (\w+ \d+)\.$/],
  // Older games of ALFWorld name the location where one arrives; what stands there follows.
  ['arrive', /^You arrive at loc \d+\. (?:On t|T)he (\w+ \d+)/],
  ['arrive', /^You (?:arrive at|walk to the) (\w+ \d+)\./],
  ['other', /^(?:On t|T)he (\w+ \d+)(?:, you see| is open\.| is closed\.)/],
  ['other', /^You stand at the (\w+ \d+)\./],
];
const LISTED = /(?:you see|there is|You are carrying:) ([^.]*)\./;
const CLOSED = / is (?:closed|shut)\.$/;

/** The names of all numbered entities in a text, in order. */
export const entitiesIn = (text: string): string[] => text.match(ENTITY) ?? [];

export function readObservation(observation: string): Reading {
  if (observation === 'Nothing happens.') return { event: 'nothing', closed: false };
  for (const [event, pattern] of DEEDS) {
    const found = pattern.exec(observation);
    if (found !== null) {
      const [first, second] = found.slice(1).filter((name) => name !== undefined);
      return { event, thing: first as string, ...(second === undefined ? {} : { place: second }), closed: false };
    }
  }
  const listed = LISTED.exec(observation);
  const reading: Reading = { event: 'other', closed: CLOSED.test(observation) };
  if (listed !== null) reading.seen = entitiesIn(listed[1] as string);
  for (const [event, pattern] of PLACES) {
    const found = pattern.exec(observation);
    if (found !== null) return { ...reading, event, place: found[1] as string };
  }
  return reading;
}

/** The receptacles of the home, in the order in which the introduction lists them. */
export function readIntroduction(introduction: string): string[] {
  // Where a game begins in front of something, that is all it lists.
  const facing = /You are facing the ([^.]*)\./.exec(introduction);
  return entitiesIn(facing?.[1] ?? LISTED.exec(introduction)?.[1] ?? '');
}

/** What a command does to what: ALFWorld's older `put … in/on …` is a `move`. Null for a command of another form. */
export interface CommandReading {
  verb: string;
  /** Numbered entities in the order of the command. */
  names: string[];
}

const COMMAND = /^(go to|[a-z]+)(?: ([a-z]+ \d+))?(?: (?:from|to|with|in\/on|in|on) ([a-z]+ \d+))?$/;

export function readCommand(command: string): CommandReading | null {
  const found = COMMAND.exec(command);
  if (found === null) return null;
  const verb = found[1] === 'go to' ? 'goto' : found[1] === 'put' ? 'move' : (found[1] as string);
  return { verb, names: found.slice(2).filter((name) => name !== undefined) };
}
