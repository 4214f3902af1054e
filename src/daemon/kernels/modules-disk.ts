/** The read-only ext4 disk that holds a kernel's modules. */
import { readdir, rm, stat, truncate } from "node:fs/promises";
import { join, relative } from "node:path";
import { runTool } from "../../host/process.ts";

const MIB = 1024 * 1024;

/**
 * Writes the folder's content as an ext4 file system whose files belong to root, without a journal and just large enough.
 * @param folder `…/lib/modules/<release>`; becomes the root of the disk
 */
export const makeModulesDisk = async (folder: string, disk: string, signal: AbortSignal): Promise<void> => {
  // Only for a build, to find a source tree that no guest has.
  for (const name of ["build", "source"]) await rm(join(folder, name), { force: true });
  const paths: string[] = [];
  let bytes = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    paths.push(`/${relative(folder, path)}`);
    bytes += Math.ceil((await stat(path)).size / 4096) * 4096;
  }
  // Inodes and block maps come on top; resize2fs takes back what is left over.
  await rm(disk, { force: true });
  const size = Math.ceil((bytes * 1.1) / MIB) * MIB + 16 * MIB;
  const features = "^has_journal,^resize_inode";
  await runTool({
    argv: [
      "mkfs.ext4",
      "-q",
      "-F",
      "-m",
      "0",
      "-O",
      features,
      "-E",
      "root_owner=0:0",
      "-d",
      folder,
      disk,
      `${Math.ceil(size / 1024)}k`,
    ],
    env: { MKE2FS_DEVICE_SECTSIZE: "4096" },
    signal,
  });
  // mkfs.ext4 -d keeps the owner, which is whoever unpacked the package.
  const script = paths.flatMap((path) => [`sif "${path}" uid 0`, `sif "${path}" gid 0`]);
  await runTool({ argv: ["debugfs", "-w", "-f", "-", disk], input: `${script.join("\n")}\n`, signal });
  await runTool({ argv: ["resize2fs", "-M", disk], signal });
  await truncate(disk, Math.ceil((await stat(disk)).size / 4096) * 4096);
};
