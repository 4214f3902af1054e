/** Which blocks of a file lie where: runs, four of them in the inode, more in a tree of blocks. */
import { growingWords } from "./growing.ts";
import { crc32c } from "./crc32c.ts";
import { BLOCK_SIZE } from "./layout.ts";

const MAGIC = 0xf30a;
const HEADER_SIZE = 12;
const ENTRY_SIZE = 12;
const ROOT_ENTRIES = 4;
const BLOCK_ENTRIES = Math.floor((BLOCK_SIZE - HEADER_SIZE - 4) / ENTRY_SIZE);
const CHECKSUM_OFFSET = HEADER_SIZE + BLOCK_ENTRIES * ENTRY_SIZE;
/** Blocks of one run. */
const MAX_RUN = 32768;
/** Bytes of a file: its blocks are counted in 32 bits. */
export const MAX_FILE_SIZE = (2 ** 32 - 1) * BLOCK_SIZE;

export type Extents = {
  /** Block `logical` of the file, and those after it, are the file system's block `physical` and those after it. */
  add(logical: number, physical: number, blocks: number): void;
  /** Begins another file. */
  clear(): void;
  /**
   * Writes the inode's 60 bytes, and the tree's blocks through `put`.
   * @returns blocks that the tree takes
   */
  encode(target: Buffer, seed: number, put: (fill: (block: Buffer) => void) => Promise<number>): Promise<number>;
  /** The same for a file of which `fitsInode()` is true. */
  encodeInode(target: Buffer): void;
  fitsInode(): boolean;
  /** Blocks of the file that are stored. */
  readonly blocks: number;
};

/** Entries of one level of a tree: first block of the file, block it lies at, length (0 in an index). */
const WORDS = 3;

export const newExtents = (): Extents => {
  const runs = growingWords(3 * 1024);
  let blocks = 0;

  const writeHeader = (target: Buffer, count: number, max: number, depth: number): void => {
    target.writeUInt16LE(MAGIC, 0);
    target.writeUInt16LE(count, 2);
    target.writeUInt16LE(max, 4);
    target.writeUInt16LE(depth, 6);
  };

  /** Writes entries `from` to `to` of a level. */
  const writeNode = (target: Buffer, level: number[] | undefined, from: number, to: number, depth: number): void => {
    for (let entry = from; entry < to; entry++) {
      const at = HEADER_SIZE + (entry - from) * ENTRY_SIZE;
      if (level === undefined) {
        target.writeUInt32LE(runs.get(entry * WORDS), at);
        target.writeUInt16LE(runs.get(entry * WORDS + 2), at + 4);
        target.writeUInt32LE(runs.get(entry * WORDS + 1), at + 8);
      } else {
        target.writeUInt32LE(level[entry * 2] as number, at);
        target.writeUInt32LE(level[entry * 2 + 1] as number, at + 4);
      }
    }
    writeHeader(target, to - from, target.length === BLOCK_SIZE ? BLOCK_ENTRIES : ROOT_ENTRIES, depth);
  };

  const count = () => runs.length / WORDS;

  return {
    add(logical, physical, length) {
      blocks += length;
      let [at, from, left] = [logical, physical, length];
      const last = runs.length - WORDS;
      if (last >= 0) {
        const lastLength = runs.get(last + 2);
        if (runs.get(last) + lastLength === at && runs.get(last + 1) + lastLength === from) {
          const more = Math.min(left, MAX_RUN - lastLength);
          runs.set(last + 2, lastLength + more);
          [at, from, left] = [at + more, from + more, left - more];
        }
      }
      while (left > 0) {
        const run = Math.min(left, MAX_RUN);
        runs.push(at);
        runs.push(from);
        runs.push(run);
        [at, from, left] = [at + run, from + run, left - run];
      }
    },
    clear() {
      runs.clear();
      blocks = 0;
    },
    async encode(target, seed, put) {
      let level: number[] | undefined;
      let entries = count();
      let depth = 0;
      let taken = 0;
      for (; entries > ROOT_ENTRIES; depth++) {
        const above: number[] = [];
        for (let from = 0; from < entries; from += BLOCK_ENTRIES) {
          const below = level;
          const block = await put((node) => {
            writeNode(node, below, from, Math.min(from + BLOCK_ENTRIES, entries), depth);
            node.writeUInt32LE(crc32c(seed, node, 0, CHECKSUM_OFFSET), CHECKSUM_OFFSET);
          });
          above.push(below === undefined ? runs.get(from * WORDS) : (below[from * 2] as number), block);
          taken++;
        }
        level = above;
        entries = above.length / 2;
      }
      writeNode(target, level, 0, entries, depth);
      return taken;
    },
    encodeInode: (target) => writeNode(target, undefined, 0, count(), 0),
    fitsInode: () => count() <= ROOT_ENTRIES,
    get blocks() {
      return blocks;
    },
  };
};
