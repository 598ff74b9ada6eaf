import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { cacheDirectory } from '../../core/cache-directory.ts';
import type { Environment } from '../../infra/endpoints.ts';
import type { ProgressLine } from '../../infra/progress.ts';
import { TEMPORAL, VERSITYGW } from '../../infra/programs.ts';
import { checksumOf } from '../../infra/release.ts';
import { cachedPath, resolveProgram } from '../../infra/resolve.ts';
import { checkVersion, isAtLeast, parseVersion } from '../../infra/version.ts';
import { temporaryDirectory } from './clean.ts';

/** A program that answers `--version` as the real one does, and counts as that program in all that is tested here. */
function script(path: string, output: string): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `#!/bin/sh\ncat <<'END'\n${output}\nEND\n`);
  chmodSync(path, 0o755);
  return path;
}

const temporalSays = (version: string) => `temporal version ${version} (Server 1.31.2, UI 2.50.1)`;
const versitygwSays = (version: string) => `Version  : v${version}\nBuild    : abc\nBuildTime: none`;

/** A PATH with what `sh` scripts and `tar` need, and nothing else: no Go, no servers. */
function barePath(): string {
  const directory = join(temporaryDirectory(), 'bin');
  mkdirSync(directory);
  for (const tool of ['cat', 'tar', 'gzip', 'sh'])
    symlinkSync(execFileSync('which', [tool], { encoding: 'utf8' }).trim(), join(directory, tool));
  return directory;
}

function environment(extra: Environment = {}): Environment {
  return { PATH: barePath(), RATCHET_CACHE: temporaryDirectory(), RATCHET_RELEASES: 'off', ...extra };
}

async function site(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** The files of a release of versitygw as its project lays them out: the program in a directory named like the archive. */
function releaseOf(version: string): Map<string, Buffer> {
  const directory = temporaryDirectory();
  const archive = VERSITYGW.archive(process.platform, process.arch)!;
  const inner = archive.replace('.tar.gz', '');
  script(join(directory, inner, 'versitygw'), versitygwSays(version));
  writeFileSync(join(directory, inner, 'README.md'), 'text');
  execFileSync('tar', ['-czf', archive, inner], { cwd: directory });
  const bytes = readFileSync(join(directory, archive));
  const sum = createHash('sha256').update(bytes).digest('hex');
  const base = '/versity/versitygw/releases/download/v1.8.0';
  const sums = `${'0'.repeat(64)}  versitygw_v1.8.0_Plan9_mips.tar.gz\n${sum}  ${archive}\n`;
  return new Map([
    [`${base}/checksums.txt`, Buffer.from(sums)],
    [`${base}/${archive}`, bytes],
  ]);
}

const serving =
  (files: Map<string, Buffer>, seen: string[] = []): RequestListener =>
  (request, response) => {
    seen.push(request.url!);
    const file = files.get(request.url!);
    response.writeHead(file ? 200 : 404, file ? { 'content-length': file.length } : {}).end(file);
  };

const lines: ProgressLine[] = [];
const onProgress = (line: ProgressLine) => void lines.push(line);
const resolveGateway = (env: Environment) => resolveProgram(VERSITYGW, { env, onProgress });
const leftovers = (env: Environment) => readdirSync(cacheDirectory(env)).filter((name) => /draft|download/.test(name));

test('the version is read from what each program prints', () => {
  assert.equal(parseVersion(TEMPORAL, 'temporal version 1.8.2 (Server 1.31.2, UI 2.50.1)\n'), '1.8.2');
  assert.equal(parseVersion(VERSITYGW, 'Version  : v1.8.0\nBuild    : norev\nBuildTime: none\n'), '1.8.0');
  assert.equal(parseVersion(VERSITYGW, 'Version  : 1.8.0\nBuild    : 1f2e\nBuildTime: now\n'), '1.8.0');
  assert.equal(parseVersion(TEMPORAL, 'tctl version 1.18.0'), null);
  assert.equal(parseVersion(VERSITYGW, 'Version  : git'), null);
});

test('a later version of the same major version will do', () => {
  for (const [version, expected] of [
    ...([
      ['1.8.2', true],
      ['1.8.3', true],
      ['1.10.0', true],
    ] as const),
    ...([
      ['1.8.1', false],
      ['1.7.9', false],
      ['0.9.9', false],
      ['2.0.0', false],
      ['1.8.2-rc.1', false],
      ['1.9.0-rc.1', true],
    ] as const),
  ]) {
    assert.equal(isAtLeast(version, '1.8.2'), expected, version);
  }
});

test('a program that fails, says something else or is not there is refused with a reason', async () => {
  const directory = temporaryDirectory();
  const failing = script(join(directory, 'failing'), '');
  writeFileSync(failing, '#!/bin/sh\nexit 3\n');
  for (const path of [failing, script(join(directory, 'other'), 'another program 1.8.2'), join(directory, 'absent')]) {
    const check = await checkVersion(TEMPORAL, path, false);
    assert.ok(!check.ok && check.reason.includes(path));
  }
});

test('the cache is $RATCHET_CACHE, else $XDG_CACHE_HOME/ratchet, else ~/.cache/ratchet', () => {
  assert.equal(cacheDirectory({ RATCHET_CACHE: '/a', XDG_CACHE_HOME: '/b', HOME: '/c' }), '/a');
  assert.equal(cacheDirectory({ XDG_CACHE_HOME: '/b', HOME: '/c' }), '/b/ratchet');
  assert.equal(cacheDirectory({ HOME: '/c' }), '/c/.cache/ratchet');
});

test('a name in the cache changes with the pinned sources', async () => {
  const module = temporaryDirectory();
  cpSync(VERSITYGW.toolsModule, module, { recursive: true });
  const program = { ...VERSITYGW, toolsModule: module };
  const env = environment();
  const before = await cachedPath(program, env);
  assert.equal(before, await cachedPath(VERSITYGW, env));
  writeFileSync(join(module, 'go.sum'), `${readFileSync(join(module, 'go.sum'), 'utf8')}\n`);
  assert.notEqual(await cachedPath(program, env), before);
});

test('the order is PATH, cache, release', async () => {
  const seen: string[] = [];
  const env = environment({ RATCHET_RELEASES: await site(serving(releaseOf('1.8.0'), seen)) });
  const released = await resolveGateway(env);
  assert.deepEqual([released.from, released.version, released.path], ['release', '1.8.0', await cachedPath(VERSITYGW, env)]);
  assert.equal(seen.length, 2);
  assert.equal((await resolveGateway(env)).from, 'cache');
  assert.equal(seen.length, 2, 'the second time nothing is fetched');
  const own = script(join(temporaryDirectory(), 'versitygw'), versitygwSays('1.9.0'));
  const onPath = await resolveGateway({ ...env, PATH: `${dirname(own)}:${env['PATH']}` });
  assert.deepEqual(onPath, { path: own, version: '1.9.0', from: 'PATH' });
  assert.deepEqual(leftovers(env), []);
});

test('a program of an unfit version on the PATH is passed over', async () => {
  const old = script(join(temporaryDirectory(), 'versitygw'), versitygwSays('1.7.0'));
  const env = environment({ RATCHET_RELEASES: await site(serving(releaseOf('1.8.0'))) });
  assert.equal((await resolveGateway({ ...env, PATH: `${dirname(old)}:${env['PATH']}` })).from, 'release');
});

test('a damaged program in the cache is replaced', async () => {
  const env = environment({ RATCHET_RELEASES: await site(serving(releaseOf('1.8.0'))) });
  script(await cachedPath(VERSITYGW, env), 'nonsense');
  assert.equal((await resolveGateway(env)).from, 'release');
});

test('an archive with the program at its top, as Temporal packs it, will do as well', async () => {
  const directory = temporaryDirectory();
  script(join(directory, 'temporal'), temporalSays('1.8.2'));
  const archive = TEMPORAL.archive(process.platform, process.arch)!;
  execFileSync('tar', ['-czf', archive, 'temporal'], { cwd: directory });
  const bytes = readFileSync(join(directory, archive));
  const sums = Buffer.from(`${createHash('sha256').update(bytes).digest('hex')}  ${archive}\n`);
  const base = '/temporalio/cli/releases/download/v1.8.2';
  const files = new Map([
    [`${base}/checksums.txt`, sums],
    [`${base}/${archive}`, bytes],
  ]);
  const env = environment({ RATCHET_RELEASES: await site(serving(files)) });
  assert.equal((await resolveProgram(TEMPORAL, { env, onProgress })).from, 'release');
});

test('two at once fetch once', async () => {
  const seen: string[] = [];
  const env = environment({ RATCHET_RELEASES: await site(serving(releaseOf('1.8.0'), seen)) });
  const both = await Promise.all([resolveGateway(env), resolveGateway(env)]);
  assert.deepEqual(both.map(({ from }) => from).sort(), ['cache', 'release']);
  assert.equal(seen.length, 2);
});

test('a download that is no longer wanted ends at once, is no reason to build, and leaves nothing', async () => {
  const stop = new AbortController();
  const [sums] = [...releaseOf('1.8.0').keys()] as [string];
  const env = environment({
    RATCHET_RELEASES: await site((request, response) => {
      if (request.url === sums) return void response.end(releaseOf('1.8.0').get(sums));
      // Its first piece comes, and then no other.
      response.writeHead(200, { 'content-length': 1000 });
      response.write('half', () => stop.abort());
    }),
  });
  await assert.rejects(resolveProgram(VERSITYGW, { env, onProgress, signal: stop.signal }), { type: 'Stopped' });
  assert.deepEqual(leftovers(env), []);
});

const good = releaseOf('1.8.0');
const [sumsUrl, archiveUrl] = [...good.keys()] as [string, string];
const flipped = Buffer.from(good.get(archiveUrl)!);
flipped[100]! ^= 1;
const bad: [what: string, listener: RequestListener, reason: RegExp][] = [
  ['an archive with one bit changed', serving(new Map([...good, [archiveUrl, flipped]])), /has SHA-256 [0-9a-f]{64}, but its release says/],
  ['an archive of another version', serving(releaseOf('1.8.1')), /is version 1\.8\.1, needed is 1\.8\.0/],
  ['a release without checksums', serving(new Map([[archiveUrl, good.get(archiveUrl)!]])), /checksums\.txt answered 404/],
  ['a release without the archive', serving(new Map([[sumsUrl, good.get(sumsUrl)!]])), /tar\.gz answered 404/],
  [
    'checksums that do not list the archive',
    serving(new Map([...good, [sumsUrl, Buffer.from('no sums')]])),
    /lists no SHA-256 for versitygw/,
  ],
  [
    'an archive that breaks off',
    (request, response) => {
      if (request.url === sumsUrl) return void response.end(good.get(sumsUrl));
      response.writeHead(200, { 'content-length': 1000 });
      response.write('half', () => response.destroy());
    },
    /cannot be read/,
  ],
];

for (const [what, listener, reason] of bad) {
  test(`${what} is refused, said, and leaves nothing behind`, async () => {
    const env = environment({ RATCHET_RELEASES: await site(listener) });
    await assert.rejects(resolveGateway(env), { type: 'Unavailable', message: reason });
    assert.equal(existsSync(await cachedPath(VERSITYGW, env)), false);
    assert.deepEqual(leftovers(env), []);
  });
}

test('a site that does not answer costs seconds, once for both programs, and the message says all that was tried and what to install', async () => {
  const env = environment({ RATCHET_RELEASES: await site(() => {}) });
  const unreachable = new Set<string>();
  const start = performance.now();
  for (const program of [VERSITYGW, TEMPORAL]) {
    await assert.rejects(resolveProgram(program, { env, onProgress, unreachable }), (error: Error) => {
      for (const tried of [
        'AWS_ENDPOINT_URL|TEMPORAL_ADDRESS',
        `PATH: no ${program.name}`,
        'cache: no ',
        'release: .*did not answer',
        'build: no go on the PATH',
      ])
        assert.match(error.message, new RegExp(tried));
      assert.match(error.message, new RegExp(`${program.name} ${program.version} on the PATH`));
      assert.match(error.message, new RegExp(`Go ${program.goVersion} or later`));
      return true;
    });
  }
  const seconds = (performance.now() - start) / 1000;
  // The bound for an answer is 8 s.
  assert.ok(seconds < 12, `${seconds} s`);
});

test('a cache that cannot be written is named', async () => {
  const file = join(temporaryDirectory(), 'file');
  writeFileSync(file, '');
  await assert.rejects(resolveGateway(environment({ RATCHET_CACHE: join(file, 'cache') })), {
    type: 'Unavailable',
    message: /cache: .*ENOTDIR/,
  });
});

test('a Go that is too old, or whose build fails, is named with its last words', async () => {
  const go = script(join(temporaryDirectory(), 'go'), 'go version go1.19.8 linux/amd64');
  const env = environment();
  const path = `${dirname(go)}:${env['PATH']}`;
  await assert.rejects(resolveGateway({ ...env, PATH: path }), { type: 'Unavailable', message: /build: Go 1\.19\.8 is older than 1\.21/ });
  writeFileSync(
    go,
    '#!/bin/sh\n[ "$1" = version ] && echo "go version go1.26.8 linux/amd64" && exit 0\necho "module lookup disabled" >&2\nexit 1\n',
  );
  await assert.rejects(resolveGateway({ ...env, PATH: path }), {
    message: /build: with Go 1\.26\.8: go list ended with 1:\s+module lookup disabled/,
  });
});

test('sums are found in the formats of sha256sum', () => {
  const sum = 'ab'.repeat(32);
  assert.equal(checksumOf(`${sum}  a.tar.gz\n`, 'a.tar.gz'), sum);
  assert.equal(checksumOf(`${sum.toUpperCase()} *a.tar.gz\r\n`, 'a.tar.gz'), sum);
  assert.equal(checksumOf(`${sum}  b-a.tar.gz\n`, 'a.tar.gz'), null);
});
