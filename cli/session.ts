/**
 * What a command talks to: the artifact store, and Temporal when it is asked for. It finds the servers that the environment names or that run in this
 * folder's home; commands that only read may borrow the home's own servers while they work. It starts no worker.
 */
import { Client, Connection } from '@temporalio/client';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ArtifactStore } from '../artifacts/store.ts';
import { storeConfigFromEnvironment } from '../artifacts/store-config.ts';
import { RatchetError } from '../core/errors.ts';
import { homePaths, readHome } from '../infra/home.ts';
import { connectionFailure, temporalConfig } from '../infra/temporal-config.ts';
import { endpointEnvironment, ratchetHome, runningServers, serversBorrowed, serversStatus, type Endpoints } from '../infra/servers.ts';
import { startTraces, tracesWanted, type Traces } from '../infra/traces.ts';
import { borrowServers, type Borrowed } from './borrow.ts';
import { asRatchetError, explain } from './failures.ts';
import { note } from './output.ts';

/** A connection is made within milliseconds, or within a second across the world. */
const CONNECT_BOUND_MS = 5_000;
/** A single question to Temporal. */
export const CALL_BOUND_MS = 10_000;
/** A server that is being restarted is back within about a second; a slow machine gets this long. */
const RESTART_BOUND_MS = 10_000;
const RESTART_POLL_MS = 200;
/** Reading commands read some objects more than once. */
const CACHE_BYTES = 64 * 1024 * 1024;

/** The folder of the program. */
export const PROGRAM_FOLDER = dirname(dirname(fileURLToPath(import.meta.url)));

/** Where this machine's servers and data live: `$RATCHET_HOME`, else `.ratchet` beside the program, wherever it is called from. */
export function home(): string {
  return ratchetHome(process.env, PROGRAM_FOLDER);
}

/** The key that signs what is stated here; made when it is first needed. */
export function signingKeyFile(): string {
  return process.env['RATCHET_SIGNING_KEY'] || homePaths(home()).signingKey;
}

export interface Session {
  home: string;
  endpoints: Endpoints;
  /** For child processes: the environment with these endpoints. */
  environment: Record<string, string | undefined>;
  store: ArtifactStore;
  /** Servers that are up for this command, and others like it, alone: where they were started for it, no worker works with them. */
  borrowed: Borrowed | null;
  /** Connects at the first call. Throws Unavailable. */
  temporal(): Promise<Client>;
  close(): Promise<void>;
}

export function sessionOf(endpoints: Endpoints, borrowed: Borrowed | null = null): Session {
  const environment = { ...process.env, RATCHET_HOME: home(), ...endpointEnvironment(endpoints) };
  const store = ArtifactStore.connect({ ...storeConfigFromEnvironment(environment), cacheBytes: CACHE_BYTES });
  let traces: Promise<Traces | null> | null = null;
  let client: Promise<Client> | null = null;
  const connected = async (): Promise<Client> => connect(endpoints, await (traces ??= tracesOf()));
  return {
    home: home(),
    endpoints,
    environment,
    store,
    borrowed,
    temporal: () => (client ??= connected()),
    async close() {
      store.close();
      // A connection that failed has nothing to close.
      await (await client?.catch(() => null))?.connection.close();
      await (await traces)?.end();
      await borrowed?.end();
    },
  };
}

/** What this command is traced with. Settings that cannot be meant are told of; unlike a worker, it does what it was asked for, untraced. */
async function tracesOf(): Promise<Traces | null> {
  try {
    return tracesWanted(process.env) ? await startTraces('ratchet', (message) => note(`ratchet: ${message}`)) : null;
  } catch (error) {
    note(`ratchet: this command is not traced: ${explain(error).message}`);
    return null;
  }
}

/** Temporal with the TLS and keys that its own environment variables and files say, where the environment named the server; plain for our own. */
async function connect({ temporal: { address, namespace, own } }: Endpoints, traces: Traces | null): Promise<Client> {
  const { connectionOptions } = own ? { connectionOptions: {} } : temporalConfig();
  try {
    const connection = await Connection.connect({ ...connectionOptions, address, connectTimeout: CONNECT_BOUND_MS });
    return new Client({ connection, namespace, ...(traces && { interceptors: { workflow: [traces.client] } }) });
  } catch (error) {
    throw new RatchetError('Unavailable', `Temporal at ${address} does not answer: ${connectionFailure(error)}`, { cause: error });
  }
}

/** One question to Temporal, bounded; what goes wrong is told in our terms. */
export async function ask<T>(client: Client, question: () => Promise<T>, boundMs = CALL_BOUND_MS): Promise<T> {
  try {
    return await client.connection.withDeadline(Date.now() + boundMs, question);
  } catch (error) {
    throw asRatchetError(error);
  }
}

/**
 * The servers that are kept up. `borrow`: where the home has data but nothing keeps its servers up, they are started for this command, or shared with
 * others that do the same, and stopped after the last of these, so that a run can be looked at any time. Throws Unavailable saying what to start.
 */
export async function openSession(options: { borrow: boolean }): Promise<Session> {
  const endpoints = await keptUp();
  if (endpoints) return sessionOf(endpoints);
  if (options.borrow && (await readHome(home()))?.s3) {
    const borrowed = await borrowServers(home());
    return sessionOf(borrowed.servers.endpoints, borrowed);
  }
  throw new RatchetError(
    'Unavailable',
    `no servers run for ${home()}; \`npm start\` or \`npx ratchet up\` starts them, or name yours with TEMPORAL_ADDRESS and RATCHET_S3_ENDPOINT`,
  );
}

/** Does `work` with a session and closes it, whatever happens. */
export async function withSession<T>(options: { borrow: boolean }, work: (session: Session) => Promise<T>): Promise<T> {
  const session = await openSession(options);
  try {
    return await (session.borrowed?.during(work(session)) ?? work(session));
  } finally {
    await session.close();
  }
}

/** The running servers, waiting for those that somebody restarts at this moment; null also where they are up for borrowers alone. */
async function keptUp(): Promise<Endpoints | null> {
  const deadline = performance.now() + RESTART_BOUND_MS;
  for (let told = false; ;) {
    // Before the servers are looked for: they may end with a borrower that is there now, but not unseen.
    if (await serversBorrowed(home())) return null;
    const found = await runningServers(home());
    if (found || performance.now() >= deadline) return found;
    const { temporal, s3 } = await serversStatus(home());
    if (![temporal, s3].some(({ state }) => state === 'restarting' || state === 'starting')) return null;
    if (!told) note('ratchet: waiting for the servers, which are being started');
    told = true;
    await new Promise((resolve) => setTimeout(resolve, RESTART_POLL_MS));
  }
}
