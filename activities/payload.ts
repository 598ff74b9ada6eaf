/** What may travel through Temporal: small JSON. References to artifacts fit with room to spare; data does not, and is refused here. */
import { badInput } from '../core/errors.ts';

/** Temporal warns at 512 KiB and refuses at 2 MiB, and every payload stays in the history for as long as the run does. */
export const MAX_PAYLOAD_BYTES = 64 * 1024;

/** Throws BadInput naming `what` and its size when its JSON is larger than MAX_PAYLOAD_BYTES, or when it has no JSON form. */
export function checkPayload(what: string, value: unknown): void {
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined) throw badInput(what, String(value), 'a JSON value');
  const bytes = Buffer.byteLength(text);
  if (bytes <= MAX_PAYLOAD_BYTES) return;
  throw badInput(`size of ${what}`, bytes, `at most ${MAX_PAYLOAD_BYTES} bytes; store the content as an artifact and pass its reference`);
}
