/** How much of an image banger takes: far above what real images have, and far below what would hurt the host. */
export type MergeLimits = {
  /** Entries of all layers. */
  entries: number;
  /** Bytes of all names and link targets. */
  names: number;
  /** Bytes of all extended attributes. */
  xattrs: number;
  /** Bytes of all layers when unpacked. */
  unpacked: number;
  /** Bytes of one layer when unpacked, for each byte that it has packed, once it is over `smallest`. */
  ratio: number;
  smallest: number;
};

export const mergeLimits: MergeLimits = {
  entries: 2_000_000,
  names: 256 * 2 ** 20,
  xattrs: 64 * 2 ** 20,
  unpacked: 256 * 2 ** 30,
  // Deflate cannot do better than 1032; zstd can, and then a layer is all zeros.
  ratio: 1100,
  smallest: 64 * 2 ** 20,
};
