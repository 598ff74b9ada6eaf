/** Measures the household world on one core: speed of play and of making games, sizes of episodes, success of the scripted agents per family. */
import { Random } from '../core/random.ts';
import type { ScriptedAgent } from '../environments/environment.ts';
import { worldNamed } from '../environments/registry.ts';
import { timed } from './cpu-time.ts';

const world = worldNamed('household');
const { codec } = world;

function speed(): void {
  const random = new Random(['bench', 'household']);
  const playRandomly = (ids: readonly string[]): number => {
    let steps = 0;
    for (const id of ids) {
      const environment = world.open(id);
      for (; !environment.done; steps++) environment.step(random.pick(environment.admissible));
    }
    return steps;
  };
  const made = timed(() => world.tasks('train', 0, 3000));
  console.log(`task with digest            ${((made.seconds / 3000) * 1000).toFixed(3)} ms`);
  const ids = made.result.map((task) => task.id);
  playRandomly(ids.slice(0, 500));
  const opened = timed(() => ids.slice(500, 1000).forEach((id) => world.open(id)));
  console.log(`open                        ${((opened.seconds / 500) * 1000).toFixed(3)} ms`);
  const fresh = timed(() => playRandomly(ids.slice(1000, 2000)));
  console.log(`random play, fresh games    ${Math.round(fresh.result / fresh.seconds)} steps/s, opening included`);
  const few = ids.slice(2000, 2050);
  playRandomly(few);
  const again = timed(() => Array.from({ length: 20 }, () => playRandomly(few)).reduce((a, b) => a + b, 0));
  console.log(`random play, known games    ${Math.round(again.result / again.seconds)} steps/s`);
  const environment = world.open(few[0] as string);
  const branched = timed(() => {
    for (let i = 0; i < 1e6; i++) environment.restore(environment.snapshot());
  });
  console.log(`snapshot + restore          ${branched.seconds.toFixed(3)} microseconds`);
}

function rates(name: string, role: 'train' | 'unseen', count: number, agentOf: (id: string) => ScriptedAgent): void {
  const wins = new Map<string, number[]>();
  let [turns, commands, tokens] = [0, 0, 0];
  for (const { id, family } of world.tasks(role, 0, count)) {
    const environment = world.open(id);
    const agent = agentOf(id);
    tokens += codec.start(environment.instruction, environment.observation).length;
    while (!environment.done) {
      const command = agent.act(environment);
      if (command === null) break;
      commands += environment.admissible.length;
      environment.step(command);
      tokens += codec.command(command).length + codec.feedback(command, environment.observation).length;
      turns++;
    }
    wins.set(family, [...(wins.get(family) ?? []), environment.outcome]);
  }
  const percent = (outcomes: readonly number[]): string => ((100 * outcomes.reduce((a, b) => a + b, 0)) / outcomes.length).toFixed(1);
  const families = [...wins].map(([family, outcomes]) => `${family} ${percent(outcomes)}`).join(', ');
  console.log(
    `${name}: ${percent([...wins.values()].flat())} % (${families}); ${(turns / count).toFixed(1)} turns, ${(tokens / count).toFixed(1)} tokens, ` +
      `${(tokens / turns).toFixed(2)} tokens a turn, ${(commands / turns).toFixed(1)} commands a turn`,
  );
}

console.log(`vocabulary                  ${codec.vocabulary.length}`);
speed();
rates('expert, train', 'train', 3000, (id) => world.expert(id));
rates('expert, unseen', 'unseen', 3000, (id) => world.expert(id));
for (const habits of [0, 0.5, 0.8, 1])
  rates(`demonstrator, habits ${habits}, noise 0.05`, 'train', 3000, (id) => world.demonstrator(id, ['bench'], { habits, noise: 0.05 }));
