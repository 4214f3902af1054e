/** A running Firecracker, started by this daemon or by an earlier one. */
import { readlink, rm, stat, truncate } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { BangerError } from "../../contract/errors.ts";
import { processState, processStartTime } from "../../host/proc.ts";
import { signalGroup } from "../../host/process.ts";
import type { Machine, MachineEnd, MachineIdentity, MachineSpec } from "../driver.ts";
import { endHelpers, gone } from "../qemu/machine.ts";
import type { FirecrackerApi } from "./api.ts";
import { driveLink, SAVING } from "./arguments.ts";
import type { Metrics } from "./metrics.ts";
import { pauseCutsVsock, type Release } from "./release.ts";
import { saveMachine } from "./save.ts";
import { connectToAgent, type Knocks, listenForKnocks } from "./vsock.ts";

export type Parts = {
  identity: MachineIdentity;
  api: FirecrackerApi;
  /** Listens since before the guest was started; undefined where nobody does. */
  knocks: Knocks | undefined;
  sockets: MachineSpec["sockets"];
  release: Release;
  /** Undefined where an earlier build started it. */
  metrics: Metrics | undefined;
  /** The guest's serial line; undefined where it has none. */
  console: Socket | undefined;
  /** How the process ended, when it is a child of this one. */
  exited: Promise<MachineEnd> | undefined;
  /** The guest has booted: it need not be waited for until it knocks. */
  booted: boolean;
  /** Firecracker's own pause. */
  paused: boolean;
};

export const machine = ({ identity, api, metrics, console, sockets, release, exited, ...state }: Parts): Machine => {
  const ended = Promise.withResolvers<MachineEnd>();
  let detached = false;
  let killed = false;
  let { booted, knocks, paused } = state;
  const disk = (index: number) => join(sockets.folder, driveLink(index));

  const finish = async (end: MachineEnd) => {
    if (detached) return;
    api.close();
    metrics?.close();
    console?.destroy();
    await knocks?.close();
    // What cannot be removed is in nobody's way; the end must be told.
    for (const made of [await readlink(join(sockets.folder, SAVING)).catch(() => undefined), sockets.folder])
      if (made !== undefined) await rm(made, { recursive: true, force: true }).catch(() => undefined);
    await endHelpers(identity.helpers).catch(() => undefined);
    for (const helper of identity.helpers) await gone(helper, () => detached).catch(() => undefined);
    ended.resolve({ ...end, clean: killed || end.clean });
  };
  if (exited) void exited.then(finish);
  else {
    // An adopted Firecracker is not our child: its API connection ends when it does, or a moment before.
    void api.closed
      .then(() => gone(identity, () => detached))
      .catch(() => undefined)
      .then(() => finish({ reason: "Firecracker has ended", clean: false }));
  }
  const overBefore = <T>(work: Promise<T>): Promise<T> =>
    Promise.race([
      work,
      ended.promise.then(({ reason }): never => {
        throw new BangerError("VM_STOPPED", `the VM ended meanwhile: ${reason}`);
      }),
    ]);

  /** The last that was opened. */
  let channel: Socket | undefined;
  const openAgentChannel: Machine["openAgentChannel"] = async () => {
    if (!booted && knocks) await overBefore(knocks.after(0));
    booted = true;
    channel = await connectToAgent(sockets.agent);
    while (!channel) {
      // Heard from before the guest is tried again, so that none is missed.
      knocks ??= await listenForKnocks(sockets.agent);
      const seen = knocks.count;
      channel = await connectToAgent(sockets.agent);
      if (!channel) await overBefore(knocks.after(seen));
    }
    // A guest that is there has nothing more to say here, and could knock without end.
    const heard = knocks;
    knocks = undefined;
    await heard?.close();
    return channel;
  };

  /** Whole process or CPUs only: see `pauseCutsVsock`. */
  const stopsProcess = pauseCutsVsock(release);
  const isStopped = async () => (await processState(identity.pid)) === "T";
  const ours = async () => (await processStartTime(identity.pid)) === identity.startTime;

  const pause = async () => {
    if (paused || (await isStopped())) return;
    if (!stopsProcess) {
      await api.patchVm({ state: "Paused" });
      paused = true;
    } else if (await ours()) {
      process.kill(identity.pid, "SIGSTOP");
      // Each of its threads stops at its next return to the kernel's edge, microseconds later.
      while (!(await isStopped()) && (await ours()));
    }
  };
  const wake = async (): Promise<boolean> => {
    if (!(await isStopped()) || !(await ours())) return false;
    process.kill(identity.pid, "SIGCONT");
    return true;
  };
  const resume = async () => {
    await wake();
    if (paused) await api.patchVm({ state: "Resumed" });
    paused = false;
  };

  return {
    identity,
    console: console ?? new PassThrough().end(),
    openAgentChannel,
    // vsock tells of the agent's end by the end of the connection.
    onAgentPort: () => undefined,
    // Firecracker hands the guest an I/O error instead.
    onDiskFull: () => undefined,
    deviceUse: async () => metrics?.read(() => api.putAction({ action_type: "FlushMetrics" })),
    growDisk: async (index, bytes) => {
      const path = disk(index);
      if ((await stat(path)).size < bytes) await truncate(path, bytes);
      await api.patchDrive({ drive_id: driveLink(index), path_on_host: driveLink(index) });
    },
    pause,
    resume,
    save: async (request, progress) => {
      const stopped = await wake();
      if (stopped) await api.patchVm({ state: "Paused" });
      const wasRunning = !stopped && !paused;
      paused ||= stopped;
      const saved = await overBefore(
        saveMachine(
          { api, folder: sockets.folder, disk, wasRunning, onCut: () => channel?.destroy() },
          request,
          progress,
        ),
      );
      paused = !(wasRunning && request.goOn);
      return saved;
    },
    ended: ended.promise,
    kill: async (signal = "SIGKILL") => {
      // A pid is only ours while the process that had it at the start still has it.
      if (await ours()) {
        killed ||= signal === "SIGKILL";
        signalGroup(identity.pid, signal);
      }
      if (signal === "SIGKILL") await ended.promise;
    },
    detach: () => {
      detached = true;
      api.close();
      metrics?.close();
      console?.destroy();
      void knocks?.close();
    },
  };
};
