/** What the workflow bundle exports. */
export { improvementLoop } from './durable-loop.ts';
