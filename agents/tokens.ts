/**
 * From text to token ids: an episode as the one growing sequence that policies and reward models read, and where in it the turns are.
 * It refuses words outside the codec's vocabulary: a model must never be fed something that it was not trained with.
 */
import { RatchetError } from '../core/errors.ts';
import type { Episode } from '../core/nouns.ts';
import type { Codec } from '../environments/environment.ts';

/** A codec with its vocabulary numbered. */
export class Tokens {
  readonly codec: Codec;
  readonly size: number;
  readonly #ids: Map<string, number>;
  readonly #commands = new Map<string, number[]>();

  constructor(codec: Codec) {
    this.codec = codec;
    this.size = codec.vocabulary.length;
    this.#ids = new Map(codec.vocabulary.map((token, id) => [token, id]));
  }

  start(instruction: string, introduction: string): number[] {
    return this.#numbered(this.codec.start(instruction, introduction));
  }

  command(command: string): number[] {
    let ids = this.#commands.get(command);
    if (!ids) {
      ids = this.#numbered(this.codec.command(command));
      this.#commands.set(command, ids);
    }
    return ids;
  }

  feedback(command: string, observation: string): number[] {
    return this.#numbered(this.codec.feedback(command, observation));
  }

  #numbered(words: string[]): number[] {
    return words.map((word) => {
      const id = this.#ids.get(word);
      if (id === undefined)
        throw new RatchetError('BadInput', `codec ${this.codec.version}: the token ${JSON.stringify(word)} is not in its vocabulary`);
      return id;
    });
  }
}

/** An episode as tokens. `ids[decisions[t]]` is the decision token of turn t; `ids[actionEnds[t]]` the last token of its command. */
export interface EncodedEpisode {
  ids: number[];
  decisions: number[];
  actionEnds: number[];
}

/** Encodes the first `turns` turns (all by default); the sequence ends with the last of these commands. */
export function encodeEpisode(
  tokens: Tokens,
  episode: Pick<Episode, 'instruction' | 'turns'>,
  turns = episode.turns.length,
): EncodedEpisode {
  const encoded: EncodedEpisode = { ids: [], decisions: [], actionEnds: [] };
  for (let t = 0; t < turns; t++) {
    const turn = episode.turns[t];
    if (!turn) throw new RangeError(`encodeEpisode: the episode has ${episode.turns.length} turns, not ${turns}`);
    const before = episode.turns[t - 1];
    const seen = before ? tokens.feedback(before.action, turn.observation) : tokens.start(episode.instruction, turn.observation);
    for (const id of seen) encoded.ids.push(id);
    encoded.decisions.push(encoded.ids.length - 1);
    for (const id of tokens.command(turn.action)) encoded.ids.push(id);
    encoded.actionEnds.push(encoded.ids.length - 1);
  }
  return encoded;
}
