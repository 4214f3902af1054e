/** The least that passes for an ELF kernel: headers, a note, and what a kernel says of itself. */
import { gzipSync } from "node:zlib";

export type ElfKernelOptions = {
  /** Type of the Xen note; 18 is the entry point of a direct boot. */
  note?: number;
  release?: string;
  /** Lines of its `.config`, where it keeps it. */
  config?: readonly string[];
};

export const elfKernel = ({ note = 18, release, config }: ElfKernelOptions = {}): Buffer => {
  const file = Buffer.alloc(64 + 56 + 20);
  file.writeUInt32BE(0x7f454c46, 0);
  file.set([2, 1, 1], 4);
  file.writeUInt16LE(62, 18);
  file.writeBigUInt64LE(64n, 32);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(1, 56);
  file.writeUInt32LE(4, 64);
  file.writeBigUInt64LE(120n, 72);
  file.writeBigUInt64LE(20n, 96);
  file.writeUInt32LE(4, 120);
  file.writeUInt32LE(4, 124);
  file.writeUInt32LE(note, 128);
  file.write("Xen\0", 132, "latin1");
  const parts = [file];
  if (release !== undefined)
    parts.push(Buffer.from(`Linux version %s (%s)\0Linux version ${release} (someone@somewhere) (gcc) #1 SMP\n\0`));
  if (config !== undefined)
    parts.push(Buffer.from("IKCFG_ST"), gzipSync(`${config.join("\n")}\n`), Buffer.from("IKCFG_ED"));
  return Buffer.concat(parts);
};

/** A bzImage with this payload, as the kernel's build lays it out. */
export const bzImageOf = (payload: Buffer): Buffer => {
  const image = Buffer.alloc(1024 + 64 + payload.length);
  image[0x1f1] = 1;
  image.write("HdrS", 0x202, "latin1");
  image.writeUInt16LE(0x020f, 0x206);
  image.writeUInt32LE(64, 0x248);
  image.writeUInt32LE(payload.length, 0x24c);
  payload.copy(image, 1024 + 64);
  return image;
};
