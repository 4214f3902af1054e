/** What a program needs of the file system before it can look for anything itself. */
import { open } from "node:fs/promises";
import { exists } from "../../host/files.ts";

/** Enough for the program headers of any ELF file, in bytes. */
const HEAD = 4096;
/** `PT_INTERP`: it is linked dynamically. */
const INTERPRETER = 3;

/** Where dynamic linkers look. */
const LIBRARIES = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache"];

/** @returns nothing for a static program, the libraries for a dynamic one; undefined for a script, which may need anything */
export const needsOf = async (path: string): Promise<string[] | undefined> => {
  await using file = await open(path);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD), 0, HEAD, 0);
  const head = buffer.subarray(0, bytesRead);
  if (head.toString("latin1", 0, 2) === "#!") return undefined;
  if (!isDynamic(head)) return [];
  const there = await Promise.all(LIBRARIES.map(exists));
  return LIBRARIES.filter((_, index) => there[index]);
};

/** Of a little-endian ELF file of 64 bits. */
const isDynamic = (head: Buffer): boolean => {
  if (head.length < 64) return false;
  const [start, size, count] = [Number(head.readBigUInt64LE(32)), head.readUInt16LE(54), head.readUInt16LE(56)];
  for (let index = 0; index < count; index++) {
    const at = start + index * size;
    if (at + 4 <= head.length && head.readUInt32LE(at) === INTERPRETER) return true;
  }
  return false;
};
