/** Saving a Firecracker machine: its snapshot, and the disk of the same instant, copied while the guest stands still. */
import { chmod } from "node:fs/promises";
import { performance } from "node:perf_hooks";
import { type Progress, throwIfAborted } from "../../contract/progress.ts";
import { copySparse } from "../../host/copy.ts";
import { bytesOnDisk, exists, readFileIfThere } from "../../host/files.ts";
import { nameDiskFull } from "../../host/tool-errors.ts";
import type { Saved, SaveRequest } from "../driver.ts";
import type { FirecrackerApi } from "./api.ts";

export type Saving = {
  api: FirecrackerApi;
  /** Path of a disk, by its index in `MachineSpec.disks`. */
  disk(index: number): string;
  wasRunning: boolean;
  /** The guest has been told to forget its connections: the host's ends look as if they lived on, and carry nothing any more. */
  onCut(): void;
};

export const saveMachine = async (
  { api, disk, wasRunning, onCut }: Saving,
  { base, target, disk: wantedDisk, goOn }: SaveRequest,
  progress: Progress,
): Promise<Saved> => {
  const type = (await hasSwap()) ? "Full" : "Diff";
  // Pages that the machine has not touched since are the base's: a diff is written over a copy of it.
  if (base !== undefined && type === "Diff") await copySparse(base, target.memory, progress);
  const before = (await exists(target.memory)) ? await bytesOnDisk(target.memory) : 0;
  throwIfAborted(progress.signal);
  const stopped = performance.now();
  if (wasRunning) await api.patchVm({ state: "Paused" });
  try {
    // In any case: the guest is told first, whatever fails then.
    try {
      await api.createSnapshot({ snapshot_path: target.state, mem_file_path: target.memory, snapshot_type: type });
    } finally {
      onCut();
    }
    if (wantedDisk) await copySparse(disk(wantedDisk.index), wantedDisk.target, progress);
    // Firecracker makes them by its umask.
    await Promise.all([target.state, target.memory].map((path) => chmod(path, 0o600)));
  } catch (error) {
    if (wasRunning) await api.patchVm({ state: "Resumed" });
    throw nameDiskFull(error);
  }
  if (wasRunning && goOn) await api.patchVm({ state: "Resumed" });
  const pause = performance.now() - stopped;
  return { pause, memoryWritten: Math.max(0, (await bytesOnDisk(target.memory)) - before) };
};

/** A diff is of the pages that are in memory (mincore): one that was swapped out would be missing. */
const hasSwap = async (): Promise<boolean> =>
  ((await readFileIfThere("/proc/swaps")) ?? "").trim().split("\n").length > 1;
