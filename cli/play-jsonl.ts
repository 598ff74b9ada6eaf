/**
 * Play for programs: one JSON object a line in, one out. `{"game": path, "names"?: {id: name}}` starts a game, `{"command": text}` takes a turn,
 * `{"snapshot": true}` asks for the state as JSON and `{"restore": that JSON}` goes back to it, in whatever process. What is wrong is answered with
 * `{"error": text}`, and the session goes on where it was. A solved game may be played on, as in TextWorld.
 */
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { sha256 } from '../core/digest.ts';
import { badInput, RatchetError } from '../core/errors.ts';
import { loadGame } from '../environments/household/engine/game.ts';
import type { Game } from '../environments/household/engine/game.ts';
import { Play } from '../environments/household/engine/play.ts';
import { readGameFile } from '../environments/household/game-file.ts';

/** Loaded games that are kept for the next episode; each takes a few MB. */
const KEPT_GAMES = 16;

type Reply = Record<string, unknown>;

export class JsonlSession {
  readonly #games = new Map<string, Game>();
  #play: Play | null = null;
  /** SHA-256 of the game that is played, with its names. */
  #sha256 = '';

  /** The answer to one line, without its line break. Never throws for what the line holds. */
  answer(line: string): string {
    try {
      return JSON.stringify(this.#reply(objectOf(line)));
    } catch (error) {
      if (!(error instanceof RatchetError)) throw error;
      return JSON.stringify({ error: error.message, type: error.type });
    }
  }

  #reply(message: Reply): Reply {
    if ('game' in message) return this.#start(message['game'], message['names']);
    if ('command' in message) {
      const { command } = message;
      if (typeof command !== 'string') throw badInput('command', command, 'a text is expected');
      const play = this.#playing();
      play.step(command);
      return { observation: play.moment.observation, admissible: play.available.commands, ...outcome(play) };
    }
    if (message['snapshot'] === true) {
      const { game, state, observation } = this.#playing().moment;
      return { snapshot: { game: this.#sha256, state: game.describe(state), observation } };
    }
    if ('restore' in message) return this.#restore(message['restore']);
    throw badInput('line', message, 'an object with "game", "command", "snapshot": true or "restore" is expected');
  }

  #start(path: unknown, names: unknown): Reply {
    if (typeof path !== 'string') throw badInput('game', path, 'the path of a game file is expected');
    const isTable = (value: unknown): value is Record<string, string> =>
      typeof value === 'object' &&
      value !== null &&
      !Array.isArray(value) &&
      Object.values(value).every((each) => typeof each === 'string');
    if (names !== undefined && names !== null && !isTable(names)) throw badInput('names', names, 'an object from ids to names is expected');
    const game = this.#load(path, names ?? undefined);
    const play = (this.#play = new Play(game));
    return { observation: play.moment.observation, admissible: play.available.commands, won: play.moment.solved };
  }

  #load(path: string, names: Record<string, string> | undefined): Game {
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      throw badInput('game', path, `the file cannot be read (${(error as NodeJS.ErrnoException).code})`);
    }
    // By content: the file may have changed, and another path may hold the same game.
    const key = sha256(names === undefined ? text : `${text}\n${JSON.stringify(names)}`);
    const game = this.#games.get(key) ?? loadGame(readGameFile(text, path), { id: path, names });
    this.#sha256 = key;
    this.#games.delete(key);
    this.#games.set(key, game);
    if (this.#games.size > KEPT_GAMES) this.#games.delete(this.#games.keys().next().value as string);
    return game;
  }

  #restore(snapshot: unknown): Reply {
    const play = this.#playing();
    const { game, state, observation } = (typeof snapshot === 'object' && snapshot !== null ? snapshot : {}) as Reply;
    if (game !== this.#sha256 || typeof observation !== 'string')
      throw badInput('restore', snapshot, 'a snapshot of the game that is played is expected');
    const restored = play.game.stateOf(state);
    play.moment = { game: play.game, state: restored, observation, solved: play.game.solved(restored), available: null };
    return { ok: true };
  }

  #playing(): Play {
    if (this.#play === null) throw badInput('line', 'no game', 'start one with {"game": "<path of a game.tw-pddl>"}');
    return this.#play;
  }
}

function outcome(play: Play): Reply {
  const won = play.moment.solved;
  return { score: won ? 1 : 0, done: won, won };
}

function objectOf(line: string): Reply {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw badInput('line', line.slice(0, 80), `it is not JSON: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw badInput('line', line.slice(0, 80), 'a JSON object is expected');
  return value as Reply;
}

/** Answers standard input, line by line, until it ends. */
export async function playJsonl(): Promise<void> {
  const session = new JsonlSession();
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity }))
    if (line.trim() !== '') process.stdout.write(`${session.answer(line)}\n`);
}
