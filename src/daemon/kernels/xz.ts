/**
 * XZ (the .xz file format 1.1, by the Tukaani project), which Node.js has no decoder for: kernels and modules of some distributions.
 * LZMA2, with the x86 filter or without. Every checksum is compared. The event loop is let run after each chunk of 2 MiB.
 */
import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { BangerError } from "../../contract/errors.ts";
import { lzmaDecoder } from "./lzma.ts";

export const XZ_MAGIC = Buffer.from("fd377a585a00", "hex");
const FOOTER_MAGIC = "YZ";
const HEADER_SIZE = 12;
const FILTER_X86 = 0x04;
const FILTER_LZMA2 = 0x21;

/** Size in bytes of each check, by its number in the stream's flags. */
const checkSizes = new Map([
  [0, 0],
  [1, 4],
  [4, 8],
  [10, 32],
]);

const corrupt = (why: string): BangerError => new BangerError("KERNEL_CORRUPT", `the XZ data is damaged: ${why}`);

/**
 * Decompresses one XZ stream.
 * @param limit bytes that come out at most
 * @throws KERNEL_CORRUPT
 */
export const decompressXz = async (input: Buffer, limit: number): Promise<Buffer> => {
  try {
    return await decodeStream(input, limit);
  } catch (error) {
    // What is read past the end, or out of range.
    if (error instanceof RangeError) throw corrupt(error.message);
    throw error;
  }
};

type Reader = { at: number };

/** A number of 1 to 9 bytes, 7 bits each, the lowest first. */
const variable = (input: Buffer, reader: Reader): number => {
  let value = 0;
  for (let shift = 0; shift < 63; shift += 7) {
    const byte = input.readUInt8(reader.at++);
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) {
      if (!Number.isSafeInteger(value)) break;
      return value;
    }
  }
  throw corrupt("a number is too large");
};

const decodeStream = async (input: Buffer, limit: number): Promise<Buffer> => {
  if (input.length < 2 * HEADER_SIZE || !input.subarray(0, 6).equals(XZ_MAGIC)) throw corrupt("it has no header");
  if (crc32(input.subarray(6, 8)) !== input.readUInt32LE(8)) throw corrupt("its header's checksum is wrong");
  const check = input.readUInt8(7);
  const checkSize = checkSizes.get(check);
  if (input.readUInt8(6) !== 0 || checkSize === undefined) throw corrupt("it has a check that is not known");
  const { indexAt, size } = readIndex(input);
  if (size > limit) throw corrupt("it is larger than it says");
  const output = Buffer.allocUnsafeSlow(size);
  const reader = { at: HEADER_SIZE };
  let done = 0;
  while (reader.at < indexAt) {
    const block = readBlockHeader(input, reader);
    const start = reader.at;
    const end = await decodeLzma2(input, reader, output, done);
    if (block.hasX86) unfilterX86(output.subarray(done, end), block.x86Start);
    while ((reader.at - start) % 4 !== 0)
      if (input.readUInt8(reader.at++) !== 0) throw corrupt("its padding is not zero");
    const stored = input.subarray(reader.at, reader.at + checkSize);
    if (!stored.equals(checkOf(check, output.subarray(done, end)))) throw corrupt("its checksum is wrong");
    reader.at += checkSize;
    done = end;
  }
  if (done !== size || reader.at !== indexAt) throw corrupt("its index does not fit");
  return output;
};

/** The index, at the stream's end, tells how much comes out. */
const readIndex = (input: Buffer): { indexAt: number; size: number } => {
  const footer = input.length - HEADER_SIZE;
  if (input.toString("latin1", footer + 10) !== FOOTER_MAGIC) throw corrupt("its end is missing");
  if (crc32(input.subarray(footer + 4, footer + 10)) !== input.readUInt32LE(footer))
    throw corrupt("its end's checksum is wrong");
  if (!input.subarray(6, 8).equals(input.subarray(footer + 8, footer + 10)))
    throw corrupt("its end is another stream's");
  const indexSize = (input.readUInt32LE(footer + 4) + 1) * 4;
  const indexAt = footer - indexSize;
  if (indexAt < HEADER_SIZE || input[indexAt] !== 0) throw corrupt("its index is missing");
  if (crc32(input.subarray(indexAt, footer - 4)) !== input.readUInt32LE(footer - 4))
    throw corrupt("its index's checksum is wrong");
  const reader = { at: indexAt + 1 };
  let size = 0;
  for (let left = variable(input, reader); left > 0; left--) {
    variable(input, reader);
    size += variable(input, reader);
    if (reader.at > footer) throw corrupt("its index is cut off");
  }
  return { indexAt, size };
};

const readBlockHeader = (input: Buffer, reader: Reader): { hasX86: boolean; x86Start: number } => {
  const start = reader.at;
  const size = (input.readUInt8(start) + 1) * 4;
  if (crc32(input.subarray(start, start + size - 4)) !== input.readUInt32LE(start + size - 4))
    throw corrupt("a block's header has a wrong checksum");
  const flags = input.readUInt8(start + 1);
  const inner = { at: start + 2 };
  if (flags & 0x40) variable(input, inner);
  if (flags & 0x80) variable(input, inner);
  const filters: { id: number; properties: Buffer }[] = [];
  for (let count = (flags & 3) + 1; count > 0; count--) {
    const id = variable(input, inner);
    const length = variable(input, inner);
    filters.push({ id, properties: input.subarray(inner.at, inner.at + length) });
    inner.at += length;
  }
  const [first, second] = filters;
  const hasX86 = filters.length === 2 && first?.id === FILTER_X86 && second?.id === FILTER_LZMA2;
  if (!hasX86 && !(filters.length === 1 && first?.id === FILTER_LZMA2))
    throw corrupt("it has filters that are not known");
  reader.at = start + size;
  const start32 = hasX86 && first.properties.length === 4 ? first.properties.readUInt32LE(0) : 0;
  return { hasX86, x86Start: start32 };
};

/** @returns where the block's output ends */
const decodeLzma2 = async (input: Buffer, reader: Reader, output: Buffer, start: number): Promise<number> => {
  const decoder = lzmaDecoder();
  let at = start;
  let dictionaryStart: number | undefined;
  for (;;) {
    const control = input.readUInt8(reader.at++);
    if (control === 0) return at;
    if (control === 1 || control >= 0xe0) dictionaryStart = at;
    if (dictionaryStart === undefined) throw corrupt("it begins without a dictionary");
    if (control < 0x80) {
      if (control > 2) throw corrupt("a chunk is of no known kind");
      const size = input.readUInt16BE(reader.at) + 1;
      reader.at += 2;
      if (reader.at + size > input.length || at + size > output.length) throw corrupt("a chunk is too long");
      input.copy(output, at, reader.at, reader.at + size);
      reader.at += size;
      at += size;
      continue;
    }
    const size = ((control & 0x1f) << 16) + input.readUInt16BE(reader.at) + 1;
    const packed = input.readUInt16BE(reader.at + 2) + 1;
    reader.at += 4;
    if (control >= 0xc0) decoder.reset(input.readUInt8(reader.at++));
    else if (control >= 0xa0) decoder.reset();
    if (reader.at + packed > input.length || at + size > output.length) throw corrupt("a chunk is too long");
    decoder.decode(input, reader.at, reader.at + packed, output, at, at + size, dictionaryStart);
    reader.at += packed;
    at += size;
    await setImmediate();
  }
};

const bitNumber = [0, 1, 2, 2, 3, 3, 3, 3];
const isAllowed = [true, true, true, false, true, false, false, false];
const isEnd = (byte: number): boolean => byte === 0 || byte === 0xff;

/** Makes the targets of calls and jumps relative again: the packer had made them absolute, so that they repeat. */
const unfilterX86 = (bytes: Buffer, start: number): void => {
  let previous = -1;
  let mask = 0;
  for (let at = 0; at < bytes.length - 4; at++) {
    if (((bytes[at] as number) & 0xfe) !== 0xe8) continue;
    const gap = at - previous;
    previous = at;
    if (gap > 3) mask = 0;
    else {
      mask = (mask << (gap - 1)) & 7;
      if (mask !== 0) {
        const byte = bytes[at + 4 - (bitNumber[mask] as number)] as number;
        if (!isAllowed[mask] || isEnd(byte)) {
          mask = (mask << 1) | 1;
          continue;
        }
      }
    }
    if (!isEnd(bytes[at + 4] as number)) {
      mask = (mask << 1) | 1;
      continue;
    }
    let source = bytes.readUInt32LE(at + 1);
    let target: number;
    for (;;) {
      target = (source - (start + at + 5)) >>> 0;
      if (mask === 0) break;
      const shift = (bitNumber[mask] as number) * 8;
      if (!isEnd((target >>> (24 - shift)) & 0xff)) break;
      source = (target ^ ((1 << (32 - shift)) - 1)) >>> 0;
    }
    target &= 0x01ffffff;
    if (target & 0x01000000) target |= 0xff000000;
    bytes.writeUInt32LE(target >>> 0, at + 1);
    at += 4;
  }
};

const checkOf = (check: number, bytes: Buffer): Buffer => {
  if (check === 10) return createHash("sha256").update(bytes).digest();
  if (check === 4) return crc64(bytes);
  const result = Buffer.alloc(check === 1 ? 4 : 0);
  if (check === 1) result.writeUInt32LE(crc32(bytes));
  return result;
};

/** Tables of CRC-64 (ECMA-182, reversed), in two halves of 32 bits. */
const crc64Tables = (): { low: Uint32Array; high: Uint32Array } => {
  const low = new Uint32Array(256);
  const high = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let [l, h] = [byte, 0];
    for (let bit = 0; bit < 8; bit++) {
      const isSet = l & 1;
      l = (l >>> 1) | (h << 31);
      h >>>= 1;
      if (isSet) [l, h] = [l ^ 0xd7870f42, h ^ 0xc96c5795];
    }
    low[byte] = l;
    high[byte] = h;
  }
  return { low, high };
};

const crc64 = (bytes: Buffer): Buffer => {
  const { low, high } = crc64Tables();
  let [l, h] = [-1, -1];
  for (let at = 0; at < bytes.length; at++) {
    const index = (l ^ (bytes[at] as number)) & 0xff;
    l = ((l >>> 8) | (h << 24)) ^ (low[index] as number);
    h = (h >>> 8) ^ (high[index] as number);
  }
  const result = Buffer.alloc(8);
  result.writeUInt32LE(~l >>> 0, 0);
  result.writeUInt32LE(~h >>> 0, 4);
  return result;
};
