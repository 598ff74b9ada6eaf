/** Opens lanes on this process's execution provider and prints what is thrown. */
import { openLanes } from '../../learning/lanes/lane.ts';

await openLanes(2, (lane) => lane.load('x', new Uint8Array())).catch(({ type, message }: { type: string; message: string }) =>
  console.log(JSON.stringify({ type, message })),
);
