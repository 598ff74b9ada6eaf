/**
 * The accelerators of this machine, as the system tells: NVIDIA's own tool, else the graphics devices that Linux lists. For the numeric fingerprint and for
 * people; nothing is chosen by it, and nothing is opened.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Device {
  name: string;
  /** Version of the driver; null where the system does not tell. */
  driver: string | null;
  memoryBytes: number | null;
}

/** nvidia-smi wakes a sleeping device, which takes seconds. */
const ASK_BOUND_MS = 20_000;
const DRM = '/sys/class/drm';

/** NVIDIA's devices in their order; null where there is no nvidia-smi or it fails. */
export function nvidiaDevices(): Device[] | null {
  try {
    const text = execFileSync('nvidia-smi', ['--query-gpu=name,driver_version,memory.total', '--format=csv,noheader,nounits'], {
      encoding: 'utf8',
      timeout: ASK_BOUND_MS,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return parseNvidia(text);
  } catch {
    // No such program, no driver under it, or no answer: there is nothing to be told.
    return null;
  }
}

/** Lines such as `NVIDIA H100 80GB HBM3, 580.159.04, 81559`; memory in MiB. */
export function parseNvidia(text: string): Device[] {
  return text
    .split('\n')
    .map((line) => line.split(',').map((part) => part.trim()))
    .filter(([name]) => name)
    .map(([name, driver, memory]) => ({ name: name!, driver: driver || null, memoryBytes: Number(memory) * 2 ** 20 || null }));
}

/** Graphics devices that Linux knows, by their PCI ids, such as `pci:10de:2330`. */
export function graphicsDevices(folder = DRM): Device[] {
  let cards: string[];
  try {
    cards = readdirSync(folder).filter((name) => /^card\d+$/.test(name));
  } catch {
    return []; // Not Linux, or no graphics at all.
  }
  const id = (card: string, which: string) =>
    readFileSync(join(folder, card, 'device', which), 'utf8')
      .trim()
      .replace(/^0x/, '');
  return cards.sort().flatMap((card) => {
    try {
      return [{ name: `pci:${id(card, 'vendor')}:${id(card, 'device')}`, driver: null, memoryBytes: null }];
    } catch {
      return []; // A virtual display has no ids.
    }
  });
}
