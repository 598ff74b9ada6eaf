/** `ratchet recipes`: the experiments that come with Ratchet. */
import { Command } from 'commander';
import { listRecipes } from '../../recipes/load.ts';
import { columns, print, printJson } from '../output.ts';
import { table } from '../table.ts';

export function recipesCommand(): Command {
  return new Command('recipes')
    .description('list the recipes that come with Ratchet')
    .option('--json', 'as JSON')
    .action(({ json }: { json?: boolean }) => {
      const recipes = listRecipes();
      if (json) return printJson(recipes);
      const rows = [
        { title: 'recipe', cell: ({ name }: (typeof recipes)[number]) => name },
        { title: 'scales', cell: ({ scales }: (typeof recipes)[number]) => scales.join(' ') },
        { title: 'method', cell: ({ method }: (typeof recipes)[number]) => method },
      ];
      print(
        ...table(rows, recipes, columns()),
        '',
        'Run one: npx ratchet run <recipe> --scale tiny. A path to a YAML file of your own is fine too.',
      );
    });
}
