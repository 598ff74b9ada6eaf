/** The signals that ask a command to end: Ctrl-C, a service manager, a terminal that is closed. */
export const ENDING_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Resolves at the first signal that asks this process to end. Call it before anybody is told that there is something to end. */
export function untilAskedToEnd(): Promise<void> {
  return new Promise((resolve) => {
    for (const name of ENDING_SIGNALS) process.once(name, () => resolve());
  });
}
