/** What the tokens of a codec have in common, for factored embeddings: what is learnt of one mug helps with every mug. */
import type { Codec } from './environment.ts';

const NUMBERED = /^(.+)_(\d+)$/;

/**
 * For each vocabulary entry the features that its embedding is the sum of, numbered from 0 without gaps. A numbered entity `mug_1` has three: its
 * kind (the feature of the plain token `mug`), its number (shared by all entities numbered 1) and its own. Any other token has one, its own.
 */
export function tokenFactors(codec: Codec): number[][] {
  const features = new Map<string, number>();
  const feature = (name: string): number => {
    if (!features.has(name)) features.set(name, features.size);
    return features.get(name) as number;
  };
  return codec.vocabulary.map((token) => {
    const numbered = NUMBERED.exec(token);
    if (numbered === null) return [feature(`token ${token}`)];
    return [feature(`token ${numbered[1]}`), feature(`number ${numbered[2]}`), feature(`token ${token}`)];
  });
}
