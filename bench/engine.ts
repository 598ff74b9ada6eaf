/**
 * Measures the household engine on one core, on genuine games where they are (see `alfworld/games.ts`), else on generated ones: loading, random play with text
 * and commands at each step, snapshots, digests, and the memory of games, of live episodes and of kept moments. `alfworld/compare.ts` compares with TextWorld.
 */
import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Random } from '../core/random.ts';
import { HouseholdEnvironment } from '../environments/household/engine/environment.ts';
import { loadGame } from '../environments/household/engine/game.ts';
import type { Game } from '../environments/household/engine/game.ts';
import { readGameFile } from '../environments/household/game-file.ts';
import { gameFiles } from './alfworld/games.ts';
import { timed } from './cpu-time.ts';

const GAMES = 36;
/** An episode of ALFWorld, as `base_config.yaml` caps it; random play hardly ever ends sooner. */
const EPISODE = 50;
/** Live at a time, for the memory that one takes. */
const LIVE = 5000;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
/** Bytes of the heap and outside it that are in use. */
function memory(): number {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

const random = new Random(['bench', 'engine']);
function episode(game: Game): HouseholdEnvironment {
  const environment = new HouseholdEnvironment(game, { turnCap: EPISODE });
  while (!environment.done) environment.step(random.pick(environment.admissible));
  return environment;
}
const say = (what: string, value: string): void => console.log(`${what.padEnd(36)}${value}`);

const { kind, files } = gameFiles(GAMES);
const texts = files.map((file) => readFileSync(file, 'utf8'));
const loadAll = (): Game[] => texts.map((text, i) => loadGame(readGameFile(text, 'bench'), { id: String(i) }));
say('games', `${texts.length}, ${kind}`);
say(
  'load, the first game',
  `${(timed(() => loadGame(readGameFile(texts[0] as string, 'bench'), { id: '0' })).seconds * 1000).toFixed(1)} ms`,
);
loadAll();
const before = memory();
const loaded = timed(loadAll);
const games = loaded.result;
say('load, each', `${((1000 * loaded.seconds) / games.length).toFixed(2)} ms, ${((memory() - before) / games.length / 1e6).toFixed(2)} MB`);
const first = timed(() => games.map((game) => episode(game).turn).reduce((a, b) => a + b, 0));
say('first episode of each', `${Math.round(first.result / first.seconds)} steps/s`);
for (let i = 0; i < 40; i++) games.forEach(episode);
const known = timed(() =>
  Array.from({ length: 40 }, () => games.map((game) => episode(game).turn))
    .flat()
    .reduce((a, b) => a + b, 0),
);
say('further episodes', `${Math.round(known.result / known.seconds)} steps/s`);
say('a game after 81 episodes', `${((memory() - before) / games.length / 1e6).toFixed(2)} MB`);

const [environment] = games.map(episode);
if (environment === undefined) throw new Error('there is no game');
const nanoseconds: number[] = [];
for (let i = 0; i < 100_000; i++) {
  const start = process.hrtime.bigint();
  environment.restore(environment.snapshot());
  nanoseconds.push(Number(process.hrtime.bigint() - start));
}
say('snapshot + restore, median', `${(nanoseconds.sort((a, b) => a - b)[50_000] as number) / 1000} microseconds`);
say('state digest', `${timed(() => Array.from({ length: 10_000 }, () => environment.stateDigest)).seconds * 100} microseconds`);

const empty = memory();
const live = Array.from({ length: LIVE }, (_, i) => episode(games[i % games.length] as Game));
say('a live episode at its last turn', `${((memory() - empty) / live.length / 1000).toFixed(1)} KB (${live.length} live)`);
