/** LZ4's legacy frame format, as the kernel's own build writes it (`lz4 -l`): magic, then blocks of up to 8 MiB. */
import { BangerError } from "../../contract/errors.ts";

export const LZ4_LEGACY_MAGIC = 0x184c2102;
/** Uncompressed bytes of every block but the last. */
const BLOCK = 8 * 1024 * 1024;

const corrupt = (why: string): BangerError =>
  new BangerError("KERNEL_CORRUPT", `the kernel's LZ4 data is damaged: ${why}`);

/**
 * Decompresses a legacy LZ4 stream.
 * @param size of the result in bytes, as known from elsewhere; the stream must give exactly this
 * @throws KERNEL_CORRUPT
 */
export const decompressLz4Legacy = (input: Buffer, size: number): Buffer => {
  if (input.length < 4 || input.readUInt32LE(0) !== LZ4_LEGACY_MAGIC) throw corrupt("no magic number");
  const output = Buffer.alloc(size);
  let from = 4;
  let to = 0;
  while (to < size) {
    if (from + 4 > input.length) throw corrupt("it ends early");
    const length = input.readUInt32LE(from);
    from += 4;
    // The magic number may stand between frames that were joined.
    if (length === LZ4_LEGACY_MAGIC) continue;
    if (length === 0 || from + length > input.length) throw corrupt("a block reaches past the end");
    to = decompressBlock(input, from, from + length, output, to, Math.min(size, to + BLOCK));
    from += length;
  }
  return output;
};

/**
 * Decompresses one block of `input[from, end)` to `output` at `to`, not past `limit`.
 * @returns where the block's output ends
 * @throws KERNEL_CORRUPT
 */
export const decompressBlock = (
  input: Buffer,
  from: number,
  end: number,
  output: Buffer,
  to: number,
  limit: number,
): number => {
  const start = to;
  const readLength = (nibble: number): number => {
    let length = nibble;
    if (nibble < 15) return length;
    for (;;) {
      if (from >= end) throw corrupt("a length is cut off");
      const byte = input[from++] ?? 0;
      length += byte;
      if (byte < 255) return length;
    }
  };
  while (from < end) {
    const token = input[from++] ?? 0;
    const literals = readLength(token >> 4);
    if (from + literals > end || to + literals > limit) throw corrupt("literals reach past the end");
    input.copy(output, to, from, from + literals);
    from += literals;
    to += literals;
    // The last sequence of a block has literals only.
    if (from === end) return to;
    if (from + 2 > end) throw corrupt("an offset is cut off");
    const offset = input.readUInt16LE(from);
    from += 2;
    const length = readLength(token & 15) + 4;
    if (offset === 0 || offset > to - start) throw corrupt("an offset points before the block");
    if (to + length > limit) throw corrupt("a match reaches past the end");
    to = copyMatch(output, to, offset, length);
  }
  return to;
};

/** Repeats the `length` bytes that begin `offset` before `to`; they may overlap what is being written. */
const copyMatch = (output: Buffer, to: number, offset: number, length: number): number => {
  const end = to + length;
  let have = offset;
  while (to < end) {
    const count = Math.min(have, end - to);
    output.copyWithin(to, to - have, to - have + count);
    to += count;
    have += count;
  }
  return end;
};
