/** Processor time of this process: the machine may be shared, so wall time would say how busy it is. */
export function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

export function timed<T>(work: () => T): { result: T; seconds: number } {
  const start = cpuSeconds();
  const result = work();
  return { result, seconds: cpuSeconds() - start };
}
