/** The file behind the file system: blocks one after the other, in few large writes, the next filling meanwhile. */
import type { FileHandle } from "node:fs/promises";
import { BangerError, toBangerError } from "../contract/errors.ts";
import { writeWhole } from "../host/whole.ts";
import { BLOCK_SIZE, BLOCKS_PER_GROUP, firstFreeFrom } from "./layout.ts";

/**
 * Bytes of one write. Two of these are the writer's buffer. Larger ones are slower: the kernel's page cache then takes pieces of memory so large
 * that they come from the host of a virtual machine first (measured: 2 MiB took twice the system time), and other threads wait longer for a CPU.
 */
const BUFFER_SIZE = 512 * 1024;

export type BlockStream = {
  /** The block that will be used next; reserved ones are passed over. */
  next(): number;
  /**
   * How many blocks can be put at `next()` now, one after the other. 0: `flush` first.
   * @throws IMAGE_TOO_LARGE when there is no block left
   */
  room(): number;
  /** The buffer, in which the block `next()` begins at `offset()`. What is put there counts after `commit`. */
  buffer(): Buffer;
  offset(): number;
  commit(blocks: number): void;
  /** Makes room. */
  flush(): Promise<void>;
  /** Puts one block, which `fill` gets zeroed, and returns its number. */
  put(fill: (block: Buffer) => void): Promise<number>;
  /** Goes on at another block, which lies further on. What is in between stays a hole. */
  seek(block: number): Promise<void>;
  /** Waits until all is written. */
  end(): Promise<void>;
};

/**
 * @param file empty and open for writing
 * @param limit blocks that the file system may have
 */
export const blockStream = (file: FileHandle, limit: number): BlockStream => {
  let buffer = Buffer.allocUnsafeSlow(BUFFER_SIZE);
  let spare = Buffer.allocUnsafeSlow(BUFFER_SIZE);
  /** Block at the buffer's start. */
  let start = 0;
  /** Bytes of the buffer that are taken. */
  let filled = 0;
  let writing: Promise<void> | undefined;
  let failure: unknown;

  const position = () => start + filled / BLOCK_SIZE;

  /** Reserved blocks are written as zeros; their content comes last. */
  const passReserved = (): void => {
    const skipped = (firstFreeFrom(position()) - position()) * BLOCK_SIZE;
    const here = Math.min(skipped, BUFFER_SIZE - filled);
    if (here > 0) buffer.fill(0, filled, filled + here);
    filled += here;
  };

  const settle = async (): Promise<void> => {
    await writing;
    writing = undefined;
    if (failure !== undefined) throw failure;
  };

  const flush = async (): Promise<void> => {
    await settle();
    if (filled === 0) return;
    writing = writeWhole(file, buffer.subarray(0, filled), start * BLOCK_SIZE).catch((error: unknown) => {
      failure = toBangerError(error);
    });
    start = position();
    filled = 0;
    [buffer, spare] = [spare, buffer];
  };

  const stream: BlockStream = {
    next() {
      return firstFreeFrom(position());
    },
    room() {
      passReserved();
      const block = position();
      if (block >= limit) throw tooLarge(limit);
      const toGroupEnd = BLOCKS_PER_GROUP - (block % BLOCKS_PER_GROUP);
      return Math.min((BUFFER_SIZE - filled) / BLOCK_SIZE, toGroupEnd, limit - block);
    },
    buffer: () => buffer,
    offset: () => filled,
    commit(blocks) {
      filled += blocks * BLOCK_SIZE;
    },
    flush,
    async put(fill) {
      if (stream.room() === 0) await flush();
      if (stream.room() === 0) throw new Error("an empty buffer has no room");
      const block = position();
      const target = buffer.subarray(filled, filled + BLOCK_SIZE);
      fill(target.fill(0));
      filled += BLOCK_SIZE;
      return block;
    },
    async seek(block) {
      await flush();
      start = block;
    },
    async end() {
      await flush();
      await settle();
    },
  };
  return stream;
};

export const tooLarge = (limitBlocks: number): BangerError =>
  new BangerError("IMAGE_TOO_LARGE", `the files do not fit into a file system of ${limitBlocks * BLOCK_SIZE} bytes`, {
    hint: "ask for a larger disk, or leave its size out: it will be as large as needed",
    details: { limit: limitBlocks * BLOCK_SIZE },
  });
