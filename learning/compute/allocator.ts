/**
 * How memory is taken in processes that compute, for glibc's allocator (others ignore it). Fewer arenas: with one per thread it keeps several times the memory
 * that is in use. Huge pages where the system offers them (`madvise`), and what is freed is kept for the next operator up to a bound instead of going back
 * to the system at once: a step of 6 M parameters meets some ten page faults instead of thousands.
 */
export const ALLOCATOR_ENVIRONMENT = {
  MALLOC_ARENA_MAX: '2',
  GLIBC_TUNABLES: `glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=${32 * 2 ** 20}:glibc.malloc.trim_threshold=${256 * 2 ** 20}`,
};

/** Whether this process has them: elsewhere ONNX Runtime's arenas, costly as they are, are what keeps memory from going back and forth to the system. */
export const hasTunedAllocator = (): boolean =>
  process.platform === 'linux' && (process.env['GLIBC_TUNABLES'] ?? '').includes('glibc.malloc.trim_threshold');
