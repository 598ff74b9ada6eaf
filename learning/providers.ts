/**
 * Execution providers: on what ONNX Runtime computes. Configuration of the process alone (`RATCHET_EXECUTION_PROVIDER`), read where sessions are made
 * and nowhere above; nothing that is trained or sampled names one. It loads no native library: whether a provider works is found out by using it.
 */
import { badInput } from '../core/errors.ts';

export const PROVIDER_NAMES = ['cpu', 'cuda', 'webgpu', 'coreml', 'dml'] as const;
export type ProviderName = (typeof PROVIDER_NAMES)[number];

export interface Provider {
  name: ProviderName;
  /** Which of several devices, from 0. Only `cuda` and `dml` know more than one. */
  device: number;
}

const ENVIRONMENT = 'RATCHET_EXECUTION_PROVIDER';
const SEVERAL_DEVICES: readonly ProviderName[] = ['cuda', 'dml'];

/** What is needed where a provider is absent, in words for the one who must provide it. */
const NEEDS: Record<Exclude<ProviderName, 'cpu'>, string> = {
  cuda:
    'cuda needs Linux on x86-64, an NVIDIA driver, the CUDA 12 runtime with cuBLAS, cuRAND, cuFFT and cuDNN 9 where the loader finds them (LD_LIBRARY_PATH), and ' +
    'the provider libraries, a separate download: `ONNXRUNTIME_NODE_INSTALL=cuda12 npm rebuild onnxruntime-node`',
  webgpu: 'webgpu comes with onnxruntime-node; on Linux it needs a Vulkan loader (package libvulkan1) and a GPU driver with Vulkan',
  coreml: 'coreml is part of onnxruntime-node on macOS only',
  dml: 'dml (DirectML) is part of onnxruntime-node on Windows only',
};

/** `cuda`, or `cuda:1` for the second device. Throws BadInput naming `field`. */
export function parseProvider(text: string, field = ENVIRONMENT): Provider {
  const [, name, device] = /^([a-z]+)(?::(\d{1,3}))?$/.exec(text) ?? [];
  const known = PROVIDER_NAMES.find((each) => each === name);
  if (known === undefined || (device !== undefined && !SEVERAL_DEVICES.includes(known)))
    throw badInput(field, text, `one of ${PROVIDER_NAMES.join(', ')}; cuda and dml may name a device, as in cuda:1`);
  return { name: known, device: Number(device ?? 0) };
}

/** The provider of this process; `cpu` where nothing is said. Throws BadInput. */
export function currentProvider(env: Record<string, string | undefined> = process.env): Provider {
  return parseProvider(env[ENVIRONMENT] || 'cpu');
}

export function showProvider({ name, device }: Provider): string {
  return SEVERAL_DEVICES.includes(name) ? `${name}:${device}` : name;
}

/** How a process that computes is told. */
export function providerEnvironment(provider: Provider): Record<string, string> {
  return { [ENVIRONMENT]: showProvider(provider), ...nativeEnvironment(provider) };
}

/**
 * What a provider's libraries read from the environment when they start. Float32 shall be float32: with TF32, the default of ONNX Runtime's CUDA provider,
 * the factors of a product keep 10 bits. ONNX Runtime's binding for Node passes no option for it, so it is a variable of cuBLAS, which each session reads when
 * it is made. Reading is not safe while another thread adds variables (getenv of glibc): a session that misses it computes in TF32. So it is set before a
 * process starts wherever we start it, and nothing here writes the environment afterwards.
 */
export function nativeEnvironment(provider: Provider): Record<string, string> {
  return provider.name === 'cuda' ? { NVIDIA_TF32_OVERRIDE: process.env['NVIDIA_TF32_OVERRIDE'] ?? '0' } : {};
}

/** What is said of a provider that cannot be used, and what to do about it. */
export function showAbsent(provider: Provider, reason: string): string {
  return `the execution provider ${showProvider(provider)} cannot be used here: ${reason.trim()}. ${providerNeeds(provider.name)}`;
}

/** How to get a provider that is absent. */
export function providerNeeds(name: ProviderName): string {
  return name === 'cpu' ? 'cpu is always there' : NEEDS[name];
}
