/** Digests of files. */
import { createHash, type Hash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { throwIfAborted } from "../contract/progress.ts";
import { chunksOf } from "./chunks.ts";

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
 * Gives a part of a file to a hash.
 * @param size bytes; the part ends where the file does
 * @param onChunk told after each chunk how many bytes have been read
 * @returns bytes that were read
 * @throws the signal's error
 */
export const hashPart = async (
  file: FileHandle,
  hash: Hash,
  part: { start: number; size: number },
  signal?: AbortSignal,
  onChunk?: (bytes: number) => void,
): Promise<number> => {
  let done = 0;
  for await (const chunk of chunksOf(file, part, CHUNK)) {
    if (signal) throwIfAborted(signal);
    hash.update(chunk);
    done += chunk.length;
    onChunk?.(done);
  }
  return done;
};
