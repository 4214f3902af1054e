/**
 * Folders as ext4 stores them. What fits into one block is a list; what does not is an index by the hash of the names
 * (`dir_index`): a root, at most one level of nodes below it, and the blocks of entries, ordered by hash.
 */
import { crc32c, crc32cOfWord } from "./crc32c.ts";
import { BLOCK_SIZE } from "./layout.ts";
import { nameHash } from "./name-hash.ts";
import { fileTypes, type Tree } from "./tree.ts";

/** The end of each block of entries is an entry of no name that holds a checksum. */
const TAIL_SIZE = 12;
const ENTRIES_END = BLOCK_SIZE - TAIL_SIZE;
const TAIL_TYPE = 0xde;
const HEADER_SIZE = 8;
/** "." and "..". */
const DOTS_SIZE = 24;

/** Half of MD4; that bytes are unsigned is told by the superblock. */
export const HASH_VERSION = 1;
const ROOT_INFO_SIZE = 8;
const INDEX_TAIL_SIZE = 8;
const INDEX_ENTRY_SIZE = 8;
const ROOT_INDEX_AT = DOTS_SIZE + ROOT_INFO_SIZE;
const ROOT_LIMIT = (BLOCK_SIZE - ROOT_INDEX_AT - INDEX_TAIL_SIZE) / INDEX_ENTRY_SIZE;
const NODE_INDEX_AT = HEADER_SIZE;
const NODE_LIMIT = (BLOCK_SIZE - NODE_INDEX_AT - INDEX_TAIL_SIZE) / INDEX_ENTRY_SIZE;

export type Folder = {
  inode: number;
  parentInode: number;
  /** Start of the checksums of the folder's blocks. */
  seed: number;
  /** Entries of the tree that lie in it, from `from` to `to`. */
  children: Uint32Array;
};

export type PlannedFolder = {
  blocks: number;
  isIndexed: boolean;
  /** Writes block `index`, given zeroed, with its checksum. */
  fill(index: number, block: Buffer): void;
};

const entrySize = (nameLength: number): number => (HEADER_SIZE + nameLength + 3) & ~3;

/**
 * Decides how a folder is stored. Returns undefined for one with more entries than an index can hold.
 * @param hashSeed the superblock's `s_hash_seed`
 */
export const planFolder = (tree: Tree, folder: Folder, hashSeed: Uint32Array): PlannedFolder | undefined => {
  const { children } = folder;
  let size = DOTS_SIZE;
  for (const child of children) size += entrySize(tree.nameLength(child));
  if (size <= ENTRIES_END)
    return {
      blocks: 1,
      isIndexed: false,
      fill(_, block) {
        const last = writeDots(folder, block);
        finishEntries(folder.seed, block, writeEntries(tree, children, 0, children.length, block, DOTS_SIZE, last));
      },
    };
  return planIndex(tree, folder, hashSeed);
};

const planIndex = (tree: Tree, folder: Folder, hashSeed: Uint32Array): PlannedFolder | undefined => {
  const { sorted, hashes } = sortByHash(tree, folder.children, hashSeed);
  const starts = leafStarts(tree, sorted);
  const leaves = starts.length;
  const nodes = leaves <= ROOT_LIMIT ? 0 : Math.ceil(leaves / NODE_LIMIT);
  if (nodes > ROOT_LIMIT) return undefined;
  const firstLeaf = 1 + nodes;
  /** The hash from which on a leaf's names are; odd where names of the same hash are in the leaf before too. */
  const hashAt = (leaf: number): number => {
    const start = starts[leaf] as number;
    const hash = hashes[start] as number;
    return hashes[start - 1] === hash ? hash + 1 : hash;
  };
  return {
    blocks: firstLeaf + leaves,
    isIndexed: true,
    fill(index, block) {
      if (index === 0) {
        writeDots(folder, block);
        block.writeUInt16LE(BLOCK_SIZE - 12, 12 + 4);
        block[DOTS_SIZE + 4] = HASH_VERSION;
        block[DOTS_SIZE + 5] = ROOT_INFO_SIZE;
        block[DOTS_SIZE + 6] = nodes === 0 ? 0 : 1;
        const count = nodes === 0 ? leaves : nodes;
        const step = nodes === 0 ? 1 : NODE_LIMIT;
        writeIndex(folder.seed, block, ROOT_INDEX_AT, ROOT_LIMIT, count, (entry) => ({
          hash: hashAt(entry * step),
          block: nodes === 0 ? firstLeaf + entry : 1 + entry,
        }));
      } else if (index <= nodes) {
        const first = (index - 1) * NODE_LIMIT;
        block.writeUInt16LE(BLOCK_SIZE, 4);
        writeIndex(folder.seed, block, NODE_INDEX_AT, NODE_LIMIT, Math.min(NODE_LIMIT, leaves - first), (entry) => ({
          hash: hashAt(first + entry),
          block: firstLeaf + first + entry,
        }));
      } else {
        const leaf = index - firstLeaf;
        const to = starts[leaf + 1] ?? sorted.length;
        finishEntries(folder.seed, block, writeEntries(tree, sorted, starts[leaf] as number, to, block, 0, 0));
      }
    },
  };
};

const sortByHash = (
  tree: Tree,
  children: Uint32Array,
  hashSeed: Uint32Array,
): { sorted: Uint32Array; hashes: Uint32Array } => {
  const names = tree.names();
  const unsorted = new Uint32Array(children.length);
  for (let at = 0; at < children.length; at++) {
    const child = children[at] as number;
    unsorted[at] = nameHash(hashSeed, names, tree.nameStart(child), tree.nameLength(child));
  }
  const order = new Uint32Array(children.length).map((_, at) => at);
  order.sort((a, b) => (unsorted[a] as number) - (unsorted[b] as number) || a - b);
  return { sorted: order.map((at) => children[at] as number), hashes: order.map((at) => unsorted[at] as number) };
};

/** Index of the first entry of each leaf. */
const leafStarts = (tree: Tree, sorted: Uint32Array): number[] => {
  const starts: number[] = [];
  let room = 0;
  for (let at = 0; at < sorted.length; at++) {
    const size = entrySize(tree.nameLength(sorted[at] as number));
    if (size > room) {
      starts.push(at);
      room = ENTRIES_END;
    }
    room -= size;
  }
  return starts;
};

const writeEntry = (block: Buffer, at: number, inode: number, size: number, nameLength: number, type: number): void => {
  block.writeUInt32LE(inode, at);
  block.writeUInt16LE(size, at + 4);
  block[at + 6] = nameLength;
  block[at + 7] = type;
};

/** Returns where the last entry begins. */
const writeDots = ({ inode, parentInode }: Folder, block: Buffer): number => {
  writeEntry(block, 0, inode, 12, 1, fileTypes.directory);
  block.write(".", HEADER_SIZE, "latin1");
  writeEntry(block, 12, parentInode, 12, 2, fileTypes.directory);
  block.write("..", 12 + HEADER_SIZE, "latin1");
  return 12;
};

/** Writes entries from `start` on. Returns where the last one begins, which is `last` when there is none. */
const writeEntries = (
  tree: Tree,
  entries: Uint32Array,
  from: number,
  to: number,
  block: Buffer,
  start: number,
  last: number,
): number => {
  const names = tree.names();
  let at = start;
  let lastAt = last;
  for (let index = from; index < to; index++) {
    const entry = entries[index] as number;
    const length = tree.nameLength(entry);
    const size = entrySize(length);
    writeEntry(block, at, tree.inode(entry), size, length, tree.type(entry));
    names.copy(block, at + HEADER_SIZE, tree.nameStart(entry), tree.nameStart(entry) + length);
    lastAt = at;
    at += size;
  }
  return lastAt;
};

/** The last entry takes the rest of the block, but for the tail. */
const finishEntries = (seed: number, block: Buffer, last: number): void => {
  block.writeUInt16LE(ENTRIES_END - last, last + 4);
  writeEntry(block, ENTRIES_END, 0, TAIL_SIZE, 0, TAIL_TYPE);
  block.writeUInt32LE(crc32c(seed, block, 0, ENTRIES_END), ENTRIES_END + HEADER_SIZE);
};

/** The first entry has no hash: its place holds how many entries there may be and are. */
const writeIndex = (
  seed: number,
  block: Buffer,
  at: number,
  limit: number,
  count: number,
  entryOf: (index: number) => { hash: number; block: number },
): void => {
  for (let index = 0; index < count; index++) {
    const entry = entryOf(index);
    block.writeUInt32LE(entry.hash, at + index * INDEX_ENTRY_SIZE);
    block.writeUInt32LE(entry.block, at + index * INDEX_ENTRY_SIZE + 4);
  }
  block.writeUInt16LE(limit, at);
  block.writeUInt16LE(count, at + 2);
  const checksum = crc32c(seed, block, 0, at + count * INDEX_ENTRY_SIZE);
  // The tail's own two words, reserved and checksum, count as zeros.
  block.writeUInt32LE(crc32cOfWord(crc32cOfWord(checksum, 0), 0), at + limit * INDEX_ENTRY_SIZE + 4);
};
