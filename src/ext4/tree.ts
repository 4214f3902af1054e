/** Names and where they are: every entry of every folder, in a few typed arrays and one hash table. */
import { BangerError } from "../contract/errors.ts";
import { growingBytes, growingWords } from "./growing.ts";

/** File types as a folder's entries tell them. */
export const fileTypes = { file: 1, directory: 2, char: 3, block: 4, fifo: 5, socket: 6, symlink: 7 } as const;

/** The entry of the root folder. */
export const ROOT = 0;
/** Bytes of a name. */
const MAX_NAME = 255;
const LONGEST_SHOWN = 200;

export type Place = { parent: number; name: string };

export type Tree = {
  /** The entry of that path, or undefined. */
  find(path: string): number | undefined;
  /** Where a new entry of that path belongs. Folders that are missing are made by `makeDirectory`. */
  place(path: string, makeDirectory: (place: Place) => number): Place;
  child(parent: number, name: string): number | undefined;
  /** @param type 0 for a link whose target is not known yet */
  add(place: Place, inode: number, type: number): number;
  inode(entry: number): number;
  type(entry: number): number;
  parent(entry: number): number;
  /** Where the name lies in `names()`. */
  nameStart(entry: number): number;
  nameLength(entry: number): number;
  names(): Buffer;
  /** Tells a link what it points to. */
  resolve(entry: number, inode: number, type: number): void;
  /** The full path, for a message. */
  path(entry: number): string;
  readonly length: number;
};

/** @param rootInode inode of the root folder */
export const newTree = (rootInode: number): Tree => {
  const parents = growingWords();
  const inodes = growingWords();
  const starts = growingWords();
  /** Length of the name, and the type from bit 8 on. */
  const lengthsAndTypes = growingWords();
  const names = growingBytes();
  /** Entry + 1, 0 for none; twice as many slots as entries at least. */
  let slots = new Uint32Array(4096);
  /** The last folder that something was put in. */
  let lastFolder = { path: "", entry: ROOT };

  const length = (entry: number) => lengthsAndTypes.get(entry) & 0xff;
  const type = (entry: number) => lengthsAndTypes.get(entry) >>> 8;

  const hashOf = (parent: number, name: string): number => {
    let hash = Math.imul(parent + 1, 0x9e3779b1);
    for (let at = 0; at < name.length; at++) hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193);
    return (hash ^ (hash >>> 15)) >>> 0;
  };

  const isNamed = (entry: number, parent: number, name: string): boolean => {
    if (parents.get(entry) !== parent || length(entry) !== name.length) return false;
    const bytes = names.bytes();
    const start = starts.get(entry);
    for (let at = 0; at < name.length; at++) if (bytes[start + at] !== name.charCodeAt(at)) return false;
    return true;
  };

  const nameOf = (entry: number): string => {
    const start = starts.get(entry);
    return names.bytes().toString("latin1", start, start + length(entry));
  };

  /** The slot that holds the name, or the empty one where it would be. */
  const slotOf = (parent: number, name: string): number => {
    const mask = slots.length - 1;
    let slot = hashOf(parent, name) & mask;
    for (;;) {
      const held = slots[slot] as number;
      if (held === 0 || isNamed(held - 1, parent, name)) return slot;
      slot = (slot + 1) & mask;
    }
  };

  const child = (parent: number, name: string): number | undefined => {
    const held = slots[slotOf(parent, name)] as number;
    return held === 0 ? undefined : held - 1;
  };

  const grow = (): void => {
    slots = new Uint32Array(slots.length * 2);
    for (let entry = 1; entry < parents.length; entry++) slots[slotOf(parents.get(entry), nameOf(entry))] = entry + 1;
  };

  const append = (parent: number, name: string, inode: number, kind: number): number => {
    const entry = parents.push(parent);
    inodes.push(inode);
    const start = names.extend(name.length);
    names.bytes().write(name, start, "latin1");
    starts.push(start);
    lengthsAndTypes.push(name.length | (kind << 8));
    return entry;
  };

  append(ROOT, "", rootInode, fileTypes.directory);

  /** The folder at the first `folderEnd` bytes of `path`, before a slash; what is missing on the way is made, or with no `makeDirectory` ends the search. */
  const walk = (path: string, folderEnd: number, makeDirectory?: (place: Place) => number): number | undefined => {
    let entry = ROOT;
    for (let at = 0; at <= folderEnd; ) {
      const end = path.indexOf("/", at);
      const name = path.slice(at, end);
      const found = child(entry, name);
      if (found === undefined) {
        if (makeDirectory === undefined) return undefined;
        checkName(name, path);
        entry = makeDirectory({ parent: entry, name });
      } else entry = found;
      if (type(entry) !== fileTypes.directory) {
        if (makeDirectory === undefined) return undefined;
        throw refused(path, `${show(path.slice(0, end))} is not a directory`);
      }
      at = end + 1;
    }
    return entry;
  };

  const tree: Tree = {
    find(path) {
      if (path === "") return ROOT;
      const slash = path.lastIndexOf("/");
      const parent = slash === -1 ? ROOT : walk(path, slash);
      return parent === undefined ? undefined : child(parent, path.slice(slash + 1));
    },
    place(path, makeDirectory) {
      const slash = path.lastIndexOf("/");
      const name = path.slice(slash + 1);
      checkName(name, path);
      if (slash === -1) return { parent: ROOT, name };
      if (slash === 0) throw refused(path, "it begins with a slash");
      if (slash !== lastFolder.path.length || !path.startsWith(lastFolder.path)) {
        const entry = walk(path, slash, makeDirectory) as number;
        lastFolder = { path: path.slice(0, slash), entry };
      }
      return { parent: lastFolder.entry, name };
    },
    child,
    add({ parent, name }, inode, kind) {
      const entry = append(parent, name, inode, kind);
      if (entry * 2 > slots.length) grow();
      else slots[slotOf(parent, name)] = entry + 1;
      return entry;
    },
    inode: inodes.get,
    type,
    parent: parents.get,
    nameStart: starts.get,
    nameLength: length,
    names: names.bytes,
    resolve(entry, inode, kind) {
      inodes.set(entry, inode);
      lengthsAndTypes.set(entry, length(entry) | (kind << 8));
    },
    path(entry) {
      const parts: string[] = [];
      for (let at = entry; at !== ROOT; at = parents.get(at)) parts.push(nameOf(at));
      return parts.reverse().join("/");
    },
    get length() {
      return parents.length;
    },
  };
  return tree;
};

const checkName = (name: string, path: string): void => {
  if (name === "" || name === "." || name === "..") throw refused(path, `it has a part that is "${name}"`);
  if (name.length > MAX_NAME) throw refused(path, `a name has ${name.length} bytes, and may have ${MAX_NAME}`);
  for (let at = 0; at < name.length; at++) {
    const code = name.charCodeAt(at);
    if (code === 0) throw refused(path, "a name holds a zero byte");
    if (code > 255) throw refused(path, "a name is not given as bytes");
  }
};

/** A path, byte for byte, as text for a message. */
export const show = (path: string): string => {
  const text = Buffer.from(path.slice(0, LONGEST_SHOWN), "latin1").toString("utf8");
  return path.length > LONGEST_SHOWN ? `${text}...` : text === "" ? "/" : text;
};

/** What the file system cannot hold. */
export const refused = (path: string, why: string): BangerError =>
  new BangerError("IMAGE_INVALID", `${show(path)} cannot be stored: ${why}`, { details: { path: show(path) } });
