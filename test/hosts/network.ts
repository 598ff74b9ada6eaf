/** Several hosts on one machine (Linux, as root): network namespaces on a switch, each with an address, a host name and a link that can be cut. */
import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess, SpawnOptions } from 'node:child_process';

export interface Network {
  addressOf(host: string): string;
  /** Starts a program at a host. The process is the program itself, so it can be signalled. */
  start(host: string, command: readonly string[], options: SpawnOptions): ChildProcess;
  /** Takes a host off the network, or puts it back. Its connections learn of neither. */
  link(host: string, up: boolean): void;
  remove(): void;
}

const ip = (...args: string[]): void => void execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });

/** Why this machine has no network namespaces to give; null where it has. */
export function refusal(): string | null {
  const name = `ratchet-try-${process.pid}`;
  try {
    ip('netns', 'add', name);
    ip('netns', 'del', name);
    return null;
  } catch (error) {
    return `network namespaces are not permitted here: ${String((error as { stderr?: Buffer }).stderr ?? error).trim()}`;
  }
}

export function makeNetwork(hosts: readonly string[]): Network {
  const made: string[] = [];
  const namespace = (host: string): string => `ratchet-${process.pid}-${host}`;
  const add = (host: string): void => {
    ip('netns', 'add', namespace(host));
    made.push(namespace(host));
    ip('-n', namespace(host), 'link', 'set', 'lo', 'up');
  };
  const addressOf = (host: string): string => `10.77.0.${hosts.indexOf(host) + 1}`;
  const remove = (): void => made.splice(0).forEach((name) => ip('netns', 'del', name));
  try {
    add('switch');
    const at = ['-n', namespace('switch')];
    ip(...at, 'link', 'add', 'bridge', 'type', 'bridge');
    ip(...at, 'link', 'set', 'bridge', 'up');
    for (const host of hosts) {
      add(host);
      ip(...at, 'link', 'add', `to-${host}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace(host));
      ip(...at, 'link', 'set', `to-${host}`, 'master', 'bridge', 'up');
      ip('-n', namespace(host), 'addr', 'add', `${addressOf(host)}/24`, 'dev', 'eth0');
      ip('-n', namespace(host), 'link', 'set', 'eth0', 'up');
    }
  } catch (error) {
    remove();
    throw error;
  }
  return {
    addressOf,
    start: (host, command, options) =>
      // Workers call themselves by the host's name: each has its own.
      spawn(
        'ip',
        ['netns', 'exec', namespace(host), 'unshare', '--uts', 'sh', '-c', 'hostname "$0"; exec "$@"', host, ...command],
        options,
      ),
    link: (host, up) => ip('-n', namespace('switch'), 'link', 'set', `to-${host}`, up ? 'up' : 'down'),
    remove,
  };
}
