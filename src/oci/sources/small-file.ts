/** Files that are read whole, and must therefore be small. */
import { open } from "node:fs/promises";
import { BangerError } from "../../contract/errors.ts";
import { readWhole } from "../../host/whole.ts";

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
    return await readWhole(file, size, part?.start ?? 0);
  } finally {
    await file.close();
  }
};
