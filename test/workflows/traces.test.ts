/** A run whose header for traces is not what it should be: it goes on, untraced. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultPayloadConverter, type Payload } from '@temporalio/common';
import { interceptors } from '../../workflows/traces.ts';

const TRACEPARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
const json = (value: unknown) => defaultPayloadConverter.toPayload(value)!;
const UNREADABLE: [string, Payload][] = [
  ['encrypted', { metadata: { encoding: Buffer.from('binary/encrypted') }, data: Buffer.from('x') }],
  ['no encoding', { data: Buffer.from('x') }],
  ['no JSON', { metadata: { encoding: Buffer.from('json/plain') }, data: Buffer.from('{') }],
  ['null', json(null)],
  ['nothing', json(undefined)],
  ['a text', json(TRACEPARENT)],
  ['fields of another format, as by OTEL_PROPAGATORS=b3', json({ b3: '0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1' })],
  ['a field that is no text', json({ traceparent: [TRACEPARENT] })],
];

for (const [what, payload] of UNREADABLE)
  test(what, async () => {
    const [inbound] = interceptors().inbound!;
    const input = { args: [], headers: { '_tracer-data': payload } };
    assert.equal(await inbound!.execute!(input, async (given) => (given === input ? 'done' : 'changed')), 'done');
  });
