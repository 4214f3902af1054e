/** CRC-32C (Castagnoli) as ext4 uses it: without the inversions before and after. Eight bytes a step. */

const REVERSED_POLYNOMIAL = 0x82f63b78;

const makeTables = (): Uint32Array => {
  const tables = new Uint32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ REVERSED_POLYNOMIAL : value >>> 1;
    tables[byte] = value;
  }
  for (let index = 256; index < tables.length; index++) {
    const before = tables[index - 256] as number;
    tables[index] = (before >>> 8) ^ (tables[before & 0xff] as number);
  }
  return tables;
};

const tables = makeTables();

/**
 * Continues a checksum.
 * @param seed the checksum so far; ext4 starts with 0xffffffff
 * @param start first byte, and `end` the one after the last
 */
export const crc32c = (seed: number, bytes: Uint8Array, start = 0, end = bytes.length): number => {
  let crc = seed;
  let at = start;
  // The compiler cannot know that these indexes are within their arrays.
  const t = tables as unknown as { [index: number]: number };
  const b = bytes as unknown as { [index: number]: number };
  for (; at + 8 <= end; at += 8) {
    crc =
      (t[1792 + ((crc ^ (b[at] as number)) & 0xff)] as number) ^
      (t[1536 + (((crc >>> 8) ^ (b[at + 1] as number)) & 0xff)] as number) ^
      (t[1280 + (((crc >>> 16) ^ (b[at + 2] as number)) & 0xff)] as number) ^
      (t[1024 + (((crc >>> 24) ^ (b[at + 3] as number)) & 0xff)] as number) ^
      (t[768 + (b[at + 4] as number)] as number) ^
      (t[512 + (b[at + 5] as number)] as number) ^
      (t[256 + (b[at + 6] as number)] as number) ^
      (t[b[at + 7] as number] as number);
  }
  for (; at < end; at++) crc = (crc >>> 8) ^ (t[(crc ^ (b[at] as number)) & 0xff] as number);
  return crc >>> 0;
};

const word = new Uint8Array(4);
const wordView = new DataView(word.buffer);

/** Continues a checksum with a little-endian 32-bit number. */
export const crc32cOfWord = (seed: number, value: number): number => {
  wordView.setUint32(0, value, true);
  return crc32c(seed, word);
};
