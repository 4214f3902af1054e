/** The few facts about an ELF kernel that decide whether a VMM can boot it directly. */
import { BangerError } from "../../contract/errors.ts";

const PT_NOTE = 4;
const EM_X86_64 = 62;
/** XEN_ELFNOTE_PHYS32_ENTRY: the entry point of a direct boot (PVH). */
const PVH_ENTRY = 18;

export type ElfKernel = {
  /** Has the note that QEMU needs to boot it without firmware. */
  pvh: boolean;
};

export const isElf = (file: Buffer): boolean => file.length >= 64 && file.readUInt32BE(0) === 0x7f454c46;

/**
 * Reads the headers of an ELF kernel.
 * @throws KERNEL_CORRUPT when it is no 64-bit x86 ELF program, or cut short
 */
export const inspectElf = (file: Buffer): ElfKernel => {
  // class 64-bit, little-endian
  if (!isElf(file) || file[4] !== 2 || file[5] !== 1) throw corrupt("it is not a 64-bit ELF file");
  if (file.readUInt16LE(18) !== EM_X86_64) throw corrupt("it is not for x86-64");
  const table = Number(file.readBigUInt64LE(32));
  const entrySize = file.readUInt16LE(54);
  const entries = file.readUInt16LE(56);
  if (entries === 0 || entrySize < 56 || table + entries * entrySize > file.length)
    throw corrupt("its header table is cut off");
  let pvh = false;
  for (let index = 0; index < entries; index++) {
    const at = table + index * entrySize;
    const offset = Number(file.readBigUInt64LE(at + 8));
    const size = Number(file.readBigUInt64LE(at + 32));
    if (offset + size > file.length) throw corrupt("a segment is cut off");
    if (file.readUInt32LE(at) === PT_NOTE && hasPvhNote(file.subarray(offset, offset + size))) pvh = true;
  }
  return { pvh };
};

const align = (size: number): number => (size + 3) & ~3;

const hasPvhNote = (notes: Buffer): boolean => {
  let at = 0;
  while (at + 12 <= notes.length) {
    const nameSize = notes.readUInt32LE(at);
    const dataSize = notes.readUInt32LE(at + 4);
    const type = notes.readUInt32LE(at + 8);
    if (type === PVH_ENTRY && notes.toString("latin1", at + 12, at + 12 + 3) === "Xen") return true;
    at += 12 + align(nameSize) + align(dataSize);
  }
  return false;
};

const corrupt = (why: string): BangerError => new BangerError("KERNEL_CORRUPT", `the kernel cannot be used: ${why}`);
