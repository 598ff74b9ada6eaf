/**
 * What this machine has to compute on: its devices, the execution providers of the installed ONNX Runtime, and what each lacks here. Every provider is tried in
 * a process of its own, because a native library that does not fit can end the process that loads it. It changes nothing.
 */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { RatchetError } from '../core/errors.ts';
import { graphicsDevices, nvidiaDevices } from './devices.ts';
import { currentProvider, parseProvider, providerNeeds, showAbsent, showProvider } from './providers.ts';
import type { ProviderName } from './providers.ts';

export interface Finding {
  name: string;
  state: 'ok' | 'warning' | 'failed';
  found: string;
  fix: string | null;
}

/** Loading CUDA's libraries from a slow disk and making a context takes tens of seconds. */
const TRY_BOUND_MS = 120_000;
/** What the CUDA provider of ONNX Runtime asks the loader for, beside the driver. */
const CUDA_LIBRARIES = ['libcudart', 'libcublas', 'libcublasLt', 'libcurand', 'libcufft', 'libcudnn'];

/** Devices, libraries and providers, in the order in which one needs the other. Only the provider that is configured can fail; others are noted. */
export async function diagnoseAccelerators(env: Record<string, string | undefined> = process.env): Promise<Finding[]> {
  const chosen = currentProvider(env);
  const platform = platformProviders();
  const findings: Finding[] = [devices(), vulkan(env), cudaProvider(), cudaLibraries(env)];
  for (const name of platform) {
    const wanted = name === chosen.name;
    const provider = wanted ? showProvider(chosen) : showProvider(parseProvider(name));
    const refusal = await tryProvider(provider, env);
    const used = wanted && env['RATCHET_EXECUTION_PROVIDER'] ? ', which RATCHET_EXECUTION_PROVIDER asks for' : '';
    findings.push(
      refusal === null
        ? { name: `provider ${name}`, state: 'ok', found: `computes${used}`, fix: null }
        : { name: `provider ${name}`, state: wanted ? 'failed' : 'warning', found: `${refusal}${used}`, fix: providerNeeds(name) },
    );
  }
  if (!platform.includes(chosen.name))
    findings.push({
      name: `provider ${chosen.name}`,
      state: 'failed',
      found: 'not part of onnxruntime-node here',
      fix: providerNeeds(chosen.name),
    });
  return findings;
}

/** Throws Unavailable, saying what is missing, where this process's provider cannot be used; BadInput where it is none. */
export async function requireProvider(onProgress: (detail: string) => void): Promise<void> {
  const env = process.env;
  const chosen = currentProvider(env);
  if (chosen.name === 'cpu') return;
  onProgress(`trying ${showProvider(chosen)}`);
  const refusal = await tryProvider(showProvider(chosen), env);
  if (refusal === null) return;
  throw new RatchetError('Unavailable', showAbsent(chosen, refusal));
}

function platformProviders(): ProviderName[] {
  const byPlatform: Partial<Record<NodeJS.Platform, ProviderName[]>> = {
    linux: process.arch === 'x64' ? ['cpu', 'webgpu', 'cuda'] : ['cpu'],
    darwin: ['cpu', 'webgpu', 'coreml'],
    win32: ['cpu', 'webgpu', 'dml'],
  };
  return byPlatform[process.platform] ?? ['cpu'];
}

function devices(): Finding {
  const nvidia = nvidiaDevices();
  const all = nvidia ?? graphicsDevices();
  const name = 'devices';
  if (all.length === 0) return { name, state: 'warning', found: 'no NVIDIA driver (nvidia-smi) and no graphics device', fix: null };
  const show = all.map((device, i) => {
    const memory = device.memoryBytes === null ? '' : `, ${(device.memoryBytes / 2 ** 30).toFixed(0)} GiB`;
    return `${i}: ${device.name}${memory}${device.driver === null ? '' : `, driver ${device.driver}`}`;
  });
  return { name, state: 'ok', found: show.join('; '), fix: null };
}

/** Where the loader looks, as far as it can be told without asking it. */
function libraryFolders(env: Record<string, string | undefined>): string[] {
  const named = (env['LD_LIBRARY_PATH'] ?? '').split(':').filter(Boolean);
  const usual = [
    '/usr/lib/x86_64-linux-gnu',
    '/usr/lib/aarch64-linux-gnu',
    '/usr/lib64',
    '/usr/lib',
    '/usr/local/lib',
    '/usr/local/cuda/lib64',
  ];
  return [...named, ...usual].filter((folder) => existsSync(folder));
}

/** File names of a library, such as `libvulkan.so.1`. */
function libraries(name: string, env: Record<string, string | undefined>): string[] {
  return libraryFolders(env).flatMap((folder) => readdirSync(folder).filter((file) => file.startsWith(`${name}.so`)));
}

function vulkan(env: Record<string, string | undefined>): Finding {
  const name = 'vulkan loader';
  if (process.platform !== 'linux') return { name, state: 'ok', found: 'not needed on this platform', fix: null };
  const [found] = libraries('libvulkan', env);
  if (found) return { name, state: 'ok', found, fix: null };
  return { name, state: 'warning', found: 'not found; webgpu needs it', fix: 'install the package libvulkan1 (or vulkan-loader)' };
}

function providerFolder(): string {
  const root = dirname(createRequire(import.meta.url).resolve('onnxruntime-node/package.json'));
  return join(root, 'bin', 'napi-v6', process.platform, process.arch);
}

function cudaProvider(): Finding {
  const name = 'cuda provider';
  if (process.platform !== 'linux' || process.arch !== 'x64') return { name, state: 'ok', found: 'only for Linux on x86-64', fix: null };
  const missing = ['libonnxruntime_providers_shared.so', 'libonnxruntime_providers_cuda.so'].filter(
    (file) => !existsSync(join(providerFolder(), file)),
  );
  if (missing.length === 0) return { name, state: 'ok', found: `in ${providerFolder()}`, fix: null };
  return {
    name,
    state: 'warning',
    found: `not installed: ${missing.join(', ')}`,
    fix:
      'a download of some hundred MB, never made by itself: `ONNXRUNTIME_NODE_INSTALL=cuda12 npm rebuild onnxruntime-node` (CUDA 12), ' +
      `or both files from the Python package onnxruntime-gpu of the same version (CUDA 13) in ${providerFolder()}`,
  };
}

function cudaLibraries(env: Record<string, string | undefined>): Finding {
  const name = 'cuda libraries';
  if (process.platform !== 'linux' || process.arch !== 'x64') return { name, state: 'ok', found: 'only for Linux on x86-64', fix: null };
  const found = CUDA_LIBRARIES.map((library) => ({ library, file: libraries(library, env)[0] }));
  const missing = found.filter(({ file }) => file === undefined).map(({ library }) => library);
  if (missing.length === 0) return { name, state: 'ok', found: found.map(({ file }) => file).join(', '), fix: null };
  return {
    name,
    state: 'warning',
    found: `not found: ${missing.join(', ')}`,
    fix: 'install the CUDA runtime with cuBLAS, cuRAND, cuFFT and cuDNN 9 of the major version that the provider was built for, and name their folders in LD_LIBRARY_PATH',
  };
}

/** Why a provider cannot be used; null when it computes. */
async function tryProvider(provider: string, env: Record<string, string | undefined>): Promise<string | null> {
  const script = fileURLToPath(new URL('./try-provider.ts', import.meta.url));
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [script], {
      env: { ...env, RATCHET_EXECUTION_PROVIDER: provider } as NodeJS.ProcessEnv,
      timeout: TRY_BOUND_MS,
    });
    const { refusal } = JSON.parse(stdout) as { refusal: string | null };
    // The loader's own words go to the standard error.
    const cause = /with error: (.*)/.exec(stderr)?.[1];
    return refusal !== null && cause ? `${refusal}: ${cause.replace(`${providerFolder()}/`, '')}` : refusal;
  } catch (error) {
    const { killed, message } = error as Error & { killed?: boolean };
    return killed ? `it did not answer within ${TRY_BOUND_MS / 1000} s` : `its process ended: ${message.split('\n')[0]}`;
  }
}
