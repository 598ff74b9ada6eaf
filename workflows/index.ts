/** What the workflow bundle exports. */
export { improvementLoop } from './ending.ts';
