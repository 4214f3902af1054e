/**
 * Saving a QEMU machine: its devices by `xen-save-devices-state` (which has nothing of Xen but the name: the migration stream without memory), its
 * memory by our own helper (agent/src/host/save_memory.rs), its disk by a mirror that keeps up with the guest until the guest stands still.
 */
import { performance } from "node:perf_hooks";
import { BangerError } from "../../contract/errors.ts";
import { abortable, type Progress, throwIfAborted } from "../../contract/progress.ts";
import { copySparse } from "../../host/copy.ts";
import { agentBinary } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";
import { nameDiskFull } from "../../host/tool-errors.ts";
import type { Saved, SaveRequest } from "../driver.ts";
import { driveName } from "./arguments.ts";
import type { Qmp, QmpEvent } from "./qmp.ts";

/** The mirror of a disk; there is one at a time. */
const MIRROR = "mirror";

export type Saving = {
  pid: number;
  qmp: Qmp;
  /** Resolves with the next event that matches; rejects when the machine ends first. */
  nextEvent(matches: (event: QmpEvent) => boolean): Promise<QmpEvent>;
};

export const saveMachine = async (
  { pid, qmp, nextEvent }: Saving,
  { memorySize, base, target, disk, goOn, beforePause }: SaveRequest,
  progress: Progress,
): Promise<Saved> => {
  const [, { status }] = await Promise.all([
    base === undefined ? undefined : copySparse(base, target.memory, progress),
    qmp.execute("query-status") as Promise<{ status: string }>,
  ]);
  const wasRunning = status === "running";
  const mirror = disk && (await startMirror({ pid, qmp, nextEvent }, disk.index, disk.target, progress));
  let stopped = performance.now();
  try {
    throwIfAborted(progress.signal);
    if (wasRunning) {
      stopped = performance.now();
      await beforePause?.();
      await qmp.execute("stop");
    }
    const [memoryWritten] = await Promise.all([
      saveMemory(pid, memorySize, target.memory, progress),
      qmp.execute("xen-save-devices-state", { filename: target.state, live: false }),
      mirror?.finish(),
    ]);
    if (wasRunning && goOn) await qmp.execute("cont");
    return { pause: performance.now() - stopped, memoryWritten };
  } catch (error) {
    await mirror?.cancel();
    if (wasRunning) await qmp.execute("cont");
    throw nameDiskFull(error);
  }
};

const saveMemory = async (pid: number, size: number, target: string, progress: Progress): Promise<number> => {
  const { stdout } = await runTool({
    argv: [agentBinary(), "--save-memory", String(pid), String(size), target],
    signal: progress.signal,
  });
  return Number(stdout.trim());
};

/** A daemon that died while it saved the machine has left a mirror that writes to a file that is gone. */
export const endStrayMirror = async (qmp: Qmp): Promise<void> => {
  try {
    await qmp.execute("block-job-cancel", { device: MIRROR, force: true });
  } catch (error) {
    // There is none, which is the usual case, or the machine has ended.
    if (!(error instanceof BangerError)) throw error;
  }
};

type Mirror = {
  /** Of a machine that stands still: resolves when the copy is whole. */
  finish(): Promise<void>;
  cancel(): Promise<void>;
};

/** @returns once the copy keeps up with the guest */
const startMirror = async (
  { qmp, nextEvent }: Saving,
  index: number,
  target: string,
  progress: Progress,
): Promise<Mirror> => {
  const jobEvent = (...names: string[]) =>
    nextEvent(({ event, data }) => names.includes(event) && data.device === MIRROR);
  const ended = () => jobEvent("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED");
  const cancel = async () => {
    const over = ended();
    over.catch(() => undefined);
    try {
      await qmp.execute("block-job-cancel", { device: MIRROR, force: true });
      await over;
    } catch (error) {
      // A job that has ended by itself cannot be cancelled, and one of a machine that is gone need not be.
      if (!(error instanceof BangerError)) throw error;
    }
  };
  const ready = jobEvent("BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED");
  ready.catch(() => undefined);
  await qmp.execute("drive-mirror", {
    "job-id": MIRROR,
    device: driveName(index),
    target,
    format: "raw",
    sync: "full",
    mode: "absolute-paths",
  });
  try {
    const { event, data } = await abortable(ready, progress.signal);
    if (event !== "BLOCK_JOB_READY") throw new BangerError("TOOL_FAILED", `the disk was not copied: ${data.error}`);
  } catch (error) {
    await cancel();
    throw nameDiskFull(error);
  }
  return {
    finish: async () => {
      const over = ended();
      over.catch(() => undefined);
      await qmp.execute("block-job-cancel", { device: MIRROR });
      const { data } = await over;
      if (data.error !== undefined) throw new BangerError("TOOL_FAILED", `the disk was not copied: ${data.error}`);
    },
    cancel,
  };
};
