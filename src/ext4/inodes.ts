/** Inodes: kept in 108 bytes each until the end, then written as 256. */
import { crc32c, crc32cOfWord } from "./crc32c.ts";
import { growingBytes } from "./growing.ts";
import { BLOCK_SIZE, INODE_SIZE } from "./layout.ts";
import { FIXED_INODE_SIZE, INLINE_SIZE } from "./xattrs.ts";

/** Inodes that an entry can have; those before are reserved. */
export const FIRST_INODE = 11;
export const ROOT_INODE = 2;

export const inodeFlags = { extents: 0x80000, hashedFolder: 0x1000 } as const;

/** Bytes of the inode that hold its runs, a short symlink's target or a device number. */
export const BLOCK_AREA_SIZE = 60;

const fields = {
  mode: 0,
  links: 1,
  uid: 2,
  gid: 3,
  seconds: 4,
  /** Bits 0 and 1: seconds past 2038; the others: nanoseconds. */
  secondsExtra: 5,
  sizeLow: 6,
  sizeHigh: 7,
  /** Blocks of the file system. */
  blocks: 8,
  xattrBlock: 9,
  /** Where the attributes lie, plus 1; 0 for none. */
  inlineXattrs: 10,
  flags: 11,
  blockArea: 12,
} as const;

const WORDS = fields.blockArea + BLOCK_AREA_SIZE / 4;
const PER_CHUNK = 4096;

export type Times = { seconds: number; nanoseconds: number };
type Field = Exclude<keyof typeof fields, "blockArea">;

export type Inodes = {
  /** Makes the next inode. */
  make(): number;
  get(inode: number, field: Field): number;
  set(inode: number, field: Field, value: number): void;
  setSize(inode: number, bytes: number): void;
  setTime(inode: number, time: Times): void;
  /** The inode's 60 bytes. */
  blockArea(inode: number): Buffer;
  /** @param bytes of the inode's end, or undefined for none */
  setInlineXattrs(inode: number, bytes: Buffer | undefined): void;
  /** Start of the checksums of all that belongs to an inode. */
  seed(inode: number): number;
  /** Writes an inode's 256 bytes to zeroed ones, which begin at `offset` of a block. */
  encode(inode: number, block: Buffer, offset: number): void;
  /** The highest inode in use. */
  readonly last: number;
};

/** Seconds that ext4 can tell: to 2310; beyond lies a range that is read in two ways. */
const timeRange = { first: -(2 ** 31), last: 3 * 2 ** 32 - 2 ** 31 - 1 };

/** @param uuidSeed checksum of the file system's UUID */
export const newInodes = (uuidSeed: number): Inodes => {
  const chunks: Uint32Array[] = [];
  let last = 0;
  const xattrs = growingBytes(96 * 64);

  const chunk = (inode: number): Uint32Array => chunks[Math.floor(inode / PER_CHUNK)] as Uint32Array;
  const base = (inode: number): number => (inode % PER_CHUNK) * WORDS;
  const get = (inode: number, field: Field): number => chunk(inode)[base(inode) + fields[field]] as number;
  const set = (inode: number, field: Field, value: number): void => {
    chunk(inode)[base(inode) + fields[field]] = value;
  };
  const blockArea = (inode: number): Buffer => {
    const words = chunk(inode);
    return Buffer.from(words.buffer, (base(inode) + fields.blockArea) * 4, BLOCK_AREA_SIZE);
  };
  // No inode has a generation, the second word that counts.
  const seed = (inode: number): number => crc32cOfWord(crc32cOfWord(uuidSeed, inode), 0);

  const reserve = (upTo: number): void => {
    while (chunks.length * PER_CHUNK <= upTo) chunks.push(new Uint32Array(PER_CHUNK * WORDS));
    last = upTo;
  };
  reserve(FIRST_INODE - 1);

  return {
    make() {
      reserve(last + 1);
      return last;
    },
    get,
    set,
    setSize(inode, bytes) {
      set(inode, "sizeLow", bytes % 2 ** 32);
      set(inode, "sizeHigh", Math.floor(bytes / 2 ** 32));
    },
    setTime(inode, { seconds, nanoseconds }) {
      const whole = Math.min(Math.max(Math.floor(seconds), timeRange.first), timeRange.last);
      set(inode, "seconds", whole);
      const epoch = (whole - (whole | 0)) / 2 ** 32;
      set(inode, "secondsExtra", (Math.min(Math.max(nanoseconds, 0), 999_999_999) << 2) | epoch);
    },
    blockArea,
    setInlineXattrs(inode, bytes) {
      const held = get(inode, "inlineXattrs");
      if (bytes === undefined) {
        set(inode, "inlineXattrs", 0);
        return;
      }
      const at = held === 0 ? xattrs.extend(INLINE_SIZE) : held - 1;
      xattrs.bytes().set(bytes, at);
      set(inode, "inlineXattrs", at + 1);
    },
    seed,
    encode(inode, block, offset) {
      const words = chunk(inode);
      const at = base(inode);
      const uid = get(inode, "uid");
      const gid = get(inode, "gid");
      const seconds = get(inode, "seconds");
      const secondsExtra = get(inode, "secondsExtra");
      const sectors = get(inode, "blocks") * (BLOCK_SIZE / 512);
      // As words: a call for each field is what the time would go into, and hosts are little-endian as ext4 is.
      const target = new Uint32Array(block.buffer, block.byteOffset + offset, INODE_SIZE / 4);
      target[0] = get(inode, "mode") | (uid << 16);
      target[1] = get(inode, "sizeLow");
      // Access, change, modification and creation: one time for all, since there is only one to know.
      target[2] = target[3] = target[4] = target[36] = seconds;
      target[33] = target[34] = target[35] = target[37] = secondsExtra;
      target[6] = (gid & 0xffff) | (get(inode, "links") << 16);
      target[7] = sectors;
      target[8] = get(inode, "flags");
      for (let word = 0; word < BLOCK_AREA_SIZE / 4; word++)
        target[10 + word] = words[at + fields.blockArea + word] as number;
      target[26] = get(inode, "xattrBlock");
      target[27] = get(inode, "sizeHigh");
      target[29] = Math.floor(sectors / 2 ** 32);
      target[30] = (uid >>> 16) | (gid & 0xffff0000);
      target[32] = FIXED_INODE_SIZE - 128;
      const xattrsAt = get(inode, "inlineXattrs");
      if (xattrsAt !== 0)
        xattrs.bytes().copy(block, offset + FIXED_INODE_SIZE, xattrsAt - 1, xattrsAt - 1 + INLINE_SIZE);
      const checksum = crc32c(seed(inode), block, offset, offset + INODE_SIZE);
      target[31] = checksum & 0xffff;
      target[32] |= checksum & 0xffff0000;
    },
    get last() {
      return last;
    },
  };
};
