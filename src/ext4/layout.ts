/**
 * Where things lie. Block groups of 128 MiB; the first blocks of some groups hold copies of the superblock and group
 * descriptors and are known beforehand whatever the size becomes (`sparse_super`, `meta_bg`), so that data can be
 * written before the size is known. Bitmaps and inode tables follow the data (`flex_bg` allows any place).
 *
 *     group 0                         group 1                            group 2 ...
 *     super desc data data data ...   super desc data data data ...      data ... folders, bitmaps, inode tables, free
 */

/** Bytes of a block. */
export const BLOCK_SIZE = 4096;
export const BLOCKS_PER_GROUP = BLOCK_SIZE * 8;
/** Bytes of an inode on disk. */
export const INODE_SIZE = 256;
export const INODES_PER_BLOCK = BLOCK_SIZE / INODE_SIZE;
/** A bitmap of inodes is one block. */
export const MAX_INODES_PER_GROUP = BLOCK_SIZE * 8;
/** Bytes of a group descriptor with the feature `64bit`. */
export const DESCRIPTOR_SIZE = 64;
export const DESCRIPTORS_PER_BLOCK = BLOCK_SIZE / DESCRIPTOR_SIZE;
/** Block numbers are kept in 32 bits here: file systems up to 16 TiB. */
export const MAX_BLOCKS = 2 ** 32 - BLOCKS_PER_GROUP;

const isPowerOf = (value: number, base: number): boolean => {
  let power = base;
  while (power < value) power *= base;
  return power === value;
};

/** Whether a group begins with a superblock: 0, 1 and the powers of 3, 5 and 7. */
export const hasSuperblock = (group: number): boolean =>
  group <= 1 || isPowerOf(group, 3) || isPowerOf(group, 5) || isPowerOf(group, 7);

/** Whether a group holds a block of descriptors (its own meta group's): the first, second and last of 64. */
export const hasDescriptors = (group: number): boolean => {
  const place = group % DESCRIPTORS_PER_BLOCK;
  return place === 0 || place === 1 || place === DESCRIPTORS_PER_BLOCK - 1;
};

/** Blocks at a group's start that are taken whatever the file system holds: 0 to 2. */
export const reservedBlocks = (group: number): number => Number(hasSuperblock(group)) + Number(hasDescriptors(group));

/** The first block that is not reserved, from `block` on. */
export const firstFreeFrom = (block: number): number => {
  const group = Math.floor(block / BLOCKS_PER_GROUP);
  return Math.max(block, group * BLOCKS_PER_GROUP + reservedBlocks(group));
};

/** The first place from `block` on where `count` blocks lie together with no reserved one among them. */
export const firstRunFrom = (block: number, count: number): number => {
  let start = firstFreeFrom(block);
  for (;;) {
    const next = (Math.floor(start / BLOCKS_PER_GROUP) + 1) * BLOCKS_PER_GROUP;
    if (start + count <= next) return start;
    const reserved = reservedBlocks(next / BLOCKS_PER_GROUP);
    if (reserved === 0 && start + count <= next + BLOCKS_PER_GROUP) return start;
    start = next + reserved;
  }
};
