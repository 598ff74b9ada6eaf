/** `ratchet games make`: writes generated games to a folder, in ALFWorld's format and layout. */
import { Command } from 'commander';
import { badInput } from '../../core/errors.ts';
import { nearest } from '../../core/nearest.ts';
import { makeGames, SPLIT_FOLDERS } from '../../environments/household/game-folder.ts';
import { HOMES, type Dials, type HomeSize, type Role } from '../../environments/household/generator.ts';
import { plural } from '../format.ts';
import { wholeNumber } from '../options.ts';
import { print, printJson } from '../output.ts';

interface Options {
  split: string;
  tasks: string;
  seed: string;
  homes: string;
  receptacles?: string;
  objects?: string;
  lookalikes?: string;
  spare?: string;
  noise?: string;
  json?: boolean;
}

export function gamesMakeCommand(): Command {
  return new Command('make')
    .description('write generated games to a folder, in the format and layout of ALFWorld data')
    .argument('<folder>', 'where to; the same options write the same bytes')
    .option(
      '--split <split>',
      `which games: ${Object.keys(SPLIT_FOLDERS).join(', ')}; unseen floor plans and pairings are in no other`,
      'train',
    )
    .option('--tasks <n>', 'how many', '10')
    .option('--seed <n>', 'the games of a run with this seed', '1')
    .option('--homes <size>', `how large homes are: ${Object.keys(HOMES).join(', ')}`, 'small')
    .option('--receptacles <least..most>', 'places to search, instead of those of the size')
    .option('--objects <least..most>', 'things that lie about')
    .option('--lookalikes <n>', 'distractors of the class of what is wanted')
    .option('--spare <share>', 'how often there is one more of the wanted kind than needed, 0 to 1')
    .option('--noise <share>', 'how often a thing lies where its kind usually does not, 0 to 1')
    .option('--json', 'as JSON')
    .action((folder: string, options: Options) => {
      const { split, homes } = options;
      const games = makeGames(folder, {
        role: oneOf('--split', split, Object.keys(SPLIT_FOLDERS)) as Role,
        tasks: wholeNumber('--tasks', options.tasks) as number,
        seed: wholeNumber('--seed', options.seed) as number,
        size: oneOf('--homes', homes, Object.keys(HOMES)) as HomeSize,
        dials: dialsOf(options),
      });
      if (options.json) return printJson(games);
      print(
        ...games.map(({ path }) => path),
        `${plural(games.length, 'game')} written to ${folder}; each was played to its end by its walkthrough`,
      );
    });
}

function dialsOf({ receptacles, objects, lookalikes, spare, noise }: Options): Partial<Dials> {
  return {
    ...(receptacles !== undefined && { receptacles: range('--receptacles', receptacles) }),
    ...(objects !== undefined && { objects: range('--objects', objects) }),
    ...(lookalikes !== undefined && { lookalikes: wholeNumber('--lookalikes', lookalikes) as number }),
    ...(spare !== undefined && { spare: share('--spare', spare) }),
    ...(noise !== undefined && { noise: share('--noise', noise) }),
  };
}

function oneOf(option: string, value: string, valid: string[]): string {
  if (valid.includes(value)) return value;
  throw badInput(option, value, `did you mean ${nearest(value, valid)}? It is one of ${valid.join(', ')}`);
}

function range(option: string, text: string): Dials['objects'] {
  const found = /^(\d+)(?:\.\.(\d+))?$/.exec(text);
  if (found === null) throw badInput(option, text, 'two whole numbers such as 9..15, or one');
  return { least: Number(found[1]), most: Number(found[2] ?? found[1]) };
}

function share(option: string, text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value <= 1)) throw badInput(option, text, 'a number from 0 to 1');
  return value;
}
