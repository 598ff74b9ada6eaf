/**
 * The two server programs that Ratchet runs on one machine: which version, what its release is called, and how Go builds it. Data only.
 * The names of archives and checksum files are those in the release configuration that each project ships with the pinned version.
 */
import { fileURLToPath } from 'node:url';

export interface ServerProgram {
  name: 'temporal' | 'versitygw';
  /** For people: what it is for. */
  title: string;
  /** Pinned; without a leading v. */
  version: string;
  /** Finds the version, without a leading v, in the output of `--version`. */
  versionPattern: RegExp;
  /** `owner/name` below the release site. */
  repository: string;
  /** Name of the release archive; null where the project publishes none for this machine. */
  archive(platform: NodeJS.Platform, architecture: string): string | null;
  /** Name of the file of SHA-256 sums in the same release. */
  checksums: string;
  /** Directory of the Go tools module that pins its sources. */
  toolsModule: string;
  goPackage: string;
  ldflags: string;
  /** Least Go version that builds it; an older one (from 1.21 on) may fetch it by itself. */
  goVersion: string;
}

/** The first words of `--version`: `temporal version 1.8.2 (Server 1.31.2, UI 2.50.1)`. */
export const TEMPORAL: ServerProgram = {
  name: 'temporal',
  title: 'Temporal',
  version: '1.8.2',
  versionPattern: /^temporal version v?(\d+\.\d+\.\d+(?:-[\w.]+)?)/,
  repository: 'temporalio/cli',
  archive: (platform, architecture) => {
    const [os, arch] = [operatingSystem(platform), { x64: 'amd64', arm64: 'arm64' }[architecture]];
    return os && arch ? `temporal_cli_1.8.2_${os}_${arch}.tar.gz` : null;
  },
  checksums: 'checksums.txt',
  toolsModule: fileURLToPath(new URL('tools/temporal', import.meta.url)),
  goPackage: 'github.com/temporalio/cli/cmd/temporal',
  ldflags: '-s -w -X github.com/temporalio/cli/internal/temporalcli.Version=1.8.2',
  goVersion: '1.26.4',
};

/** 1.8.0 is the first whose conditional writes have exactly one winner under a race. `--version` says `Version  : v1.8.0` among other lines. */
export const VERSITYGW: ServerProgram = {
  name: 'versitygw',
  title: 'the S3 server',
  version: '1.8.0',
  versionPattern: /^Version\s*: v?(\d+\.\d+\.\d+(?:-[\w.]+)?)/m,
  repository: 'versity/versitygw',
  archive: (platform, architecture) => {
    const [os, arch] = [operatingSystem(platform), { x64: 'x86_64', arm64: 'arm64' }[architecture]];
    return os && arch ? `versitygw_v1.8.0_${os[0]!.toUpperCase()}${os.slice(1)}_${arch}.tar.gz` : null;
  },
  checksums: 'checksums.txt',
  toolsModule: fileURLToPath(new URL('tools/versitygw', import.meta.url)),
  goPackage: 'github.com/versity/versitygw/cmd/versitygw',
  ldflags: '-s -w -X main.Version=1.8.0',
  goVersion: '1.25.0',
};

function operatingSystem(platform: NodeJS.Platform): string | undefined {
  return ({ linux: 'linux', darwin: 'darwin' } as Partial<Record<NodeJS.Platform, string>>)[platform];
}
