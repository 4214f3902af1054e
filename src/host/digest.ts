/** Digests of files. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";

/** sha256 of a file's content, in hex. */
export const sha256OfFile = async (path: string, signal?: AbortSignal): Promise<string> => {
  const hash = createHash("sha256");
  const options = signal ? { signal } : {};
  await pipeline(createReadStream(path, { highWaterMark: 1024 * 1024 }), hash, options);
  return hash.digest("hex");
};
