/**
 * Writes an ext4 file system, entry by entry, into a file: one pass, no root, no mount. Data goes to disk as it comes;
 * of an entry only some 140 bytes stay in memory. The same entries in the same order give the same bytes.
 *
 * There is no journal: images are mounted read-only. Blocks of zeros become holes, in the files as in the image.
 * `resize2fs` can enlarge the result.
 */
import type { FileHandle } from "node:fs/promises";
import { type BlockStream, blockStream } from "./block-stream.ts";
import { crc32c, crc32cOfWord } from "./crc32c.ts";
import { type Extents, MAX_FILE_SIZE, newExtents } from "./extents.ts";
import { type FileSink, openSink } from "./file-sink.ts";
import { finishFileSystem } from "./finish.ts";
import { planFolder } from "./folders.ts";
import { BLOCK_AREA_SIZE, inodeFlags, newInodes, ROOT_INODE, type Inodes, type Times } from "./inodes.ts";
import { BLOCK_SIZE, MAX_BLOCKS } from "./layout.ts";
import { fileTypes, newTree, type Place, refused, ROOT, show, type Tree } from "./tree.ts";
import { packXattrs, XATTR_CHECKSUM_OFFSET } from "./xattrs.ts";

export type { FileSink } from "./file-sink.ts";
export { isStorableXattr } from "./xattrs.ts";

/** What an entry has besides its content. */
export type Attributes = {
  /** Permissions with setuid, setgid and sticky: 12 bits. */
  mode: number;
  /** 32 bits. */
  uid: number;
  gid: number;
  /** Access, change and creation are set to it too. Out of 1901 to 2310 the nearest second that ext4 can tell. */
  mtime: Times;
  /** By full name (`security.capability`); an ACL as the system call gives it. See `isStorableXattr`. */
  xattrs?: ReadonlyMap<string, Uint8Array> | undefined;
};

export type SpecialType = "char" | "block" | "fifo" | "socket";
export type Device = { major: number; minor: number };

/**
 * Paths are bytes, one a character ("latin1"), relative to the root, without a slash in front; "" is the root. Folders
 * that are missing are made, 0755 and root's. All throw IMAGE_INVALID for what ext4 cannot hold, a path that is there
 * already, or one that leads through something else than a folder.
 */
export type Ext4Writer = {
  /** A folder. May come after what it holds, and again: the last one counts. */
  directory(path: string, attributes: Attributes): void;
  /**
   * A regular file. Its sink must have ended before the next `file` or `finish`.
   * @param size bytes
   */
  file(path: string, attributes: Attributes, size: number): Promise<FileSink>;
  symlink(path: string, attributes: Attributes, target: string): void;
  /** Another name of a file, symlink or special file, which may come later but must have come by `finish`. */
  link(path: string, target: string): void;
  /** @param device for `char` and `block` */
  special(path: string, attributes: Attributes, type: SpecialType, device?: Device): void;
  /**
   * Writes what is left. The file is not flushed to the disk, and not closed.
   * @returns bytes of the file system, bytes of its blocks in use, and the number of entries
   */
  finish(): Promise<{ size: number; bytesUsed: number; entries: number }>;
};

export type Ext4Options = {
  /** Bytes. Without it the least that holds all, and 1 MiB and a 64th of free space. IMAGE_TOO_LARGE when it does not do. */
  size?: number | undefined;
  /** At most 16 bytes of UTF-8. */
  label: string;
  /** 16 bytes. */
  uuid: Uint8Array;
};

const typeBits = {
  fifo: 0x1000,
  char: 0x2000,
  directory: 0x4000,
  block: 0x6000,
  file: 0x8000,
  symlink: 0xa000,
  socket: 0xc000,
} as const;
type Kind = keyof typeof typeBits;

/** Names of one file. Of folders in a folder there may be more; from then on they are not counted (`dir_nlink`). */
const MAX_LINKS = 65000;
/** A symlink's target up to here lies in the inode. */
const MAX_FAST_SYMLINK = BLOCK_AREA_SIZE - 1;
const MAX_SYMLINK = 4095;
const LOST_AND_FOUND = "lost+found";
const root: Attributes = { mode: 0o755, uid: 0, gid: 0, mtime: { seconds: 0, nanoseconds: 0 } };

/**
 * @param file empty, open for writing, and used by nobody else until `finish` has returned
 */
export const createExt4Writer = (file: FileHandle, options: Ext4Options): Ext4Writer => {
  const { uuid, size } = options;
  if (uuid.length !== 16) throw new Error("a UUID has 16 bytes");
  const label = Buffer.from(options.label);
  if (label.length > 16) throw new Error("a label has at most 16 bytes");
  const limit = size === undefined ? MAX_BLOCKS : Math.min(Math.floor(size / BLOCK_SIZE), MAX_BLOCKS);
  const uuidSeed = crc32c(0xffffffff, uuid);
  const inodes = newInodes(uuidSeed);
  const tree = newTree(ROOT_INODE);
  const stream = blockStream(file, limit);
  const extents = newExtents();
  /** Blocks that belong to inodes and wait for a call that can wait for the disk. */
  let waiting: { inode: number; xattrs: Buffer | undefined; target: Buffer | undefined }[] = [];
  /** Attribute blocks of folders: which one counts is known at the end. */
  const folderXattrs = new Map<number, Buffer>();
  /** Links whose target was not there yet. */
  const openLinks: { entry: number; target: string }[] = [];
  let current: { path: string } | undefined;
  /** Set when a file was begun and not written whole. */
  let isFinished = false;

  const applyAttributes = (inode: number, path: string, kind: Kind, attributes: Attributes): Buffer | undefined => {
    const { uid, gid, mode, mtime, xattrs } = attributes;
    const { inline, block } = packXattrs(path, xattrs);
    inodes.set(inode, "mode", typeBits[kind] | (mode & 0o7777));
    inodes.set(inode, "uid", uid);
    inodes.set(inode, "gid", gid);
    inodes.setTime(inode, mtime);
    inodes.setInlineXattrs(inode, inline);
    return block;
  };

  const makeDirectory = (place: Place): number => {
    const inode = inodes.make();
    applyAttributes(inode, "", "directory", root);
    return tree.add(place, inode, fileTypes.directory);
  };

  /** A new entry that is no folder; its attributes' block, if it has one, is returned. */
  const makeEntry = (path: string, kind: Exclude<Kind, "directory">, attributes: Attributes) => {
    const place = tree.place(path, makeDirectory);
    if (tree.child(place.parent, place.name) !== undefined) throw refused(path, "it is there already");
    const inode = inodes.make();
    const xattrs = applyAttributes(inode, path, kind, attributes);
    inodes.set(inode, "links", 1);
    tree.add(place, inode, fileTypes[kind]);
    return { inode, xattrs };
  };

  const putXattrs = async (inode: number, xattrs: Buffer): Promise<void> => {
    const block = await stream.put((target) => {
      target.set(xattrs);
      // The block's number, 64 bits, comes before its content.
      const number = crc32cOfWord(crc32cOfWord(uuidSeed, stream.next()), 0);
      target.writeUInt32LE(crc32c(number, target), XATTR_CHECKSUM_OFFSET);
    });
    inodes.set(inode, "xattrBlock", block);
    inodes.set(inode, "blocks", inodes.get(inode, "blocks") + 1);
  };

  const putWaiting = async (): Promise<void> => {
    const now = waiting;
    waiting = [];
    for (const { inode, xattrs, target } of now) {
      if (target !== undefined) {
        const block = await stream.put((bytes) => bytes.set(target));
        extents.clear();
        extents.add(0, block, 1);
        await storeExtents(inode, extents, inodes, stream);
      }
      if (xattrs !== undefined) await putXattrs(inode, xattrs);
    }
  };

  const checkOpen = (): void => {
    if (isFinished) throw new Error("the file system is finished");
  };
  const checkIdle = (): void => {
    checkOpen();
    if (current !== undefined) throw new Error(`${show(current.path)} was not written whole`);
  };

  makeDirectory({ parent: ROOT, name: LOST_AND_FOUND });
  inodes.set(tree.inode(tree.find(LOST_AND_FOUND) as number), "mode", typeBits.directory | 0o700);
  applyAttributes(ROOT_INODE, "", "directory", root);

  return {
    directory(path, attributes) {
      checkOpen();
      const place = path === "" ? undefined : tree.place(path, makeDirectory);
      const found = place === undefined ? ROOT : tree.child(place.parent, place.name);
      if (found !== undefined && tree.type(found) !== fileTypes.directory)
        throw refused(path, "it is there already, and no directory");
      const entry = found ?? makeDirectory(place as Place);
      const inode = tree.inode(entry);
      const block = applyAttributes(inode, path, "directory", attributes);
      if (block === undefined) folderXattrs.delete(inode);
      else folderXattrs.set(inode, block);
    },

    async file(path, attributes, fileSize) {
      checkIdle();
      if (!Number.isSafeInteger(fileSize) || fileSize < 0 || fileSize > MAX_FILE_SIZE)
        throw refused(path, `a file cannot have ${fileSize} bytes`);
      if (waiting.length > 0) await putWaiting();
      const { inode, xattrs } = makeEntry(path, "file", attributes);
      inodes.setSize(inode, fileSize);
      extents.clear();
      current = { path };
      return openSink({ path, size: fileSize, stream, extents }, async () => {
        await storeExtents(inode, extents, inodes, stream);
        if (xattrs !== undefined) await putXattrs(inode, xattrs);
        current = undefined;
      });
    },

    symlink(path, attributes, target) {
      checkOpen();
      if (target === "" || target.length > MAX_SYMLINK || target.includes("\0"))
        throw refused(path, `a symlink points to 1 to ${MAX_SYMLINK} bytes without a zero byte`);
      const bytes = Buffer.from(target, "latin1");
      const { inode, xattrs } = makeEntry(path, "symlink", attributes);
      inodes.setSize(inode, bytes.length);
      const isFast = bytes.length <= MAX_FAST_SYMLINK;
      if (isFast) inodes.blockArea(inode).set(bytes);
      if (!isFast || xattrs !== undefined) waiting.push({ inode, xattrs, target: isFast ? undefined : bytes });
    },

    link(path, target) {
      checkOpen();
      const place = tree.place(path, makeDirectory);
      if (tree.child(place.parent, place.name) !== undefined) throw refused(path, "it is there already");
      openLinks.push({ entry: tree.add(place, 0, 0), target });
    },

    special(path, attributes, type, device) {
      checkOpen();
      const number = type === "char" || type === "block" ? deviceNumber(path, device) : undefined;
      const { inode, xattrs } = makeEntry(path, type, attributes);
      if (number !== undefined) inodes.blockArea(inode).set(number);
      if (xattrs !== undefined) waiting.push({ inode, xattrs, target: undefined });
    },

    async finish() {
      checkIdle();
      isFinished = true;
      await putWaiting();
      resolveLinks(tree, inodes, openLinks);
      const hashSeed = new Uint32Array(new Uint8Array(uuid).buffer);
      if (hashSeed.every((word) => word === 0)) hashSeed[0] = 1;
      const folders = await putFolders(tree, inodes, stream, extents, hashSeed);
      for (const [inode, block] of folderXattrs) await putXattrs(inode, block);
      const identity = { uuid, label, hashSeed };
      const written = await finishFileSystem({ file, stream, inodes, identity, uuidSeed, size, folders });
      return { ...written, entries: tree.length - 2 };
    },
  };
};

/** Writes a file's runs to its inode and to a tree of blocks. */
const storeExtents = async (inode: number, extents: Extents, inodes: Inodes, stream: BlockStream): Promise<void> => {
  inodes.set(inode, "flags", inodes.get(inode, "flags") | inodeFlags.extents);
  const area = inodes.blockArea(inode);
  let treeBlocks = 0;
  if (extents.fitsInode()) extents.encodeInode(area);
  else treeBlocks = await extents.encode(area, inodes.seed(inode), stream.put);
  inodes.set(inode, "blocks", extents.blocks + treeBlocks);
};

/** A device's number as the kernel keeps it: 8 bits each in the first word, or 12 and 20 in the second. */
const deviceNumber = (path: string, device: Device | undefined): Buffer => {
  const { major, minor } = device ?? { major: -1, minor: -1 };
  const isWithin = (value: number, limit: number) => Number.isInteger(value) && value >= 0 && value < limit;
  if (!isWithin(major, 2 ** 12) || !isWithin(minor, 2 ** 20))
    throw refused(path, `there is no device with the numbers ${major}, ${minor}`);
  const words = Buffer.alloc(8);
  if (major < 256 && minor < 256) words.writeUInt32LE((major << 8) | minor, 0);
  else words.writeUInt32LE(((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0, 4);
  return words;
};

/** Gives each link its target's inode; a target may be a link itself. */
const resolveLinks = (tree: Tree, inodes: Inodes, links: { entry: number; target: string }[]): void => {
  let open = links;
  while (open.length > 0) {
    const left = open.filter(({ entry, target }) => {
      const found = tree.find(target);
      if (found === undefined) throw refused(tree.path(entry), `it links to ${show(target)}, which is not there`);
      const type = tree.type(found);
      if (type === 0) return true;
      if (type === fileTypes.directory)
        throw refused(tree.path(entry), `it links to ${show(target)}, which is a directory`);
      const inode = tree.inode(found);
      const count = inodes.get(inode, "links") + 1;
      if (count > MAX_LINKS) throw refused(tree.path(entry), `a file may have ${MAX_LINKS} names`);
      inodes.set(inode, "links", count);
      tree.resolve(entry, inode, type);
      return false;
    });
    const [first] = left;
    if (first !== undefined && left.length === open.length)
      throw refused(tree.path(first.entry), `it links to ${show(first.target)}, which leads back to it`);
    open = left;
  }
};

/** Writes the entries of every folder. Returns the inodes of all folders. */
const putFolders = async (
  tree: Tree,
  inodes: Inodes,
  stream: BlockStream,
  extents: Extents,
  hashSeed: Uint32Array,
): Promise<number[]> => {
  const { starts, children } = groupByParent(tree);
  const folders: number[] = [];
  for (let entry = 0; entry < tree.length; entry++) {
    if (tree.type(entry) !== fileTypes.directory) continue;
    const inode = tree.inode(entry);
    folders.push(inode);
    const own = children.subarray(starts[entry], starts[entry + 1]);
    const folder = {
      inode,
      parentInode: tree.inode(tree.parent(entry)),
      seed: inodes.seed(inode),
      children: own,
    };
    const plan = planFolder(tree, folder, hashSeed);
    if (plan === undefined) throw refused(tree.path(entry), `${own.length} entries are too many for one folder`);
    const links = own.reduce((sum, child) => sum + Number(tree.type(child) === fileTypes.directory), 2);
    inodes.set(inode, "links", links > MAX_LINKS ? 1 : links);
    if (plan.isIndexed) inodes.set(inode, "flags", inodeFlags.hashedFolder);
    inodes.setSize(inode, plan.blocks * BLOCK_SIZE);
    extents.clear();
    for (let index = 0; index < plan.blocks; index++)
      extents.add(index, await stream.put((block) => plan.fill(index, block)), 1);
    await storeExtents(inode, extents, inodes, stream);
  }
  return folders;
};

/** Entries by folder: those of entry N are `children` from `starts[N]` to `starts[N + 1]`, in the order they came in. */
const groupByParent = (tree: Tree): { starts: Uint32Array; children: Uint32Array } => {
  const starts = new Uint32Array(tree.length + 1);
  for (let entry = 1; entry < tree.length; entry++) {
    const next = tree.parent(entry) + 1;
    starts[next] = (starts[next] as number) + 1;
  }
  for (let entry = 0; entry < tree.length; entry++)
    starts[entry + 1] = (starts[entry + 1] as number) + (starts[entry] as number);
  const ends = starts.slice();
  const children = new Uint32Array(tree.length - 1);
  for (let entry = 1; entry < tree.length; entry++) {
    const parent = tree.parent(entry);
    children[ends[parent] as number] = entry;
    ends[parent] = (ends[parent] as number) + 1;
  }
  return { starts, children };
};
