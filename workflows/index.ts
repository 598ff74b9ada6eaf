/** What the workflow bundle exports. */
export { playShards } from './shards.ts';
export { improvementLoop } from './ending.ts';
