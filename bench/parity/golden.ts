/** Makes the golden files of test/learning/golden/ anew, all or those named: `node bench/parity/golden.ts [case ...]`. See golden.py for what they hold. */
import { join } from 'node:path';
import { runPython } from '../python.ts';

const golden = join(import.meta.dirname, '..', '..', 'test', 'learning', 'golden');
runPython(join(import.meta.dirname, 'requirements.txt'), join(import.meta.dirname, 'golden.py'), [golden, ...process.argv.slice(2)]);
