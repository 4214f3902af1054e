/** The initramfs: the agent as /init, the boot modules, and empty folders. Uncompressed, since unpacking costs boot time. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { createHash } from "node:crypto";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { exists, writeFileAtomic } from "../../host/files.ts";
import { initramfsFile, kernelFiles } from "../../host/paths.ts";
import { type CpioEntry, S_IFDIR, S_IFREG, writeCpio } from "./cpio.ts";

/** Where the agent mounts things before it knows the image. */
const FOLDERS = ["dev", "proc", "sys", "modules", "mnt"];
/** Of the layout below: a change gives new keys. */
const LAYOUT = 2;

/**
 * The initramfs of a kernel and an agent; built when it is not in the cache. When it is there, this costs two stats.
 * @param kernel name and digest of an installed kernel
 * @param agent path of the agent
 * @returns its path and its key: the same key means the same content
 * @throws FILE_NOT_FOUND when there is no agent
 */
export const ensureInitramfs = async (
  kernel: { name: string; digest: string },
  agent: string,
): Promise<{ path: string; key: string }> => {
  const { size, mtimeMs } = await statAgent(agent);
  // Size and time of the agent stand for its content: it is replaced as a whole, by a build or an upgrade.
  const key = createHash("sha256")
    .update(JSON.stringify([LAYOUT, kernel.digest, agent, size, mtimeMs]))
    .digest("hex")
    .slice(0, 32);
  const path = initramfsFile(key);
  if (!(await exists(path))) await writeFileAtomic(path, await buildInitramfs(kernel.name, agent), 0o444);
  return { path, key };
};

const statAgent = async (agent: string): Promise<{ size: number; mtimeMs: number }> => {
  try {
    return await stat(agent);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    throw new BangerError("FILE_NOT_FOUND", `banger's guest agent is missing (${agent})`, {
      hint: "install banger again, or run `make build` in its sources",
      cause: error,
    });
  }
};

const buildInitramfs = async (kernelName: string, agent: string): Promise<Buffer> => {
  const folder = kernelFiles(kernelName).bootModules;
  const order = await readFile(join(folder, "order"), "utf8");
  const modules: CpioEntry[] = [];
  for (const file of order.split("\n").filter(Boolean)) {
    modules.push({ path: `modules/${file}`, mode: S_IFREG | 0o644, data: await readFile(join(folder, file)) });
  }
  const archive = writeCpio([
    ...FOLDERS.map((path) => ({ path, mode: S_IFDIR | 0o755 })),
    { path: "init", mode: S_IFREG | 0o755, data: await readFile(agent) },
    { path: "modules/order", mode: S_IFREG | 0o644, data: Buffer.from(order) },
    ...modules,
  ]);
  return padded(archive);
};

const PAGE = 4096;
/** Bytes that reach into the last page: the least that the kernel's alignment allows. */
const OVERHANG = 4;

/**
 * QEMU puts an initramfs at the last page boundary from which it fits below the end of a microvm's memory, where the firmware has put the ACPI tables
 * before: what reaches far into the last page overwrites them, and the kernel hangs on what it takes for tables. So it ends at the last page's
 * beginning. The kernel passes over zeros behind an archive.
 */
export const padded = (archive: Buffer): Buffer => {
  const pages = Math.ceil((archive.length - OVERHANG) / PAGE);
  return Buffer.concat([archive], pages * PAGE + OVERHANG);
};
