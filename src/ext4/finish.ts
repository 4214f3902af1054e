/** The end of a file system: how large it is, its bitmaps, inode tables, descriptors and superblocks. */
import type { FileHandle } from "node:fs/promises";
import type { BlockStream } from "./block-stream.ts";
import { tooLarge } from "./block-stream.ts";
import { crc32c } from "./crc32c.ts";
import { FIRST_INODE, type Inodes } from "./inodes.ts";
import {
  BLOCK_SIZE,
  BLOCKS_PER_GROUP,
  DESCRIPTOR_SIZE,
  DESCRIPTORS_PER_BLOCK,
  firstRunFrom,
  hasDescriptors,
  hasSuperblock,
  INODE_SIZE,
  INODES_PER_BLOCK,
  MAX_BLOCKS,
  MAX_INODES_PER_GROUP,
  reservedBlocks,
} from "./layout.ts";
import {
  type Group,
  groupFlags,
  type Identity,
  SUPERBLOCK_OFFSET,
  writeDescriptor,
  writeSuperblock,
} from "./superblock.ts";

/** One inode for so many blocks, as mkfs.ext4 does it; those that are not used are holes. */
const BLOCKS_PER_INODE = 4;
/** Free space of a file system whose size was not given: 1 MiB and a 64th. */
const reserveFor = (blocks: number): number => 256 + Math.ceil(blocks / 64);
/** The last group has room for something. */
const SMALLEST_LAST_GROUP = 1024;

type Plan = {
  blocks: number;
  groups: number;
  inodesPerGroup: number;
  /** First block of each group's block bitmap, inode bitmap, inode table. */
  blockBitmaps: Uint32Array;
  inodeBitmaps: Uint32Array;
  inodeTables: Uint32Array;
  /** The first block after all of it. */
  end: number;
  /** Blocks before `end` that nothing lies in, each with how many. */
  gaps: [start: number, blocks: number][];
};

const roundUp = (value: number, unit: number): number => Math.ceil(value / unit) * unit;

/** Places bitmaps and tables of so many groups from block `start` on. */
const place = (start: number, groups: number, inodesPerGroup: number): Omit<Plan, "blocks"> => {
  const gaps: Plan["gaps"] = [];
  let at = start;
  const take = (count: number): number => {
    const found = firstRunFrom(at, count);
    // Reserved blocks in between are taken too, by what they are reserved for.
    for (let block = firstRunFrom(at, 1); block < found; ) {
      const groupEnd = Math.min(found, roundUp(block + 1, BLOCKS_PER_GROUP));
      gaps.push([block, groupEnd - block]);
      block = Math.min(found, groupEnd + reservedBlocks(groupEnd / BLOCKS_PER_GROUP));
    }
    at = found + count;
    return found;
  };
  const takeEach = (count: number) => new Uint32Array(groups).map(() => take(count));
  const blockBitmaps = takeEach(1);
  const inodeBitmaps = takeEach(1);
  const inodeTables = takeEach(inodesPerGroup / INODES_PER_BLOCK);
  return { groups, inodesPerGroup, blockBitmaps, inodeBitmaps, inodeTables, end: at, gaps };
};

/** The groups, inodes of each and size that hold `inodes` and what was written up to `start`. */
const planFixed = (start: number, inodes: number, blocks: number): Plan => {
  const groups = Math.ceil(blocks / BLOCKS_PER_GROUP);
  const wanted = [Math.max(inodes, Math.ceil(blocks / BLOCKS_PER_INODE)), inodes];
  for (const count of wanted) {
    const inodesPerGroup = Math.min(MAX_INODES_PER_GROUP, roundUp(Math.ceil(count / groups), INODES_PER_BLOCK));
    const plan = place(start, groups, inodesPerGroup);
    if (inodesPerGroup * groups >= inodes && plan.end <= blocks) return { ...plan, blocks };
  }
  throw tooLarge(blocks);
};

const planSmallest = (start: number, inodes: number): Plan => {
  for (let groups = Math.ceil(inodes / MAX_INODES_PER_GROUP); ; groups++) {
    const wanted = Math.max(inodes + Math.ceil(inodes / 16), Math.ceil((groups * BLOCKS_PER_GROUP) / BLOCKS_PER_INODE));
    const inodesPerGroup = Math.min(MAX_INODES_PER_GROUP, roundUp(Math.ceil(wanted / groups), INODES_PER_BLOCK));
    const plan = place(start, groups, inodesPerGroup);
    let blocks = Math.max(plan.end + reserveFor(plan.end), (groups - 1) * BLOCKS_PER_GROUP + SMALLEST_LAST_GROUP);
    const inLast = blocks % BLOCKS_PER_GROUP;
    if (inLast !== 0 && inLast < SMALLEST_LAST_GROUP) blocks += SMALLEST_LAST_GROUP - inLast;
    if (blocks > MAX_BLOCKS) throw tooLarge(MAX_BLOCKS);
    if (Math.ceil(blocks / BLOCKS_PER_GROUP) === groups) return { ...plan, blocks };
  }
};

const setBits = (bitmap: Buffer, from: number, to: number, value: 0 | 1): void => {
  for (let bit = from; bit < to; ) {
    if (bit % 8 === 0 && to - bit >= 8) {
      const bytes = Math.floor((to - bit) / 8);
      bitmap.fill(value * 255, bit / 8, bit / 8 + bytes);
      bit += bytes * 8;
    } else {
      const mask = 1 << (bit & 7);
      const byte = bitmap[bit >> 3] as number;
      bitmap[bit >> 3] = value === 1 ? byte | mask : byte & ~mask;
      bit++;
    }
  }
};

/** Fills the block bitmap of a group. Returns how many of its blocks are free. */
const fillBlockBitmap = (bitmap: Buffer, index: number, plan: Plan): number => {
  const first = index * BLOCKS_PER_GROUP;
  const inGroup = (block: number) => Math.min(Math.max(block - first, 0), BLOCKS_PER_GROUP);
  const size = inGroup(plan.blocks);
  const used = inGroup(plan.end);
  setBits(bitmap, 0, Math.max(used, reservedBlocks(index)), 1);
  let free = size - Math.max(used, reservedBlocks(index));
  for (const [start, blocks] of plan.gaps) {
    setBits(bitmap, inGroup(start), inGroup(start + blocks), 0);
    free += inGroup(start + blocks) - inGroup(start);
  }
  setBits(bitmap, size, BLOCKS_PER_GROUP, 1);
  return free;
};

const isUntouched = (index: number, plan: Plan): boolean =>
  index < plan.groups - 1 && index * BLOCKS_PER_GROUP >= plan.end;

export type Finish = {
  file: FileHandle;
  stream: BlockStream;
  inodes: Inodes;
  identity: Identity;
  uuidSeed: number;
  /** Bytes of the file system, or undefined for as few as hold it. */
  size: number | undefined;
  /** Inodes of folders, for the count that each group keeps. */
  folders: Iterable<number>;
};

/**
 * Writes all that follows the data.
 * @returns bytes of the file system, and of its blocks in use
 */
export const finishFileSystem = async (finish: Finish): Promise<{ size: number; bytesUsed: number }> => {
  const { file, stream, inodes, size } = finish;
  const start = stream.next();
  const needed = inodes.last;
  const plan =
    size === undefined ? planSmallest(start, needed) : planFixed(start, needed, Math.floor(size / BLOCK_SIZE));
  const groups = await writeBitmaps(finish, plan);
  await writeInodeTables(finish, plan);
  await stream.end();
  await file.truncate(plan.blocks * BLOCK_SIZE);
  const freeBlocks = await writeHeaders(finish, plan, groups);
  return { size: plan.blocks * BLOCK_SIZE, bytesUsed: (plan.blocks - freeBlocks) * BLOCK_SIZE };
};

const writeBitmaps = async ({ stream, inodes, uuidSeed, folders }: Finish, plan: Plan): Promise<Group[]> => {
  const { inodesPerGroup } = plan;
  const foldersOf = new Uint32Array(plan.groups);
  for (const inode of folders) {
    const group = Math.floor((inode - 1) / inodesPerGroup);
    foldersOf[group] = (foldersOf[group] as number) + 1;
  }
  const groups: Group[] = [];
  const bitmap = Buffer.alloc(BLOCK_SIZE);
  const writeAt = async (block: number): Promise<void> => {
    if (stream.next() !== block) await stream.seek(block);
    await stream.put((target) => target.set(bitmap));
  };
  for (let index = 0; index < plan.groups; index++) {
    const freeBlocks = fillBlockBitmap(bitmap.fill(0), index, plan);
    const isUnused = isUntouched(index, plan);
    const usedInodes = Math.min(Math.max(inodes.last - index * inodesPerGroup, 0), inodesPerGroup);
    if (!isUnused) await writeAt(plan.blockBitmaps[index] as number);
    groups.push({
      blockBitmap: plan.blockBitmaps[index] as number,
      inodeBitmap: plan.inodeBitmaps[index] as number,
      inodeTable: plan.inodeTables[index] as number,
      freeBlocks,
      freeInodes: inodesPerGroup - usedInodes,
      folders: foldersOf[index] as number,
      unusedInodes: inodesPerGroup - usedInodes,
      flags:
        groupFlags.inodeTableZeroed |
        (isUnused ? groupFlags.blocksUnused : 0) |
        (usedInodes === 0 ? groupFlags.inodesUnused : 0),
      blockBitmapChecksum: isUnused ? 0 : crc32c(uuidSeed, bitmap),
      inodeBitmapChecksum: 0,
    });
  }
  for (const [index, group] of groups.entries()) {
    if (group.flags & groupFlags.inodesUnused) continue;
    bitmap.fill(0);
    setBits(bitmap, 0, inodesPerGroup - group.freeInodes, 1);
    setBits(bitmap, inodesPerGroup, BLOCK_SIZE * 8, 1);
    group.inodeBitmapChecksum = crc32c(uuidSeed, bitmap, 0, inodesPerGroup / 8);
    await writeAt(plan.inodeBitmaps[index] as number);
  }
  return groups;
};

const writeInodeTables = async ({ stream, inodes }: Finish, plan: Plan): Promise<void> => {
  for (let index = 0; index * plan.inodesPerGroup < inodes.last; index++) {
    const first = index * plan.inodesPerGroup + 1;
    const last = Math.min(inodes.last, first + plan.inodesPerGroup - 1);
    const table = plan.inodeTables[index] as number;
    if (stream.next() !== table) await stream.seek(table);
    for (let inode = first; inode <= last; inode += INODES_PER_BLOCK) {
      await stream.put((block) => {
        for (let at = 0; at < INODES_PER_BLOCK && inode + at <= last; at++) {
          if (inode + at < FIRST_INODE && !inodes.get(inode + at, "links")) continue;
          inodes.encode(inode + at, block, at * INODE_SIZE);
        }
      });
    }
  }
};

/** Superblocks and descriptors, the first superblock last: until it is there, the file is no file system. */
const writeHeaders = async ({ file, identity, uuidSeed }: Finish, plan: Plan, groups: Group[]): Promise<number> => {
  const freeBlocks = groups.reduce((sum, group) => sum + group.freeBlocks, 0);
  const freeInodes = groups.reduce((sum, group) => sum + group.freeInodes, 0);
  const totals = { ...plan, freeBlocks, freeInodes };
  for (let index = plan.groups - 1; index >= 0; index--) {
    const blocks: Buffer[] = [];
    if (hasSuperblock(index)) {
      const block = Buffer.alloc(BLOCK_SIZE);
      writeSuperblock(block, index === 0 ? SUPERBLOCK_OFFSET : 0, index, identity, totals);
      blocks.push(block);
    }
    if (hasDescriptors(index)) {
      const block = Buffer.alloc(BLOCK_SIZE);
      const first = index - (index % DESCRIPTORS_PER_BLOCK);
      for (const [at, group] of groups.slice(first, first + DESCRIPTORS_PER_BLOCK).entries())
        writeDescriptor(block, at * DESCRIPTOR_SIZE, first + at, group, uuidSeed);
      blocks.push(block);
    }
    if (blocks.length === 0) continue;
    const bytes = Buffer.concat(blocks);
    const { bytesWritten } = await file.write(bytes, 0, bytes.length, index * BLOCKS_PER_GROUP * BLOCK_SIZE);
    if (bytesWritten !== bytes.length) throw new Error("a superblock was written in part");
  }
  return freeBlocks;
};
