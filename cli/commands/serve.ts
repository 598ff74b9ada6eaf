/** `ratchet serve`: a policy, a reward model or both over HTTP, in the routes of OpenAI and vLLM, until Ctrl-C. */
import { Command } from 'commander';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { availableParallelism } from 'node:os';
import { badInput } from '../../core/errors.ts';
import { fetchServables } from '../servable.ts';
import { wholeNumber } from '../options.ts';
import { note, print } from '../output.ts';
import { ENDING_SIGNALS, untilAskedToEnd } from '../signals.ts';

/** `env serve` has 8000. */
const PORT = 8001;
const ROWS = 32;
const QUEUE = 256;

interface ServeCommandOptions {
  policy?: string;
  prm?: string;
  policyName?: string;
  prmName?: string;
  host: string;
  port: string;
  apiKeyFile?: string;
  rows: string;
  queue: string;
  context?: string;
  lanes?: string;
}

export function serveCommand(): Command {
  const what = 'a folder in the Hugging Face layout, a run (its newest), or <run>@<iteration>';
  return new Command('serve')
    .description('serve a policy and a reward model: /v1/completions, /v1/chat/completions, /classify, /score, /metrics, until Ctrl-C')
    .option('--policy <model>', what)
    .option('--prm <model>', `reward model: ${what}`)
    .option('--policy-name <name>', 'what clients call it; the name of the folder or <run>@<iteration> if absent')
    .option('--prm-name <name>', 'likewise')
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--port <n>', '0 takes a free one', String(PORT))
    .option('--api-key-file <file>', 'clients must send what is in it as a bearer token; the variable RATCHET_API_KEY does the same')
    .option('--rows <n>', 'sequences that are decoded at once', String(ROWS))
    .option('--queue <n>', 'sequences that may wait; what comes beyond is refused with status 429', String(QUEUE))
    .option('--context <n>', 'most tokens of a sequence; what the model reads if absent')
    .option('--lanes <n>', 'threads for arithmetic; one per processor if absent')
    .action(serveModels);
}

async function serveModels(options: ServeCommandOptions): Promise<void> {
  if (options.policy === undefined && options.prm === undefined) throw badInput('--policy', null, '--policy, --prm or both are needed');
  const number = (option: string, text: string) => wholeNumber(option, text) as number;
  const numbers = {
    port: number('--port', options.port),
    rows: number('--rows', options.rows),
    queue: number('--queue', options.queue),
    context: wholeNumber('--context', options.context),
    lanes: wholeNumber('--lanes', options.lanes) ?? availableParallelism(),
  };
  if (numbers.port > 65_535) throw badInput('--port', options.port, 'at most 65535');
  const apiKey = apiKeyOf(options.apiKeyFile);
  const { policy, rewardModel } = await fetchServables({
    policy: options.policy === undefined ? undefined : { source: options.policy, field: '--policy' },
    rewardModel: options.prm === undefined ? undefined : { source: options.prm, field: '--prm' },
  });
  // Only this command needs the server's libraries.
  const { startServer } = await import('../../learning/serve/server.ts');
  const server = await startServer({
    policy: policy?.folder,
    rewardModel: rewardModel?.folder,
    policyName: options.policyName ?? policy?.name,
    rewardModelName: options.prmName ?? rewardModel?.name,
    host: options.host,
    apiKey,
    ...numbers,
    onLine: (line) => note(`ratchet: ${line}`),
  });
  if (apiKey === null && !/^(127\.|localhost$|::1$)/.test(options.host))
    note(`ratchet: anybody who reaches ${options.host} can use this server; an API key (RATCHET_API_KEY) keeps others out`);
  const asked = untilAskedToEnd();
  print(`${server.served.join(' and ')} at ${server.url}`);
  await asked;
  note('ratchet: finishing what was asked; again to end at once');
  for (const name of ENDING_SIGNALS) process.once(name, () => void server.stop());
  await server.stop();
}

function apiKeyOf(file: string | undefined): string | null {
  if (file !== undefined && !existsSync(file)) throw badInput('--api-key-file', file, 'a file that exists');
  const key = (file === undefined ? (process.env['RATCHET_API_KEY'] ?? '') : readFileSync(file, 'utf8')).trim();
  if (key === '' && file !== undefined) throw badInput('--api-key-file', join(file), 'a file with a key in it');
  return key === '' ? null : key;
}
