/** A stream of chunks as a reader that is asked for bytes. What is there is taken without waiting, which is what makes small entries cheap. */
import { TarError } from "./error.ts";

export type ByteReader = {
  /** Bytes that can be taken now. */
  available(): number;
  /** `count` bytes, which must be available. They are valid until the next wait. */
  take(count: number): Buffer;
  /**
   * Waits until `count` bytes are available.
   * @returns false at the end of the stream when not a single byte is left
   * @throws TarError when the stream ends in the middle
   */
  need(count: number): Promise<boolean>;
  /** Waits for at least one more byte; false at the end. */
  more(): Promise<boolean>;
  /** @throws TarError when the stream ends before */
  skip(count: number): Promise<void>;
  /** Lets go of the stream, read to its end or not. */
  close(): Promise<void>;
};

/** Skips where it can without reading: `seek` jumps over so many bytes that lie behind what was read. */
export type Chunks = AsyncIterable<Buffer> & { seek?: (count: number) => void };

export const byteReader = (chunks: Chunks): ByteReader => {
  const iterator = chunks[Symbol.asyncIterator]();
  let chunk: Buffer = Buffer.alloc(0);
  let at = 0;

  const next = async (): Promise<Buffer | undefined> => {
    for (;;) {
      const { value, done } = await iterator.next();
      if (done) return undefined;
      if (value.length > 0) return value;
    }
  };
  const available = () => chunk.length - at;
  const take = (count: number) => {
    at += count;
    return chunk.subarray(at - count, at);
  };
  const more = async (): Promise<boolean> => {
    if (available() > 0) return true;
    const loaded = await next();
    if (!loaded) return false;
    chunk = loaded;
    at = 0;
    return true;
  };
  const need = async (count: number): Promise<boolean> => {
    if (available() >= count) return true;
    // Copied: the chunk's memory is given back when the next one comes.
    const parts: Buffer[] = [Buffer.from(chunk.subarray(at))];
    let have = available();
    while (have < count) {
      const loaded = await next();
      if (!loaded) {
        if (have === 0) return false;
        throw truncated();
      }
      parts.push(loaded);
      have += loaded.length;
    }
    chunk = parts.length === 2 && parts[0]?.length === 0 ? (parts[1] ?? chunk) : Buffer.concat(parts);
    at = 0;
    return true;
  };
  const skip = async (count: number): Promise<void> => {
    let left = count;
    for (;;) {
      const here = Math.min(left, available());
      at += here;
      left -= here;
      if (left === 0) return;
      if (chunks.seek) {
        chunks.seek(left - 1);
        // The last byte is read, so that an end of the file before it is noticed.
        left = 1;
      }
      if (!(await more())) throw truncated();
    }
  };
  return { available, take, need, more, skip, close: async () => void (await iterator.return?.()) };
};

const truncated = () => new TarError("corrupt", "the archive ends in the middle");
