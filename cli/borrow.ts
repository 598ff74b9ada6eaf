/**
 * Servers of this machine for the time of one command, where nothing keeps them up: a run can be looked at any time. They end with the last command
 * that borrows them, also where a signal ends it. It refuses to stay silent while somebody waits for them.
 */
import { ensureServers, type Servers } from '../infra/servers.ts';
import { preparing } from './live/preparing.ts';
import { ENDING_SIGNALS } from './signals.ts';

export interface Borrowed {
  servers: Servers;
  /** Ends the servers, unless somebody else uses them by now. */
  end(): Promise<void>;
  /** Does the work; what it fails of because a signal has ended its servers is not told. */
  during<T>(work: Promise<T>): Promise<T>;
}

/** Throws Unavailable with what was tried. */
export async function borrowServers(home: string): Promise<Borrowed> {
  const interruption = new AbortController();
  const { signal } = interruption;
  const display = preparing();
  display.onProgress({ step: 'servers', detail: 'Temporal and the S3 server, for the time of this command' });
  const starting = ensureServers({ home, borrow: true, onProgress: display.onProgress, signal }).finally(() => display.end());
  // Once is enough: a server that does not end when asked is killed soon after.
  const onSignal = (name: NodeJS.Signals) => {
    if (signal.aborted) return;
    interruption.abort();
    // A failed start has ended what it started.
    void starting.then(
      (servers) => servers.stop().finally(() => endBy(name)),
      () => endBy(name),
    );
  };
  const forget = () => {
    for (const name of ENDING_SIGNALS) process.off(name, onSignal);
  };
  for (const name of ENDING_SIGNALS) process.on(name, onSignal);
  const during = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      if (!signal.aborted) throw error;
      return new Promise(() => {});
    }
  };
  const servers = await during(starting).catch((error: unknown) => {
    forget();
    throw error;
  });
  return {
    servers,
    during,
    async end() {
      await servers.stop();
      if (!signal.aborted) forget();
    },
  };
}

/** As the signal would have ended a command that listens to none; where the reader of standard output has gone, `main.ts` has said that this is no failure. */
function endBy(name: NodeJS.Signals): void {
  if (process.exitCode === 0) process.exit();
  process.removeAllListeners(name);
  process.kill(process.pid, name);
}
