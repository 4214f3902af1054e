/** Sparse files: GNU's old header, and PAX formats 0.0, 0.1 and 1.0. All of them become a list of parts. */
import type { ByteReader } from "./bytes.ts";
import { TarError } from "./error.ts";
import { BLOCK, numberAt } from "./header.ts";
import type { PaxSparse } from "./pax.ts";

/** A part of a sparse file that has data. The rest is zeros. */
export type Part = { offset: number; length: number };
export type SparseMap = { realSize: number; parts: Part[] /** Bytes of the map itself, read already. */; read: number };

/** Parts of one file: a map is held in memory. */
const MOST_PARTS = 100_000;

const tooMany = () => new TarError("refused", `its sparse map has over ${MOST_PARTS} parts`);

/** GNU's old format: four parts in the header, then blocks of 21. */
export const readOldSparse = async (header: Buffer, reader: ByteReader): Promise<SparseMap> => {
  const parts: Part[] = [];
  const take = (block: Buffer, from: number, entries: number): void => {
    for (let i = 0; i < entries; i++) {
      const at = from + i * 24;
      if (block[at] === 0) return;
      parts.push({ offset: numberAt(block, at), length: numberAt(block, at + 12) });
    }
    if (parts.length > MOST_PARTS) throw tooMany();
  };
  const realSize = numberAt(header, 483);
  take(header, 386, 4);
  let extended = header[482] !== 0;
  let read = 0;
  while (extended) {
    if (!(await reader.need(BLOCK))) throw new TarError("corrupt", "the archive ends in a sparse map");
    const block = reader.take(BLOCK);
    read += BLOCK;
    take(block, 0, 21);
    extended = block[504] !== 0;
  }
  // These blocks are not counted in the entry's size.
  return { realSize, parts, read: read === 0 ? 0 : -read };
};

/**
 * @param stored the entry's size: what follows its header
 * @param size what the file has where the map does not say
 */
export const readPaxSparse = async (
  { version, realSize, numbers }: PaxSparse,
  stored: number,
  reader: ByteReader,
): Promise<SparseMap> => {
  if (realSize === undefined) throw new TarError("corrupt", "a sparse file without its size");
  if (version !== "1.0") return { realSize, parts: pairs(numbers), read: 0 };
  const map = await readMap(stored, reader);
  return { realSize, parts: pairs(map.numbers), read: map.read };
};

const pairs = (numbers: readonly number[]): Part[] => {
  if (numbers.length % 2 !== 0) throw new TarError("corrupt", "half a part in a sparse map");
  if (numbers.length / 2 > MOST_PARTS) throw tooMany();
  return Array.from({ length: numbers.length / 2 }, (_, i) => ({
    offset: numbers[2 * i] ?? 0,
    length: numbers[2 * i + 1] ?? 0,
  }));
};

/** Decimal numbers, a line each: how many parts, then offset and length of each. Filled up to a whole block. */
const readMap = async (stored: number, reader: ByteReader): Promise<{ numbers: number[]; read: number }> => {
  const numbers: number[] = [];
  let wanted = 1;
  let read = 0;
  let digits = "";
  while (numbers.length < wanted) {
    if (read + BLOCK > stored || !(await reader.need(BLOCK)))
      throw new TarError("corrupt", "a sparse map that does not end");
    const block = reader.take(BLOCK);
    read += BLOCK;
    for (const byte of block) {
      if (numbers.length >= wanted) break;
      if (byte !== 0x0a) {
        digits += String.fromCharCode(byte);
        if (digits.length > 16) throw new TarError("corrupt", "a sparse map with a number that is none");
        continue;
      }
      const value = /^\d+$/.test(digits) ? Number(digits) : Number.NaN;
      if (!Number.isSafeInteger(value)) throw new TarError("corrupt", "a sparse map with a number that is none");
      if (wanted === 1 && numbers.length === 0) {
        if (value > MOST_PARTS) throw tooMany();
        wanted = 1 + 2 * value;
      }
      numbers.push(value);
      digits = "";
    }
  }
  return { numbers: numbers.slice(1), read };
};

/** @throws TarError when parts overlap, are out of order, lead past the end, or are not what the archive holds */
export const checkParts = (parts: readonly Part[], realSize: number, stored: number): void => {
  let end = 0;
  let sum = 0;
  for (const { offset, length } of parts) {
    if (offset < end || offset + length > realSize)
      throw new TarError("corrupt", "a sparse map whose parts overlap or lead past the end of the file");
    end = offset + length;
    sum += length;
  }
  if (sum !== stored) throw new TarError("corrupt", `a sparse map of ${sum} bytes for ${stored} bytes of data`);
};
