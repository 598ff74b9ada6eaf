/** OpenAI's Python client against `ratchet serve`: `node bench/model-server/python.ts`. Ends with 0 if everything is as the client expects. */
import { join } from 'node:path';
import { pythonWith } from '../python.ts';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { withServer } from './server.ts';

const python = pythonWith(join(import.meta.dirname, 'requirements.txt'));
await withServer('s', ['--rows', '16'], async (url) => {
  const child = spawn(python, [join(import.meta.dirname, 'client.py'), url], { stdio: 'inherit' });
  const [code] = (await once(child, 'exit')) as [number | null];
  process.exitCode = code ?? 1;
});
