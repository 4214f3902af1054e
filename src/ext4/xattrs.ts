/** Extended attributes as ext4 stores them: in what is left of the inode, else in a block of their own. */
import { BLOCK_SIZE, INODE_SIZE } from "./layout.ts";
import { refused } from "./tree.ts";

/** Bytes of the inode's fixed part, those that `i_extra_isize` counts included. */
export const FIXED_INODE_SIZE = 160;
/** Bytes of an inode that can hold attributes. */
export const INLINE_SIZE = INODE_SIZE - FIXED_INODE_SIZE;

const MAGIC = 0xea020000;
const BLOCK_HEADER_SIZE = 32;
const ENTRY_HEADER_SIZE = 16;
/** Four zero bytes end the list of entries. */
const TERMINATOR_SIZE = 4;
const INLINE_CAPACITY = INLINE_SIZE - 4 - TERMINATOR_SIZE;
const BLOCK_CAPACITY = BLOCK_SIZE - BLOCK_HEADER_SIZE - TERMINATOR_SIZE;

/** Name spaces that ext4 knows, as the number that stands for each. ACLs have a form of their own on disk. */
const prefixes: readonly { prefix: string; index: number; isAcl?: boolean }[] = [
  { prefix: "system.posix_acl_access", index: 2, isAcl: true },
  { prefix: "system.posix_acl_default", index: 3, isAcl: true },
  { prefix: "user.", index: 1 },
  { prefix: "trusted.", index: 4 },
  { prefix: "security.", index: 6 },
];

type Stored = { index: number; name: Buffer; value: Uint8Array };

const prefixOf = (name: string) =>
  prefixes.find(({ prefix, isAcl }) =>
    isAcl ? name === prefix : name.length > prefix.length && name.startsWith(prefix),
  );

/** Whether ext4 has a place for an attribute of that name. */
export const isStorableXattr = (name: string): boolean => prefixOf(name) !== undefined && name.length <= 255;

export type PackedXattrs = {
  /** The inode's last 96 bytes. */
  inline: Buffer | undefined;
  /** A block whose checksum is missing. */
  block: Buffer | undefined;
};

/**
 * @param path of the entry, for messages
 * @throws IMAGE_INVALID for a name space that ext4 does not know, a broken ACL, or more than a block holds
 */
export const packXattrs = (path: string, xattrs: ReadonlyMap<string, Uint8Array> | undefined): PackedXattrs => {
  if (xattrs === undefined || xattrs.size === 0) return { inline: undefined, block: undefined };
  const all = [...xattrs].map(([name, value]) => toStored(path, name, value)).sort(byIndexLengthName);
  const inline: Stored[] = [];
  const inBlock: Stored[] = [];
  let room = INLINE_CAPACITY;
  for (const one of all) {
    const size = sizeOf(one);
    if (size <= room) inline.push(one);
    else inBlock.push(one);
    room -= size <= room ? size : 0;
  }
  const needed = inBlock.reduce((sum, one) => sum + sizeOf(one), 0);
  if (needed > BLOCK_CAPACITY)
    throw refused(path, `its extended attributes take ${needed} bytes, and may take ${BLOCK_CAPACITY}`);
  return {
    inline: inline.length === 0 ? undefined : packInline(inline),
    block: inBlock.length === 0 ? undefined : packBlock(inBlock),
  };
};

const toStored = (path: string, name: string, value: Uint8Array): Stored => {
  const found = prefixOf(name);
  if (found === undefined || !isStorableXattr(name))
    throw refused(path, `ext4 has no extended attribute ${name.slice(0, 255)}`);
  return {
    index: found.index,
    name: Buffer.from(name.slice(found.prefix.length), "latin1"),
    value: found.isAcl ? aclToDisk(path, value) : value,
  };
};

const byIndexLengthName = (a: Stored, b: Stored): number =>
  a.index - b.index || a.name.length - b.name.length || Buffer.compare(a.name, b.name);

const padded = (bytes: number): number => (bytes + 3) & ~3;
const sizeOf = ({ name, value }: Stored): number => padded(ENTRY_HEADER_SIZE + name.length) + padded(value.length);

/** Writes entries from `at` on, and their values from the end of `target`; values count from `base`. */
const packEntries = (target: Buffer, at: number, base: number, entries: Stored[], withHash: boolean): number => {
  let entryAt = at;
  let valueAt = target.length;
  let hash = 0;
  for (const { index, name, value } of entries) {
    valueAt -= padded(value.length);
    target[entryAt] = name.length;
    target[entryAt + 1] = index;
    target.writeUInt16LE(value.length === 0 ? 0 : valueAt - base, entryAt + 2);
    target.writeUInt32LE(value.length, entryAt + 8);
    target.set(name, entryAt + ENTRY_HEADER_SIZE);
    target.set(value, valueAt);
    if (withHash) {
      const entryHash = hashOf(name, target, valueAt, padded(value.length));
      target.writeUInt32LE(entryHash, entryAt + 12);
      hash = ((hash << 16) ^ (hash >>> 16) ^ entryHash) >>> 0;
    }
    entryAt += padded(ENTRY_HEADER_SIZE + name.length);
  }
  return hash;
};

/** The hash that the kernel keeps of an entry: name, then value in words. */
const hashOf = (name: Uint8Array, target: Buffer, valueAt: number, valueSize: number): number => {
  let hash = 0;
  for (const byte of name) hash = ((hash << 5) ^ (hash >>> 27) ^ byte) >>> 0;
  for (let at = 0; at < valueSize; at += 4)
    hash = ((hash << 16) ^ (hash >>> 16) ^ target.readUInt32LE(valueAt + at)) >>> 0;
  return hash;
};

const packInline = (entries: Stored[]): Buffer => {
  const bytes = Buffer.alloc(INLINE_SIZE);
  bytes.writeUInt32LE(MAGIC, 0);
  packEntries(bytes, 4, 4, entries, false);
  return bytes;
};

const packBlock = (entries: Stored[]): Buffer => {
  const bytes = Buffer.alloc(BLOCK_SIZE);
  bytes.writeUInt32LE(MAGIC, 0);
  // One reference, one block.
  bytes.writeUInt32LE(1, 4);
  bytes.writeUInt32LE(1, 8);
  bytes.writeUInt32LE(packEntries(bytes, BLOCK_HEADER_SIZE, 0, entries, true), 12);
  return bytes;
};

/** Offset of the checksum in a block of attributes. */
export const XATTR_CHECKSUM_OFFSET = 16;

/** Tags of an ACL's entries, and whether an entry of that tag names a user or group. */
const aclTags = new Map([
  [0x01, false],
  [0x02, true],
  [0x04, false],
  [0x08, true],
  [0x10, false],
  [0x20, false],
]);

/** An ACL from the form of the system call (version 2, 8 bytes an entry) to the one on disk (version 1, 4 or 8). */
const aclToDisk = (path: string, value: Uint8Array): Uint8Array => {
  const input = Buffer.from(value.buffer, value.byteOffset, value.length);
  if (input.length < 4 || (input.length - 4) % 8 !== 0 || input.readUInt32LE(0) !== 2)
    throw refused(path, "its access control list is damaged");
  const output = Buffer.alloc(input.length);
  output.writeUInt32LE(1, 0);
  let end = 4;
  for (let at = 4; at < input.length; at += 8) {
    const hasId = aclTags.get(input.readUInt16LE(at));
    if (hasId === undefined) throw refused(path, "its access control list is damaged");
    input.copy(output, end, at, at + (hasId ? 8 : 4));
    end += hasId ? 8 : 4;
  }
  return output.subarray(0, end);
};
