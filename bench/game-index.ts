/**
 * Indexes a folder of 10,000 game files in ALFWorld's layout (generated games, each with bytes of its own), first from nothing and then with the cache.
 * `node bench/game-index.ts`
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { indexGames } from '../environments/household/game-index.ts';
import { bytesOf, gameFileOf } from '../environments/household/game-writer.ts';
import { homeOf } from '../environments/household/generator.ts';
import { worldNamed } from '../environments/registry.ts';
import { timed } from './cpu-time.ts';

const GAMES = 10_000;
/** Distinct games; the others differ from them in one number, as making games takes longer than indexing them. */
const DISTINCT = 60;
const folder = mkdtempSync(join(tmpdir(), 'ratchet-index-'));
try {
  const texts = worldNamed('household')
    .tasks('train', 0, DISTINCT, 'generated-large')
    .map(({ id }) => Buffer.from(bytesOf(gameFileOf(homeOf(id)))).toString());
  let bytes = 0;
  for (let i = 0; i < GAMES; i++) {
    const split = i % 20 < 18 ? 'train' : i % 2 === 0 ? 'valid_seen' : 'valid_unseen';
    const trial = join(folder, 'json_2.1.1', split, `pick_and_place_simple-Mug-None-Shelf-${i % DISTINCT}`, `trial_${i}`);
    mkdirSync(trial, { recursive: true });
    const text = (texts[i % DISTINCT] as string).trimEnd().replace(/\}$/, `, "number": ${i}}`);
    bytes += text.length;
    writeFileSync(join(trial, 'game.tw-pddl'), text);
  }
  console.log(`${GAMES} games, ${(bytes / 1e6).toFixed(0)} MB`);
  for (const what of ['from nothing', 'nothing changed', 'again']) {
    const began = performance.now();
    const { result, seconds } = timed(() => indexGames(folder, { cacheFolder: join(folder, 'cache') }));
    const { games, filesRead, sha256 } = result;
    const wall = ((performance.now() - began) / 1000).toFixed(2);
    console.log(
      `${what.padEnd(16)} ${games.length} games, ${filesRead} files read, ${seconds.toFixed(2)} s of CPU, ${wall} s; ${sha256.slice(0, 12)}`,
    );
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
