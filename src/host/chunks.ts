/** A file as chunks, in two buffers that are used over and over. */
import type { FileHandle } from "node:fs/promises";

/**
 * A part of a file; one chunk is read while the one before it is used. A chunk's bytes are gone once the next one is asked for, and nobody
 * else may still look at them then.
 * @param size bytes; the part ends where the file does
 * @param chunkSize bytes of one read
 */
export async function* chunksOf(
  file: FileHandle,
  { start, size }: { start: number; size: number },
  chunkSize: number,
): AsyncGenerator<Buffer, void, void> {
  const end = start + size;
  let buffer = Buffer.allocUnsafeSlow(chunkSize);
  let spare = Buffer.allocUnsafeSlow(chunkSize);
  let at = start;
  const read = () => file.read(buffer, 0, Math.min(chunkSize, end - at), at);
  let next = at < end ? read() : undefined;
  try {
    while (next) {
      const { bytesRead } = await next;
      at += bytesRead;
      const chunk = buffer.subarray(0, bytesRead);
      [buffer, spare] = [spare, buffer];
      next = bytesRead > 0 && at < end ? read() : undefined;
      if (bytesRead > 0) yield chunk;
    }
  } finally {
    // Whoever stops early does not want to know how the next read went, but may close the file.
    await Promise.allSettled([next]);
  }
  // Not left to the garbage collector, which would have to run for every few of them. Nothing is read into them any more.
  for (const { buffer: memory } of [buffer, spare]) memory.transfer(0);
}
