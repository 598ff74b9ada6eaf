/** `ratchet episodes <run>`: what the agent did, turn by turn, with the reward model's score of every step. */
import { Command } from 'commander';
import { requireBulk } from '../../artifacts/retention.ts';
import { chooseEpisodes, SOURCES, type Source } from '../episodes.ts';
import { scoreEpisodes } from '../scores.ts';
import { badInput } from '../../core/errors.ts';
import { nearest } from '../../core/nearest.ts';
import type { Episode } from '../../core/nouns.ts';
import { plural, short } from '../format.ts';
import { wholeNumber } from '../options.ts';
import { print, printJson } from '../output.ts';
import { requireRecords } from '../runs.ts';
import { withSession } from '../session.ts';

interface EpisodesOptions {
  iteration?: string;
  of?: string;
  strategy?: string;
  task?: string;
  family?: string;
  outcome?: string;
  limit: string;
  json?: boolean;
}

export function episodesCommand(): Command {
  return new Command('episodes')
    .description("what the agent did, with the reward model's score of every step")
    .argument('<run>', 'run id, see `ratchet ls`')
    .option('--iteration <k>', 'which iteration; the newest closed one if absent')
    .option('--of <source>', `which episodes: ${SOURCES.join(', ')}; those of the collection if absent`)
    .option('--strategy <name>', 'of a panel: which decision strategy, e.g. greedy')
    .option('--task <id>', 'only this task')
    .option('--family <family>', 'only this task family')
    .option('--outcome <0|1>', 'only solved (1) or unsolved (0) ones')
    .option('--limit <n>', 'at most so many', '3')
    .option('--json', 'as JSON')
    .action(async (runId: string, options: EpisodesOptions) => {
      const source = sourceOf(options.of);
      const limit = wholeNumber('--limit', options.limit) as number;
      const iteration = wholeNumber('--iteration', options.iteration);
      const outcome = wholeNumber('--outcome', options.outcome);
      if (outcome !== undefined && outcome > 1) throw badInput('--outcome', outcome, '0 or 1');
      await withSession({ borrow: true }, async ({ store }) => {
        const records = await requireRecords(store, runId);
        await requireBulk(store, runId);
        const chosen = await chooseEpisodes(store, runId, records, { source, iteration, strategy: options.strategy });
        const wanted = chosen.episodes.filter(
          (episode) =>
            (options.task === undefined || episode.task === options.task) &&
            (options.family === undefined || episode.family === options.family) &&
            (outcome === undefined || (episode.ending.kind === 'completed' && episode.outcome === outcome)),
        );
        const shown = wanted.slice(0, limit);
        const scores = await scoreEpisodes(store, records.genesis.recipe.environment.name, chosen.rewardModel, shown);
        if (json(options)) {
          const withScores = shown.map((episode, i) => ({ ...episode, scores: scores?.[i] ?? null }));
          return printJson({
            run: runId,
            iteration: chosen.iteration,
            of: chosen.name,
            rewardModel: chosen.rewardModel?.sha256 ?? null,
            found: wanted.length,
            episodes: withScores,
          });
        }
        print(`${runId}, iteration ${chosen.iteration}, ${chosen.name}: ${plural(wanted.length, 'episode')}, ${shown.length} shown`);
        print(
          chosen.rewardModel
            ? `scores: Q of reward model ${short(chosen.rewardModel.sha256)}, in [0, 1]`
            : 'no scores: no reward model was fitted yet',
        );
        shown.forEach((episode, i) => print('', ...transcript(episode, scores?.[i] ?? null)));
      });
    });
}

const json = (options: EpisodesOptions): boolean => options.json === true;

function sourceOf(text: string | undefined): Source | null {
  if (text === undefined) return null;
  const source = SOURCES.find((each) => each === text);
  if (source) return source;
  throw badInput('--of', text, `did you mean ${nearest(text, SOURCES)}? The sources are ${SOURCES.join(', ')}`);
}

/** An episode as text. `scores`: one per turn, absent where the reward model cannot read so far. Exported for tests. */
export function transcript(episode: Episode, scores: (number | null)[] | null): string[] {
  const { ending } = episode;
  const end = ending.kind === 'completed' ? (episode.outcome === 1 ? 'solved' : 'not solved') : `${ending.kind}: ${ending.reason}`;
  const lines = [`${episode.id}  (${episode.family})  ${end} in ${plural(episode.turns.length, 'turn')}`, `task: ${episode.instruction}`];
  episode.turns.forEach((turn, i) => {
    const score = scores?.[i];
    const q = score === null || score === undefined ? '' : `   Q ${score.toFixed(3)}`;
    const p = turn.logProbability === 0 ? '' : `   p ${Math.exp(turn.logProbability).toFixed(2)}`;
    lines.push(...turn.observation.split(/\n+/).map((line) => `      ${line}`), `${String(i + 1).padStart(3)} > ${turn.action}${q}${p}`);
  });
  return lines;
}
