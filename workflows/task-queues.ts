/**
 * Names of the task queues: one per resource within a fleet. A fleet is the workers that serve one installation; two fleets on one Temporal namespace
 * never take each other's work. A run finds the queues of its own fleet by the name of the queue that it runs on.
 */
import type { Queue } from '../activities/stage.ts';

export const QUEUES: readonly Queue[] = ['loop', 'cpu', 'gpu'];

/** The fleet's name where `RATCHET_FLEET` is not set. */
export const DEFAULT_FLEET = 'ratchet';

/** For example `ratchet-gpu`. Workflows are started on the `loop` queue. */
export function taskQueue(queue: Queue, fleet: string = DEFAULT_FLEET): string {
  return `${fleet}-${queue}`;
}

/** The queue of another resource in the fleet that `name` belongs to. */
export function siblingQueue(name: string, queue: Queue): string {
  const end = name.lastIndexOf('-');
  return taskQueue(queue, end < 0 ? name : name.slice(0, end));
}
