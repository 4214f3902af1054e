/** Headers of the tar archives that banger writes: plain files, and nothing in them that depends on the day. */

const BLOCK = 512;
/** The most that fits into 11 octal digits, in bytes. */
const MOST_OCTAL = 8 ** 11 - 1;

/** @param name at most 100 bytes */
export const tarHeader = (name: string, size: number): Buffer => {
  const header = Buffer.alloc(BLOCK);
  if (header.write(name, 0, 100, "utf8") !== Buffer.byteLength(name)) throw new Error(`the name ${name} is too long`);
  header.write("0000644\0", 100);
  header.write("0000000\0", 108);
  header.write("0000000\0", 116);
  if (size <= MOST_OCTAL) header.write(`${size.toString(8).padStart(11, "0")}\0`, 124);
  else {
    // GNU's and POSIX's readers know this: the first bit set, then the number in base 256.
    header.writeBigUInt64BE(BigInt(size), 128);
    header[124] = 0x80;
  }
  header.write("00000000000\0", 136);
  header.write("        0", 148);
  header.write("ustar\0" + "00", 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return header;
};

/** What fills up the last block of a file of that size. */
export const tarPadding = (size: number): Buffer => Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
