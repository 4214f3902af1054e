/** Digests of files. */
import { createHash, type Hash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { throwIfAborted } from "../contract/progress.ts";

/** Bytes of one read. Two of these are all that a digest needs, however long the file. */
const CHUNK = 1024 * 1024;

/** sha256 of a file's content, in hex. */
export const sha256OfFile = async (path: string, signal?: AbortSignal): Promise<string> => {
  const hash = createHash("sha256");
  const file = await open(path, "r");
  try {
    await hashPart(file, hash, { start: 0, size: Number.POSITIVE_INFINITY }, signal);
  } finally {
    await file.close();
  }
  return hash.digest("hex");
};

/**
 * Gives to a hash what an earlier download left of a file. A file longer than `most` is of something else, and emptied.
 * @param most bytes of the whole
 * @param onChunk told after each chunk how many bytes have been read
 * @returns bytes that are there
 * @throws the signal's error
 */
export const hashPresent = async (
  file: FileHandle,
  hash: Hash,
  most: number,
  signal: AbortSignal,
  onChunk?: (bytes: number) => void,
): Promise<number> => {
  const { size } = await file.stat();
  if (size <= most) return await hashPart(file, hash, { start: 0, size }, signal, onChunk);
  await file.truncate(0);
  return 0;
};

/**
 * Gives a part of a file to a hash; one chunk is read while the one before it is hashed.
 * @param size bytes; the part ends where the file does
 * @param onChunk told after each chunk how many bytes have been read
 * @returns bytes that were read
 * @throws the signal's error
 */
export const hashPart = async (
  file: FileHandle,
  hash: Hash,
  { start, size }: { start: number; size: number },
  signal?: AbortSignal,
  onChunk?: (bytes: number) => void,
): Promise<number> => {
  const buffers: [Buffer, Buffer] = [Buffer.allocUnsafeSlow(CHUNK), Buffer.allocUnsafeSlow(CHUNK)];
  const read = (turn: number, at: number) =>
    file.read(buffers[turn & 1] ?? buffers[0], 0, Math.min(CHUNK, start + size - at), at);
  let at = start;
  let next = size > 0 ? read(0, at) : undefined;
  for (let turn = 0; next; turn++) {
    const { bytesRead, buffer } = await next;
    if (signal) throwIfAborted(signal);
    at += bytesRead;
    next = bytesRead > 0 && at < start + size ? read(turn + 1, at) : undefined;
    hash.update(buffer.subarray(0, bytesRead));
    onChunk?.(at - start);
  }
  return at - start;
};
