/**
 * Many clients at once against `ratchet serve`: what is lost, how long answers take, and what sharing the batch is worth over one client alone.
 * `node bench/model-server/load.ts [--size s|m] [--clients 64] [--seconds 60] [--tokens 32] [--rows 64] [--alone 10] [--out FILE]`. Prints JSON, and ends
 * with 1 if anything was lost, cut short, or left in flight.
 */
import { parseArgs } from 'node:util';
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import OpenAI from 'openai';
import { Random } from '../../core/random.ts';
import { withServer, type Size } from './server.ts';

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: 's' },
    clients: { type: 'string', default: '64' },
    seconds: { type: 'string', default: '60' },
    tokens: { type: 'string', default: '32' },
    rows: { type: 'string', default: '64' },
    /** Seconds of one client by itself, for comparison. */
    alone: { type: 'string', default: '10' },
    /** Where the JSON is written, too; what is known so far, if the run breaks off. */
    out: { type: 'string' },
  },
});
const [clients, seconds, tokens] = [values.clients, values.seconds, values.tokens].map(Number) as [number, number, number];
const WORDS = ['the', 'policy', 'reward', 'model', 'is', 'kept', 'in', 'a', 'store', 'and', 'every', 'run', 'goes', 'on', 'after', 'it'];

interface Answer {
  firstMs: number;
  ms: number;
  tokens: number;
}

function quantiles(values: number[]) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (q: number) => Math.round((sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? NaN) * 10) / 10;
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) };
}

/** `count` clients ask one after another for some seconds, streaming and whole in turn, prompts of 5 to 100 words. */
async function load(url: string, pid: number, count: number, forSeconds: number) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });
  const answers: Answer[] = [];
  const failures: string[] = [];
  let asked = 0;
  const cpuBefore = cpuSeconds(pid);
  const started = performance.now();
  const deadline = started + forSeconds * 1000;
  await Promise.all(
    Array.from({ length: count }, async (_, who) => {
      const random = new Random(['load', who]);
      for (let turn = 0; performance.now() < deadline; turn++) {
        const prompt = Array.from({ length: 5 + random.below(96) }, () => random.pick(WORDS)).join(' ');
        const ask = { model: 'policy', prompt, max_tokens: tokens, seed: turn, ignore_eos: true };
        asked++;
        const begin = performance.now();
        try {
          if ((who + turn) % 2 === 0) {
            const answer = await client.completions.create(ask);
            const ms = performance.now() - begin;
            answers.push({ firstMs: NaN, ms, tokens: answer.usage!.completion_tokens });
          } else {
            let first = NaN;
            let told = 0;
            for await (const part of await client.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
              if (Number.isNaN(first)) first = performance.now() - begin;
              told = part.usage?.completion_tokens ?? told;
            }
            answers.push({ firstMs: first, ms: performance.now() - begin, tokens: told });
          }
        } catch (error) {
          failures.push(String(error));
        }
      }
    }),
  );
  const elapsed = (performance.now() - started) / 1000;
  const total = answers.reduce((sum, answer) => sum + answer.tokens, 0);
  return {
    clients: count,
    seconds: Math.round(elapsed * 10) / 10,
    asked,
    answered: answers.length,
    lost: asked - answers.length,
    short: answers.filter((answer) => answer.tokens !== tokens).length,
    failures: [...new Set(failures)].slice(0, 3),
    tokensPerSecond: Math.round(total / elapsed),
    /** Of all the server's processes; prompts are read for it as well. */
    tokensPerCpuSecond: Math.round(total / (cpuSeconds(pid) - cpuBefore)),
    answerMs: quantiles(answers.map(({ ms }) => ms)),
    firstTokenMs: quantiles(answers.map(({ firstMs }) => firstMs).filter((ms) => !Number.isNaN(ms))),
  };
}

/** Processor time that a process and all below it have used, in seconds (Linux). */
function cpuSeconds(pid: number): number {
  const read = (path: string) => {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return ''; // it has ended
    }
  };
  const fields = read(`/proc/${pid}/stat`).split(') ').at(-1)!.split(' ');
  const children = read(`/proc/${pid}/task/${pid}/children`).split(' ').filter(Boolean).map(Number);
  // Fields 14 and 15 of proc(5), in ticks of 10 ms.
  const own = (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / 100;
  return children.reduce((sum, child) => sum + cpuSeconds(child), own);
}

/** How long `/health` takes meanwhile, or NaN: whether the HTTP process stays responsive. */
async function health(url: string, running: () => boolean): Promise<number[]> {
  const took: number[] = [];
  while (running()) {
    const begin = performance.now();
    const answered = await fetch(`${url}/health`).then(
      (answer) => answer.text().then(() => answer.ok),
      () => false,
    );
    took.push(answered ? performance.now() - begin : NaN);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return took;
}

const machine = { cpu: cpus()[0]!.model, cores: cpus().length, node: process.version, loadBefore: loadavg()[0]! };
function keep(found: Record<string, unknown>): string {
  const about = { size: values.size, rows: Number(values.rows), tokens, machine };
  const text = JSON.stringify({ ...about, ...found }, null, 2);
  if (values.out !== undefined) writeFileSync(values.out, `${text}\n`);
  return text;
}

await withServer(values.size as Size, ['--rows', values.rows], async (url, pid) => {
  await load(url, pid, 2, 1);
  const alone = await load(url, pid, 1, Number(values.alone));
  keep({ alone });
  let running = true;
  const pinged = health(url, () => running);
  const together = await load(url, pid, clients, seconds);
  running = false;
  const pings = await pinged;
  const [healthMs, healthFailed] = [quantiles(pings.filter((ms) => !Number.isNaN(ms))), pings.filter(Number.isNaN).length];
  keep({ alone, together, healthMs, healthFailed });
  const metrics = await (await fetch(`${url}/metrics`)).text();
  const restarts = Number(/^ratchet_engine_restarts (\d+)/m.exec(metrics)?.[1]);
  const inFlight = Number(/^ratchet_sequences_in_flight (\d+)/m.exec(metrics)?.[1]);
  const ratio = (field: 'tokensPerSecond' | 'tokensPerCpuSecond') => Math.round((together[field] / alone[field]) * 100) / 100;
  const gain = { tokensPerSecond: ratio('tokensPerSecond'), tokensPerCpuSecond: ratio('tokensPerCpuSecond') };
  console.log(keep({ alone, together, gain, healthMs, healthFailed, restarts, inFlight }));
  if (together.lost > 0 || together.short > 0 || inFlight > 0 || healthFailed > 0) process.exitCode = 1;
});
