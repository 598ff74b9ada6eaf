#!/usr/bin/env node
/**
 * Checks an exported run. One file, no dependencies: Node 18 or newer and the folder are enough.
 *
 *   node verify.mjs [folder] [--head <sha256>] [--key <public-key.pem>]
 *
 * It re-hashes every object that the records lead to, follows the chain of records, holds every stage result against the chain, and checks the signature
 * of every attestation. `--head` is the digest that you noted when the run ended: with it any change to anything the head leads to is found. `--key` is a
 * public key that you trust: then every record must be vouched for by it. Exit code 0: all is as the records say; 1: not, and the first lines say where;
 * 2: wrong arguments. It does not open Parquet tables or recount episodes: `ratchet verify` does.
 */
import { createHash, createPublicKey, verify } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, statSync, createReadStream } from 'node:fs';
import { join } from 'node:path';

const DIGEST = /^[0-9a-f]{64}$/;
const PAYLOAD_TYPE = 'application/vnd.in-toto+json';

const args = process.argv.slice(2);
const options = { head: undefined, key: undefined };
let folder;
while (args.length > 0) {
  const word = args.shift();
  if (word === '--head' || word === '--key') options[word.slice(2)] = args.shift() ?? usage(`${word} needs a value`);
  else if (word.startsWith('-') || folder !== undefined) usage(`${word} is not known`);
  else folder = word;
}
folder ??= '.';
if (options.head !== undefined && !DIGEST.test(options.head)) usage(`--head: ${options.head} is not 64 hexadecimal digits`);
if (!existsSync(join(folder, 'runs'))) usage(`${folder} is not an exported run: it has no folder runs/`);

function usage(why) {
  console.error(`${why}\nusage: node verify.mjs [folder] [--head <sha256>] [--key <public-key.pem>]`);
  process.exit(2);
}

const problems = [];
const report = (what, key, expected, found) => problems.push({ what, key, expected, found });
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const isRef = (value) =>
  isObject(value) &&
  Object.keys(value).length === 3 &&
  typeof value.key === 'string' &&
  DIGEST.test(value.sha256) &&
  Number.isSafeInteger(value.bytes);

/** RFC 8785: keys sorted by UTF-16 code units, no white space, numbers as ECMAScript prints them. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (!isObject(value)) return JSON.stringify(value);
  const keys = Object.keys(value)
    .filter((key) => value[key] !== undefined)
    .sort();
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(',')}}`;
}
const digestOf = (value) => sha256(canonical(value));

function files(key) {
  const path = join(folder, key);
  return existsSync(path)
    ? readdirSync(path)
        .sort()
        .map((name) => `${key}/${name}`)
    : [];
}

/** The JSON value of a manifest, or null after saying what is wrong with it. */
function manifest(key, what) {
  try {
    const bytes = readFileSync(join(folder, key));
    const value = JSON.parse(bytes.toString());
    if (isObject(value) && Buffer.from(canonical(value)).equals(bytes)) return value;
    report(what, key, 'canonical JSON (RFC 8785)', `${bytes.length} bytes of another form`);
  } catch (error) {
    report(what, key, 'canonical JSON (RFC 8785)', error.code === 'ENOENT' ? 'it is missing' : error.message);
  }
  return null;
}

/** Every reference inside a JSON value; an `episodes` field may name its object by the digest alone. */
function* references(value) {
  if (Array.isArray(value)) for (const item of value) yield* references(item);
  else if (isRef(value)) yield value;
  else if (isObject(value)) {
    if (isRef(value.evaluation) && DIGEST.test(value.episodes))
      yield { key: `objects/${value.episodes}`, sha256: value.episodes, bytes: null };
    for (const item of Object.values(value)) yield* references(item);
  }
}

const [runFolder, ...others] = files('runs');
if (!runFolder || others.length > 0) usage(`${folder} holds ${others.length + (runFolder ? 1 : 0)} runs; one is expected`);
const queue = [];

// The run: which recipe it belongs to.
const run = manifest(`${runFolder}/run.json`, 'run manifest');
if (run && !(isRef(run.recipe) && run.recipe.sha256 === run.recipeSha256))
  report('run manifest', `${runFolder}/run.json`, 'a reference to the recipe and its digest', canonical(run).slice(0, 200));
if (run) queue.push(...references(run));
const ed25519 = (key) => key.asymmetricKeyType === 'ed25519';

// The chain: each record in its place, following the one before it.
const chain = new Map();
let previous = null;
let index = 0;
const given = new Set();
for (const key of files(`${runFolder}/records`)) {
  const wanted = `${runFolder}/records/${String(index).padStart(6, '0')}.json`;
  if (key !== wanted) report('record', wanted, 'a record, since later ones exist', 'it is missing');
  const record = manifest(key, 'record');
  const digest = sha256(readFileSync(join(folder, key)));
  if (record) {
    if (record.index !== index) report('place of a record', key, `record ${index}`, `record ${record.index}`);
    if (record.previous !== previous) report('record', key, `one that follows ${previous}`, `it follows ${record.previous}`);
    queue.push(...references(record));
    if (record.kind === 'genesis') for (const { sha256: each } of references(record.body)) given.add(each);
  }
  chain.set(key, { record, digest });
  previous = digest;
  index++;
}
const genesis = [...chain.values()][0]?.record?.body;
const ofGenesis = isRef(genesis?.recipe) ? genesis.recipe.sha256 : genesis?.recipe && digestOf(genesis.recipe);
if (run && ofGenesis && ofGenesis !== run.recipeSha256)
  report('recipe of the genesis', `${runFolder}/run.json`, ofGenesis, String(run.recipeSha256));
if (chain.size === 0) report('record', `${runFolder}/records`, 'at least the genesis', 'there is none');
if (options.head !== undefined && previous !== options.head) report('head', [...chain.keys()].at(-1), options.head, String(previous));

// The stages: each is what its name and the chain say.
const stages = new Map();
for (const key of files(`${runFolder}/stages`)) {
  const stage = manifest(key, 'stage manifest');
  if (!stage) continue;
  const { seal, ...rest } = stage;
  const name = digestOf({ stage: stage.stage, input: stage.input });
  if (seal !== digestOf(rest)) report('seal of a stage manifest', key, 'the digest of the rest', 'another');
  if (key !== `${runFolder}/stages/${name}.json`) report('name of a stage manifest', key, name, key.slice(-69, -5));
  stages.set(name, digestOf({ stage: stage.stage, input: stage.input, output: stage.output }));
  queue.push(...references(stage));
  for (const { sha256: each } of references(stage.output)) given.add(each);
}

// The keys: those beside the run, and the one that is trusted.
const keys = new Map();
const keyIdOf = (key) => sha256(key.export({ type: 'spki', format: 'der' }));
for (const key of files(`${runFolder}/keys`)) {
  const published = manifest(key, 'public key');
  try {
    const publicKey = published && createPublicKey(published.publicKey);
    const named = publicKey && ed25519(publicKey) && keyIdOf(publicKey) === published.keyid && key.endsWith(`/${published.keyid}.json`);
    // Other characters may spell the same key: what lies there must be what was written.
    if (named && publicKey.export({ type: 'spki', format: 'pem' }) === published.publicKey) keys.set(published.keyid, publicKey);
    else if (published) report('public key', key, 'a key under its own name', String(published.keyid));
  } catch (error) {
    report('public key', key, 'an Ed25519 public key', error.message);
  }
}
let trusted;
if (options.key !== undefined) {
  try {
    const publicKey = createPublicKey(readFileSync(options.key));
    if (!ed25519(publicKey)) usage(`--key: ${options.key} is no Ed25519 key`);
    trusted = keyIdOf(publicKey);
    keys.set(trusted, publicKey);
  } catch (error) {
    usage(`--key: ${options.key} is no public key: ${error.message}`);
  }
}

/** The payload of an envelope with a signature that holds and, if asked for, of the trusted key; null after saying why not. */
function opened(envelope, what, key) {
  const payload = Buffer.from(String(envelope.payload), 'base64');
  const signed = Buffer.concat([Buffer.from(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `), payload]);
  const signatures = Array.isArray(envelope.signatures) ? envelope.signatures : [];
  const valid = signatures.filter(({ keyid, sig }) => {
    const raw = Buffer.from(String(sig), 'base64');
    return keys.has(keyid) && raw.toString('base64') === sig && verify(null, signed, keys.get(keyid), raw);
  });
  const exact = envelope.payloadType === PAYLOAD_TYPE && payload.toString('base64') === envelope.payload;
  if (!exact || valid.length === 0 || valid.length < signatures.length)
    report(what, key, 'a signature of a key in keys/', 'one that does not hold');
  else if (trusted && !valid.some(({ keyid }) => keyid === trusted))
    report(what, key, `a signature of ${trusted}`, `signed by ${valid.map(({ keyid }) => keyid).join(', ')}`);
  else return payload.toString();
  return null;
}

// What the run gave up to make room: a signed statement that names a list of objects, which need not be there.
const givenUp = new Set();
const absent = new Set();
const givenUpKey = `${runFolder}/given-up.json`;
if (existsSync(join(folder, givenUpKey))) {
  const what = 'statement of what was given up';
  const envelope = manifest(givenUpKey, what);
  const payload = envelope && opened(envelope, `signature of the ${what}`, givenUpKey);
  try {
    if (payload) {
      const { subject, predicate, predicateType } = JSON.parse(payload);
      if (predicateType !== 'urn:ratchet:bulk-given-up:v1') throw new Error(`it is a ${predicateType}`);
      const { run: of, list, head } = predicate;
      if (`runs/${of}` !== runFolder || !isRef(list) || subject[0].digest.sha256 !== list.sha256 || list.key !== `objects/${list.sha256}`)
        throw new Error('it is about something else');
      queue.push(list);
      const at = head && chain.get(`${runFolder}/records/${String(head.index).padStart(6, '0')}.json`)?.digest;
      if (head && at !== head.sha256) report('record that bulk was given up at', givenUpKey, head.sha256, String(at));
      const bytes = readFileSync(join(folder, list.key));
      if (sha256(bytes) !== list.sha256) throw new Error('its list is another');
      for (const [digest] of JSON.parse(bytes.toString()).givenUp) givenUp.add(digest);
    }
  } catch (error) {
    report(what, givenUpKey, 'a signed statement and its list', error.message);
  }
  // What the chain itself rests on cannot be given up.
  for (const { record } of chain.values()) if (isRef(record?.stages)) givenUp.delete(record.stages.sha256);
  if (run) givenUp.delete(run.recipeSha256);
}

// The objects: everything that the above leads to, each under its digest.
const seen = new Set();
const sizes = new Map();
let bytes = 0;
while (queue.length > 0) {
  const ref = queue.shift();
  const name = `${ref.key} ${ref.sha256} ${ref.bytes}`;
  if (seen.has(name)) continue;
  seen.add(name);
  if (ref.key !== `objects/${ref.sha256}`) {
    // Never opened: a key of another form could lead out of the folder.
    report('name of an object', ref.key, `objects/${ref.sha256}`, ref.key);
    continue;
  }
  const path = join(folder, ref.key);
  if (!existsSync(path) && givenUp.has(ref.sha256)) {
    absent.add(ref.sha256);
    continue;
  }
  if (!existsSync(path)) {
    report('object', ref.key, `bytes with SHA-256 ${ref.sha256}`, 'it is missing');
    continue;
  }
  const size = statSync(path).size;
  if (ref.bytes !== null && size !== ref.bytes) report('size of an object', ref.key, `${ref.bytes} bytes`, `${size} bytes`);
  // Named with its size and without, an object is still one.
  if (sizes.has(ref.sha256)) continue;
  sizes.set(ref.sha256, size);
  const hash = createHash('sha256');
  const kept = [];
  for await (const chunk of createReadStream(path)) {
    hash.update(chunk);
    if (kept.length > 0 || chunk[0] === 0x7b || chunk[0] === 0x5b) kept.push(chunk); // JSON begins with { or [
  }
  const digest = hash.digest('hex');
  if (digest !== ref.sha256) report('object', ref.key, `SHA-256 ${ref.sha256}`, `SHA-256 ${digest}`);
  bytes += size;
  try {
    if (kept.length > 0) queue.push(...references(JSON.parse(Buffer.concat(kept).toString())));
  } catch {
    // Bytes that begin like JSON and are not: their digest is all there is to check.
  }
}
for (const [key, { record }] of chain) {
  if (record?.kind !== 'outcome' || !isRef(record.stages)) continue;
  let named = {};
  try {
    named = JSON.parse(readFileSync(join(folder, record.stages.key), 'utf8'));
  } catch {
    continue; // Missing or damaged: said above.
  }
  for (const [intent, digest] of Object.entries(named))
    if (stages.get(intent) !== digest)
      report(
        'stage manifest',
        `${runFolder}/stages/${intent}.json`,
        `digest ${digest}, as in ${key}`,
        stages.get(intent) ?? 'it is missing',
      );
  const stray = Object.keys(named).length > 0 && [...references(record.body)].find((ref) => !given.has(ref.sha256));
  if (stray) report('origin of an object', key, `a committed stage that gave ${stray.key}`, 'none did');
}

// The attestations: signed statements about records that are there.
const vouched = new Set();
for (const key of files(`${runFolder}/attestations`)) {
  const envelope = manifest(key, 'attestation');
  if (!envelope) continue;
  const payload = opened(envelope, 'signature of an attestation', key);
  if (payload === null) continue;
  let subject;
  try {
    [subject] = JSON.parse(payload).subject;
    if (typeof subject.name !== 'string' || !DIGEST.test(subject.digest.sha256)) throw new Error('its subject is no record');
  } catch (error) {
    report('attestation', key, 'a signed statement about a record', error.message);
    continue;
  }
  const found = chain.get(subject.name)?.digest ?? 'it is missing';
  if (found !== subject.digest.sha256) report('attested record', subject.name, `SHA-256 ${subject.digest.sha256}, as in ${key}`, found);
  vouched.add(subject.name);
}
if (trusted) {
  for (const key of chain.keys()) {
    const attestation = key.replace('/records/', '/attestations/');
    if (!vouched.has(key)) report('attestation', attestation, `a statement about ${key}, signed by ${trusted}`, 'there is none');
  }
}

for (const { what, key, expected, found } of problems)
  console.log(`${what}\n  at        ${key}\n  expected  ${expected}\n  found     ${found}\n`);
console.log(
  `${runFolder.slice('runs/'.length)}: ${problems.length === 0 ? 'everything is as its records say' : `${problems.length} problems`}`,
);
console.log(
  `${chain.size} records, ${stages.size} stage results, ${sizes.size} objects (${bytes} bytes), ${vouched.size} signed attestations`,
);
if (absent.size > 0) console.log(`${absent.size} objects are not here: given up to make room, as ${givenUpKey} states`);
console.log(`head ${previous}`);
process.exit(problems.length === 0 ? 0 : 1);
