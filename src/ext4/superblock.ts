/** The superblock and the group descriptors, and which features the file system has. */
import { crc32c, crc32cOfWord } from "./crc32c.ts";
import { HASH_VERSION } from "./folders.ts";
import { FIRST_INODE } from "./inodes.ts";
import { BLOCKS_PER_GROUP, DESCRIPTOR_SIZE, INODE_SIZE } from "./layout.ts";

/** Where the superblock lies in block 0, and its size, in bytes. In other blocks it begins at 0. */
export const SUPERBLOCK_OFFSET = 1024;
const SUPERBLOCK_SIZE = 1024;
const CHECKSUM_OFFSET = 1020;

const compatible = { ext_attr: 0x8, dir_index: 0x20 };
const incompatible = { filetype: 0x2, meta_bg: 0x10, extents: 0x40, "64bit": 0x80, flex_bg: 0x200 };
const readOnlyCompatible = {
  sparse_super: 0x1,
  large_file: 0x2,
  huge_file: 0x8,
  dir_nlink: 0x20,
  extra_isize: 0x40,
  metadata_csum: 0x400,
};
const allOf = (features: Record<string, number>): number => Object.values(features).reduce((sum, bit) => sum | bit, 0);

/** Names are hashed as unsigned bytes. */
const UNSIGNED_HASH = 2;
const MOUNT_WITH_XATTRS_AND_ACLS = 0x0c;
const LOG_GROUPS_PER_FLEX = 4;

export type Identity = {
  /** 16 bytes. */
  uuid: Uint8Array;
  /** At most 16 bytes. */
  label: Buffer;
  /** Four words. */
  hashSeed: Uint32Array;
};

export type Totals = { blocks: number; freeBlocks: number; inodesPerGroup: number; groups: number; freeInodes: number };

/** Writes a superblock to zeroed bytes. Times are 0: the same files give the same bytes. */
export const writeSuperblock = (
  target: Buffer,
  at: number,
  group: number,
  { uuid, label, hashSeed }: Identity,
  totals: Totals,
): void => {
  const word = (offset: number, value: number) => target.writeUInt32LE(value, at + offset);
  const half = (offset: number, value: number) => target.writeUInt16LE(value, at + offset);
  word(0, totals.inodesPerGroup * totals.groups);
  word(4, totals.blocks);
  word(12, totals.freeBlocks);
  word(16, totals.freeInodes);
  // Blocks and clusters of 1024 << 2 bytes.
  word(24, 2);
  word(28, 2);
  word(32, BLOCKS_PER_GROUP);
  word(36, BLOCKS_PER_GROUP);
  word(40, totals.inodesPerGroup);
  // No check after so many mounts.
  half(54, 0xffff);
  half(56, 0xef53);
  // Clean; go on after an error.
  half(58, 1);
  half(60, 1);
  // Revision 1: inodes of a size of their own.
  word(76, 1);
  word(84, FIRST_INODE);
  half(88, INODE_SIZE);
  half(90, group);
  word(92, allOf(compatible));
  word(96, allOf(incompatible));
  word(100, allOf(readOnlyCompatible));
  target.set(uuid, at + 104);
  target.set(label, at + 120);
  hashSeed.forEach((value, index) => {
    word(236 + index * 4, value);
  });
  target[at + 252] = HASH_VERSION;
  half(254, DESCRIPTOR_SIZE);
  word(256, MOUNT_WITH_XATTRS_AND_ACLS);
  half(348, 32);
  half(350, 32);
  word(352, UNSIGNED_HASH);
  target[at + 372] = LOG_GROUPS_PER_FLEX;
  // CRC-32C.
  target[at + 373] = 1;
  word(CHECKSUM_OFFSET, crc32c(0xffffffff, target, at, at + CHECKSUM_OFFSET));
};

export { SUPERBLOCK_SIZE };

/** Flags of a group: what of it was never written. */
export const groupFlags = { inodesUnused: 1, blocksUnused: 2, inodeTableZeroed: 4 } as const;

export type Group = {
  blockBitmap: number;
  inodeBitmap: number;
  inodeTable: number;
  freeBlocks: number;
  freeInodes: number;
  folders: number;
  /** Inodes at the table's end that were never used. */
  unusedInodes: number;
  flags: number;
  blockBitmapChecksum: number;
  inodeBitmapChecksum: number;
};

/** Writes a descriptor of 64 bytes to zeroed ones. Block numbers are below 2^32, so that their upper halves stay zero. */
export const writeDescriptor = (target: Buffer, at: number, index: number, group: Group, uuidSeed: number): void => {
  target.writeUInt32LE(group.blockBitmap, at);
  target.writeUInt32LE(group.inodeBitmap, at + 4);
  target.writeUInt32LE(group.inodeTable, at + 8);
  target.writeUInt16LE(group.freeBlocks & 0xffff, at + 12);
  target.writeUInt16LE(group.freeInodes & 0xffff, at + 14);
  target.writeUInt16LE(group.folders & 0xffff, at + 16);
  target.writeUInt16LE(group.flags, at + 18);
  target.writeUInt16LE(group.blockBitmapChecksum & 0xffff, at + 24);
  target.writeUInt16LE(group.inodeBitmapChecksum & 0xffff, at + 26);
  target.writeUInt16LE(group.unusedInodes & 0xffff, at + 28);
  target.writeUInt16LE(group.blockBitmapChecksum >>> 16, at + 56);
  target.writeUInt16LE(group.inodeBitmapChecksum >>> 16, at + 58);
  const checksum = crc32c(crc32cOfWord(uuidSeed, index), target, at, at + DESCRIPTOR_SIZE);
  target.writeUInt16LE(checksum & 0xffff, at + 30);
};
