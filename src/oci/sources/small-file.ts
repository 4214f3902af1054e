/** Files that are read whole, and must therefore be small. */
import { open } from "node:fs/promises";
import { BangerError } from "../../contract/errors.ts";

/** @throws IMAGE_REFUSED when it has more bytes than `limit` */
export const readSmall = async (
  path: string,
  limit: number,
  part?: { start: number; size: number },
): Promise<Buffer> => {
  const file = await open(path, "r");
  try {
    const size = part?.size ?? (await file.stat()).size;
    if (size > limit) throw new BangerError("IMAGE_REFUSED", `${path} has ${size} bytes, and ${limit} are the most`);
    const buffer = Buffer.alloc(size);
    let at = 0;
    while (at < size) {
      const { bytesRead } = await file.read(buffer, at, size - at, (part?.start ?? 0) + at);
      if (bytesRead === 0) break;
      at += bytesRead;
    }
    return buffer.subarray(0, at);
  } finally {
    await file.close();
  }
};
