/** Opens a lane on this process's execution provider and prints, as JSON, why that cannot be done; started by `diagnose.ts`. */
import { RatchetError } from '../core/errors.ts';
import { openLanes } from './lanes/lane.ts';

let refusal: string | null = null;
try {
  const lanes = await openLanes(1, (lane) => lane.ready());
  await Promise.all(lanes.map((lane) => lane.close()));
} catch (error) {
  if (!(error instanceof RatchetError)) throw error;
  // The reason alone: what to do about it is said beside it.
  refusal = /cannot be used here: (.*?)(\.\s|$)/s.exec(error.message)?.[1] ?? error.message;
}
process.stdout.write(JSON.stringify({ refusal }), () => process.exit(0));
