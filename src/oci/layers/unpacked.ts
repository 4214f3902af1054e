/** A layer's file as the chunks of its archive: gzip, zstd or neither, told by the first bytes, as Docker does. */
import { open } from "node:fs/promises";
import type { Transform } from "node:stream";
import { createGunzip, createZstdDecompress, type ZlibOptions, type ZstdOptions } from "node:zlib";
import { errnoOf } from "../../contract/errors.ts";
import { abortError, throwIfAborted } from "../../contract/progress.ts";
import { chunksOf } from "../../host/chunks.ts";
import { TarError } from "../tar/error.ts";

/** A part of a file. */
export type FilePart = { path: string; start: number /** In bytes. */; size: number };

export type Packing = "gzip" | "zstd" | "none";

/** Each chunk is a way to another thread and back, and memory of which there are several. */
const PACKED_CHUNK = 512 * 1024;
const UNPACKED_CHUNK = 512 * 1024;
/** The unpacker works on in a thread of its own while what it gave is written. */
const AHEAD = 4 * UNPACKED_CHUNK;

/** How the first bytes say that something is packed. @throws TarError on what banger does not unpack */
export const packingOf = (head: Uint8Array): Packing => {
  const begins = (...bytes: number[]) => bytes.every((byte, i) => head[i] === byte);
  if (begins(0x1f, 0x8b)) return "gzip";
  if (begins(0x28, 0xb5, 0x2f, 0xfd)) return "zstd";
  // A skippable frame may come first.
  if (head[0] !== undefined && (head[0] & 0xf0) === 0x50 && head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18)
    return "zstd";
  if (begins(0x42, 0x5a, 0x68)) throw unknownPacking("bzip2");
  if (begins(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00)) throw unknownPacking("xz");
  return "none";
};

/** OCI's specification knows layers packed with gzip, with zstd, and not at all. */
const unknownPacking = (program: string): TarError =>
  new TarError("refused", `it is packed with ${program}, and only gzip and zstd are known`, program);

export type UnpackOptions = {
  signal: AbortSignal;
  /** Told of each chunk of the file, to its last byte, in order. */
  onRead?: (chunk: Buffer) => void;
  /** Told of each chunk before it is given; may throw. */
  onChunk?: (chunk: Buffer) => void;
};

/**
 * A chunk's bytes are gone once the next one is asked for.
 * @throws TarError when the packed bytes are damaged or end early; the signal's error
 */
export async function* unpacked(
  part: FilePart,
  { signal, onRead, onChunk }: UnpackOptions,
): AsyncGenerator<Buffer, void, void> {
  throwIfAborted(signal);
  const file = await open(part.path, "r");
  try {
    const head = Buffer.alloc(Math.min(8, part.size));
    await file.read(head, 0, head.length, part.start);
    const packing = packingOf(head);
    if (part.size === 0) return;
    const chunks = chunksOf(file, part, PACKED_CHUNK);
    const look = (chunk: Buffer) => {
      // Looked at here only: a file of this machine is not waited for.
      throwIfAborted(signal);
      onRead?.(chunk);
    };
    const unpack = unpackerOf(packing);
    const feeding = unpack && feed(unpack, chunks, look);
    // Its failure ends the loop, or is thrown behind it.
    feeding?.catch((error) => unpack?.destroy(error));
    try {
      for await (const chunk of unpack ?? chunks) {
        if (!unpack) look(chunk);
        onChunk?.(chunk);
        yield chunk;
        if (unpack) giveBack(chunk);
      }
      await feeding;
    } finally {
      unpack?.destroy();
      await Promise.allSettled([feeding]);
    }
  } catch (error) {
    if (signal.aborted) throw abortError(signal);
    throw damage(error);
  } finally {
    await file.close();
  }
}

/**
 * Gives packed bytes to an unpacker, one chunk at a time, since its memory is used again. What lies behind the packed bytes is none of
 * the archive, but of the file, and only read.
 * @param onRead told of each chunk while that is unpacked
 */
const feed = async (
  unpack: Transform,
  chunks: AsyncIterable<Buffer>,
  onRead: (chunk: Buffer) => void,
): Promise<void> => {
  let goOn = (): void => undefined;
  // An unpacker that has its fill, or that has failed, does not call back.
  for (const event of ["end", "close"]) unpack.once(event, () => goOn());
  for await (const chunk of chunks) {
    const taken = new Promise<void>((resolve) => {
      goOn = resolve;
      if (unpack.readableEnded) resolve();
      else unpack.write(chunk, () => resolve());
    });
    onRead(chunk);
    await taken;
    // Stopped before its end, it may still be at work on this chunk, which must not be given back.
    if (unpack.destroyed && !unpack.readableEnded) return;
  }
  unpack.end();
};

/**
 * Frees an unpacker's buffer that was given out to its end, without waiting for the garbage collector: it would run for every few
 * megabytes, and the next buffer would be memory that has to be faulted in anew.
 */
const giveBack = ({ buffer, byteOffset, length }: Buffer): void => {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === UNPACKED_CHUNK && byteOffset + length === UNPACKED_CHUNK)
    buffer.transfer(0);
};

const unpackerOf = (packing: Packing): Transform | undefined => {
  if (packing === "gzip")
    return createGunzip({ chunkSize: UNPACKED_CHUNK, readableHighWaterMark: AHEAD } as ZlibOptions);
  if (packing === "zstd")
    return createZstdDecompress({ chunkSize: UNPACKED_CHUNK, readableHighWaterMark: AHEAD } as ZstdOptions);
  return undefined;
};

/** What zlib and zstd say of damaged bytes, as words of ours. */
const damage = (error: unknown): unknown => {
  const code = errnoOf(error) ?? "";
  if (!/^(?:Z_|ZSTD_|ERR_ZSTD)/.test(code)) return error;
  const early = code === "Z_BUF_ERROR";
  return new TarError(
    "corrupt",
    early ? "its packed bytes end early" : `its packed bytes are damaged (${(error as Error).message})`,
  );
};
