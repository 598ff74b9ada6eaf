/**
 * Where one run of the chaos harness happens: a fresh folder with its own ports, `ratchet start` in it as a user runs it, and the servers either its own
 * or elsewhere behind proxies. It knows how to look at the processes and to take everything down; what is hurt, and when, it does not know.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { endpointEnvironment, ensureServers, serversStatus, type Servers } from '../../infra/servers.ts';
import { LOOPBACK } from '../../infra/ports.ts';
import { identify, type ProcessIdentity } from '../../infra/processes.ts';
import { bareEnvironment, cli, kill, pidsWith, strikeEnvironment, type Started } from '../support/loop.ts';
import type { Strike } from '../support/strike-at.ts';
import { s3Proxy, tcpProxy, type S3Proxy, type TcpProxy } from './proxies.ts';
import type { Setting } from './plan.ts';

/** The disk of the S3 server where it is to become full: room for a hundred runs of the smallest scale. */
const DISK_BYTES = 256 << 20;
/** From SIGKILL until the kernel has removed every process of a tree. */
const GONE_BOUND_MS = 15_000;
const POLL_MS = 20;

export interface SiteOptions {
  setting: Setting;
  scale: string;
  checkpointMs: number | null;
  strikes: Strike[];
  /** Whether the S3 server's disk is to have a size; whether the clock is to jump. */
  smallDisk: boolean;
  movableClock: boolean;
  /** After so long the run is given up, in milliseconds. */
  boundMs: number;
  signal: AbortSignal;
}

export class Site {
  /** Everything of the run lies below: whatever has it in its environment or arguments belongs to the run. */
  readonly root: string;
  readonly home: string;
  /** Folder of strikes and of the log. */
  readonly strikes: string;
  s3: S3Proxy | null = null;
  temporal: TcpProxy | null = null;
  /** All that the CLI has said. */
  output = '';
  readonly #options: SiteOptions;
  #servers: Servers | null = null;
  #env: Record<string, string> = {};
  #mounted: string | null = null;

  static async open(options: SiteOptions): Promise<Site> {
    const site = new Site(options);
    try {
      await site.#prepare();
    } catch (error) {
      await site.close(false);
      throw error;
    }
    return site;
  }

  private constructor(options: SiteOptions) {
    this.#options = options;
    this.root = mkdtempSync(join(tmpdir(), 'ratchet-chaos-'));
    this.home = join(this.root, 'home');
    this.strikes = join(this.root, 'strikes');
  }

  async #prepare(): Promise<void> {
    const { setting, strikes, smallDisk, movableClock, checkpointMs, signal } = this.#options;
    this.#env = strikeEnvironment(this.strikes, strikes, movableClock);
    if (checkpointMs !== null) this.#env['RATCHET_CHECKPOINT_INTERVAL_MS'] = String(checkpointMs);
    if (setting === 'servers elsewhere') {
      const home = join(this.root, 'servers');
      this.#servers = await ensureServers({ home, onProgress: () => {}, env: bareEnvironment({ path: home }), signal });
      const { temporal, s3 } = this.#servers.endpoints;
      this.temporal = await tcpProxy(portOf(temporal.address));
      this.s3 = await s3Proxy(portOf(s3.endpoint as string));
      const through = {
        temporal: { ...temporal, address: `${LOOPBACK}:${this.temporal.port}`, uiUrl: null },
        s3: { ...s3, endpoint: `http://${LOOPBACK}:${this.s3.port}` },
      };
      Object.assign(this.#env, endpointEnvironment(through), { RATCHET_TEST_SERVERS: home });
    }
    if (smallDisk) this.#mounted = mountDisk(join(this.home, 's3'));
  }

  get disk(): string | null {
    return this.#mounted;
  }

  start(): Started {
    return this.run(['start', '--recipe', 'agentprm-household', '--scale', this.#options.scale, '--seed', '1', '--id', 'run']);
  }

  /** A command as a user gives it, under the strikes; its output is kept. */
  run(args: string[], home = this.home): Started {
    return cli({ path: home }, args, this.#env, this.#options.boundMs);
  }

  /** The same without strikes: to look at what came out. */
  look(args: string[]): Started {
    const { NODE_OPTIONS: _, RATCHET_TEST_STRIKES: __, ...env } = this.#env;
    return cli({ path: this.home }, args, env, this.#options.boundMs);
  }

  /** How a command ended. Throws the signal's reason when the harness is interrupted meanwhile. */
  async ended({ exited }: Started): Started['exited'] {
    const { signal } = this.#options;
    signal.throwIfAborted();
    const interrupted = Promise.withResolvers<never>();
    const abort = () => interrupted.reject(signal.reason);
    signal.addEventListener('abort', abort);
    try {
      return await Promise.race([exited, interrupted.promise]);
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  /** The process that keeps the servers and workers up. */
  async host(): Promise<ProcessIdentity | null> {
    const path = join(this.home, 'host.json');
    return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as { process: ProcessIdentity }).process : null;
  }

  async serverOf(name: 'temporal' | 's3'): Promise<ProcessIdentity | null> {
    const home = this.#servers ? join(this.root, 'servers') : this.home;
    const { pid } = (await serversStatus(home, bareEnvironment({ path: home })))[name];
    return pid === null ? null : identify(pid);
  }

  /** SIGKILL to every process of this machine's part of the run. */
  killTree(): Promise<void> {
    return killAll(this.home);
  }

  /** Ends everything. Returns what had been left behind by the run; `keep` leaves the folder for a look. */
  async close(keep: boolean): Promise<string[]> {
    await this.s3?.close();
    await this.temporal?.close();
    await this.#servers?.stop();
    const left = pidsWith(this.root).map((pid) => `${pid}: ${commandOf(pid)}`);
    await killAll(this.root);
    if (this.#mounted) spawnSync('umount', ['--lazy', this.#mounted]);
    this.#mounted = null;
    if (!keep) rmSync(this.root, { recursive: true, force: true, maxRetries: 5 });
    return left;
  }
}

/** SIGKILL to every process with this path in its environment or arguments, until none is left: one may be born while its parent dies. */
async function killAll(path: string): Promise<void> {
  const deadline = performance.now() + GONE_BOUND_MS;
  for (let left = pidsWith(path); left.length > 0; left = pidsWith(path)) {
    for (const pid of left) kill(pid);
    if (performance.now() > deadline) throw new Error(`processes ${left.join(', ')} are still there ${GONE_BOUND_MS} ms after SIGKILL`);
    await delay(POLL_MS);
  }
}

function portOf(address: string): number {
  return Number(/:(\d+)$/.exec(address)?.[1]);
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim();
  } catch {
    return 'gone by now';
  }
}

/** Why a file system of fixed size cannot be mounted here; null where it can. */
export function whyNoMount(): string | null {
  const folder = mkdtempSync(join(tmpdir(), 'ratchet-chaos-mount-'));
  const { status, stderr, error } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder], { encoding: 'utf8' });
  if (status === 0) spawnSync('umount', [folder]);
  rmSync(folder, { recursive: true, force: true });
  return status === 0 ? null : (error?.message ?? stderr.trim());
}

function mountDisk(folder: string): string {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES},mode=0700`, 'tmpfs', folder], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`a tmpfs cannot be mounted at ${folder}: ${stderr.trim()}`);
  return folder;
}
