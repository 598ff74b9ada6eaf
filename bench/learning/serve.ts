/** The other end of `peer.ts` for contestants in TypeScript: answers each order with what it measured. */
import { createInterface } from 'node:readline';
import type { Answer } from './peer.ts';

export type Order = { order: string } & Record<string, unknown>;

export async function serve(obey: (order: Order) => Promise<Record<string, unknown>>): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    const cpu = process.cpuUsage();
    const start = performance.now();
    const more = await obey(JSON.parse(line) as Order);
    const seconds = (performance.now() - start) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    const answer: Answer = { seconds, cpuSeconds: (user + system) / 1e6, peakBytes: process.resourceUsage().maxRSS * 1024, ...more };
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
}
