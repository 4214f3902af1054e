/** A VM's own disk: a sparse ext4 file that holds everything the VM writes. */
import { mkdir, open, rename, rm, stat, truncate } from "node:fs/promises";
import { BangerError } from "../../contract/errors.ts";
import { abortable, type Progress, throwIfAborted, withDeadline } from "../../contract/progress.ts";
import { callGuest } from "../../guest/call.ts";
import type { GuestConnection } from "../../guest/connection.ts";
import { exists } from "../../host/files.ts";
import { type VmFiles, vmFiles } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";
import type { Machine } from "../../vmm/driver.ts";
import type { VmRow } from "../store/vms.ts";

/** Its place among a machine's disks (boot.ts): vdb in the guest. */
export const OWN_DISK = 1;
/** How long a guest may take until its file system has grown, in ms. */
const GROW_LIMIT = 60_000;

/**
 * Grows the disk of a running VM and the file system on it.
 * @param guest undefined where its agent is gone
 * @param bytes not less than it has
 * @returns false when the guest has not taken it: it does at its next start
 */
export const growDisk = async (
  machine: Machine,
  guest: GuestConnection | undefined,
  bytes: number,
  progress: Progress,
): Promise<boolean> => {
  await abortable(machine.growDisk(OWN_DISK, bytes), progress.signal);
  if (!guest) return false;
  using limited = withDeadline(
    progress,
    GROW_LIMIT,
    () => new BangerError("GUEST_ERROR", "the guest's file system did not grow in time"),
  );
  try {
    await callGuest(guest, { op: "grow", size: bytes }, limited);
    return true;
  } catch {
    throwIfAborted(progress.signal);
    // The disk has grown in any case; a guest that cannot follow while it runs can when it boots.
    return false;
  }
};

const halfMade = (disk: string): string => `${disk}.new`;

/** Of a start that was cut off. */
export const removeHalfDisk = (id: string): Promise<void> => rm(halfMade(vmFiles(id).disk), { force: true });

/**
 * Makes the disk at a VM's first start, and grows it where it was set to a larger size since; the guest grows its file system as it boots.
 * @throws IMAGE_CORRUPT when a VM that ran before has lost it, DISK_FULL, TOOL_MISSING
 */
export const ensureDisk = async (
  row: Pick<VmRow, "name" | "diskSize" | "startedAt">,
  { folder, disk }: Pick<VmFiles, "folder" | "disk">,
  progress: Progress,
): Promise<string> => {
  if (await exists(disk)) {
    if ((await stat(disk)).size < row.diskSize) await truncate(disk, row.diskSize);
    return disk;
  }
  if (row.startedAt !== undefined) {
    throw new BangerError("IMAGE_CORRUPT", `the disk of VM ${row.name} is gone: ${disk}`, {
      hint: `put it back, or delete the VM: banger vm delete ${row.name}`,
    });
  }
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const staging = halfMade(disk);
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
