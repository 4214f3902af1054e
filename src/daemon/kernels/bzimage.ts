/** Takes the ELF kernel out of a bzImage (Documentation/arch/x86/boot.rst of the kernel's sources). */
import { promisify } from "node:util";
import { gunzip, zstdDecompress } from "node:zlib";
import { BangerError } from "../../contract/errors.ts";
import { LZ4_LEGACY_MAGIC, decompressLz4Legacy } from "./lz4.ts";
import { decompressXz, XZ_MAGIC } from "./xz.ts";

/** No kernel is near this; a damaged size must not make us allocate it. */
const MAX_KERNEL = 512 * 1024 * 1024;

/** Offsets in the set-up header. */
const SETUP_SECTORS = 0x1f1;
const HEADER_MAGIC = 0x202;
const PROTOCOL = 0x206;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;

const corrupt = (why: string, cause?: unknown): BangerError =>
  new BangerError("KERNEL_CORRUPT", `the bzImage is damaged: ${why}`, { cause });

export const isBzImage = (file: Buffer): boolean =>
  file.length >= PAYLOAD_LENGTH + 4 && file.toString("latin1", HEADER_MAGIC, HEADER_MAGIC + 4) === "HdrS";

/**
 * The ELF kernel within a bzImage.
 * @throws KERNEL_CORRUPT
 */
export const extractVmlinux = async (image: Buffer): Promise<Buffer> => {
  if (!isBzImage(image)) throw corrupt("it has no kernel header");
  if (image.readUInt16LE(PROTOCOL) < 0x0208) throw corrupt("it is older than boot protocol 2.08");
  const setupSectors = image[SETUP_SECTORS] || 4;
  const start = (setupSectors + 1) * 512 + image.readUInt32LE(PAYLOAD_OFFSET);
  const length = image.readUInt32LE(PAYLOAD_LENGTH);
  if (length < 16 || start + length > image.length) throw corrupt("its payload reaches past the end");
  const payload = image.subarray(start, start + length);
  // The kernel's build appends the uncompressed size; gzip ends with the same number by itself.
  const size = payload.readUInt32LE(payload.length - 4);
  if (size === 0 || size > MAX_KERNEL) throw corrupt(`its kernel would have ${size} bytes`);
  const kernel = await decompress(payload, size);
  if (kernel.length !== size) throw corrupt(`its kernel has ${kernel.length} bytes in place of ${size}`);
  return kernel;
};

const decompress = async (payload: Buffer, size: number): Promise<Buffer> => {
  const magic = payload.subarray(0, 6).toString("hex");
  const body = payload.subarray(0, -4);
  const limit = { maxOutputLength: size };
  try {
    if (payload.readUInt32LE(0) === LZ4_LEGACY_MAGIC) return decompressLz4Legacy(body, size);
    if (magic.startsWith("28b52ffd")) return await promisify(zstdDecompress)(body, limit);
    if (magic.startsWith("1f8b08")) return await promisify(gunzip)(payload, limit);
    if (payload.subarray(0, XZ_MAGIC.length).equals(XZ_MAGIC)) return await decompressXz(body, size);
  } catch (error) {
    throw error instanceof BangerError ? error : corrupt("its payload cannot be decompressed", error);
  }
  throw corrupt(`its payload is compressed in a way banger does not know (${magic})`);
};
