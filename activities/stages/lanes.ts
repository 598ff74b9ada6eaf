/** How many compute lanes (single-threaded sessions side by side) a stage may use. Never changes what is computed. */
import { availableParallelism } from 'node:os';

/** `RATCHET_LANES`, else one per core. */
export function lanes(): number {
  const wanted = Number(process.env['RATCHET_LANES']);
  return Number.isInteger(wanted) && wanted > 0 ? wanted : availableParallelism();
}
