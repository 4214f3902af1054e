/** A VM's own disk: a sparse ext4 file that holds everything the VM writes. */
import { mkdir, open, rename, rm } from "node:fs/promises";
import { BangerError } from "../../contract/errors.ts";
import type { Progress } from "../../contract/progress.ts";
import { exists } from "../../host/files.ts";
import { vmFiles } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";
import type { VmRow } from "../store/vms.ts";

/**
 * Makes the disk at a VM's first start.
 * @throws IMAGE_CORRUPT when a VM that ran before has lost it, DISK_FULL, TOOL_MISSING
 */
export const ensureDisk = async (row: VmRow, progress: Progress): Promise<string> => {
  const { folder, disk } = vmFiles(row.id);
  if (await exists(disk)) return disk;
  if (row.startedAt !== undefined) {
    throw new BangerError("IMAGE_CORRUPT", `the disk of VM ${row.name} is gone: ${disk}`, {
      hint: `put it back, or delete the VM: banger vm delete ${row.name}`,
    });
  }
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const staging = `${disk}.new`;
  try {
    const file = await open(staging, "w", 0o600);
    await file.truncate(row.diskSize);
    await file.close();
    // Nothing is written that can be written later: inode tables and journal start as holes.
    await runTool({
      argv: [
        "mkfs.ext4",
        "-q",
        "-F",
        "-m",
        "0",
        "-L",
        "banger-vm",
        "-O",
        "^resize_inode",
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0",
        "-J",
        "size=16",
        staging,
      ],
      signal: progress.signal,
    });
    await rename(staging, disk);
    return disk;
  } catch (error) {
    await rm(staging, { force: true });
    throw error;
  }
};
