/** Saving a Firecracker machine: its snapshot, and the disk of the same instant, copied while the guest stands still. */
import { chmod, rm } from "node:fs/promises";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { type Progress, throwIfAborted } from "../../contract/progress.ts";
import { copySparse, moveSparse } from "../../host/copy.ts";
import { bytesOnDisk, exists, readFileIfThere } from "../../host/files.ts";
import { nameDiskFull } from "../../host/tool-errors.ts";
import type { Saved, SaveRequest } from "../driver.ts";
import type { FirecrackerApi } from "./api.ts";
import { SAVING } from "./arguments.ts";

export type Saving = {
  api: FirecrackerApi;
  /** Firecracker's own. */
  folder: string;
  /** Path of a disk, by its index in `MachineSpec.disks`. */
  disk(index: number): string;
  wasRunning: boolean;
  /** The guest has been told to forget its connections: the host's ends look as if they lived on, and carry nothing any more. */
  onCut(): void;
};

/** The only place that Firecracker finds, as it is told of it. */
const own = { state: join(SAVING, "state"), memory: join(SAVING, "memory") };

export const saveMachine = async (
  { api, folder, disk, wasRunning, onCut }: Saving,
  { base, target, disk: wantedDisk, goOn, beforePause }: SaveRequest,
  progress: Progress,
): Promise<Saved> => {
  const type = (await hasSwap()) ? "Full" : "Diff";
  const written = { state: join(folder, own.state), memory: join(folder, own.memory) };
  const clear = () => Promise.all(Object.values(written).map((path) => rm(path, { force: true })));
  await clear();
  try {
    // Pages that the machine has not touched since are the base's: a diff is written over a copy of it.
    if (base !== undefined && type === "Diff") await copySparse(base, written.memory, progress);
    const before = (await exists(written.memory)) ? await bytesOnDisk(written.memory) : 0;
    throwIfAborted(progress.signal);
    const stopped = performance.now();
    if (wasRunning) {
      await beforePause?.();
      await api.patchVm({ state: "Paused" });
    }
    try {
      // In any case: the guest is told first, whatever fails then.
      try {
        await api.createSnapshot({ snapshot_path: own.state, mem_file_path: own.memory, snapshot_type: type });
      } finally {
        onCut();
      }
      if (wantedDisk) await copySparse(disk(wantedDisk.index), wantedDisk.target, progress);
      // Firecracker makes them by its umask.
      await Promise.all(Object.values(written).map((path) => chmod(path, 0o600)));
      for (const each of ["state", "memory"] as const) await moveSparse(written[each], target[each], progress);
    } catch (error) {
      if (wasRunning) await api.patchVm({ state: "Resumed" });
      throw error;
    }
    if (wasRunning && goOn) await api.patchVm({ state: "Resumed" });
    const pause = performance.now() - stopped;
    return { pause, memoryWritten: Math.max(0, (await bytesOnDisk(target.memory)) - before) };
  } catch (error) {
    await clear();
    throw nameDiskFull(error);
  }
};

/** A diff is of the pages that are in memory (mincore): one that was swapped out would be missing. */
const hasSwap = async (): Promise<boolean> =>
  ((await readFileIfThere("/proc/swaps")) ?? "").trim().split("\n").length > 1;
