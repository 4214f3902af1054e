/** A running QEMU, started by this daemon or by an earlier one. */
import { rm } from "node:fs/promises";
import type { Socket } from "node:net";
import { PassThrough } from "node:stream";
import * as z from "zod/mini";
import { BangerError } from "../../contract/errors.ts";
import { processStartTime } from "../../host/proc.ts";
import { signalGroup } from "../../host/process.ts";
import { connectTo } from "../../host/sockets.ts";
import type { DeviceUse, Machine, MachineEnd, MachineIdentity, MachineSpec, ProcessIdentity } from "../driver.ts";
import { driveName } from "./arguments.ts";
import { type QmpEvent, qmpClient } from "./qmp.ts";
import { endStrayMirror, saveMachine } from "./save.ts";

type Parts = {
  identity: MachineIdentity;
  control: Socket;
  console: Socket;
  sockets: MachineSpec["sockets"];
  /** How the process ended, when it is a child of this one. */
  exited: Promise<string> | undefined;
};

export const machine = ({ identity, control, console, sockets, exited }: Parts): Machine => {
  const portListeners = new Set<(open: boolean) => void>();
  const diskFullListeners = new Set<() => void>();
  const ended = Promise.withResolvers<MachineEnd>();
  /** QEMU's own account of why it stops; it comes just before it does. */
  let shutdown: string | undefined;
  let detached = false;
  let killed = false;

  const eventListeners = new Set<(event: QmpEvent) => void>();
  const qmp = qmpClient(control, (told) => {
    const { event, data } = told;
    for (const listener of eventListeners) listener(told);
    if (event === "SHUTDOWN") shutdown = String(data.reason);
    else if (event === "VSERPORT_CHANGE") for (const listener of portListeners) listener(data.open === true);
    else if (event === "BLOCK_IO_ERROR" && data.nospace === true) for (const listener of diskFullListeners) listener();
  });
  console.on("error", () => console.destroy());

  const nextEvent = (matches: (event: QmpEvent) => boolean): Promise<QmpEvent> =>
    new Promise((resolve, reject) => {
      const listener = (event: QmpEvent) => {
        if (!matches(event)) return;
        eventListeners.delete(listener);
        resolve(event);
      };
      eventListeners.add(listener);
      void ended.promise.then(({ reason }) => {
        eventListeners.delete(listener);
        reject(new BangerError("VM_STOPPED", `the VM ended meanwhile: ${reason}`));
      });
    });

  const finish = async (exit: string | undefined) => {
    if (detached) return;
    // What cannot be removed is in nobody's way; the end must be told.
    await rm(sockets.folder, { recursive: true, force: true }).catch(() => undefined);
    await endHelpers(identity.helpers).catch(() => undefined);
    ended.resolve({ reason: endReason(shutdown, exit), clean: killed || shutdown !== undefined });
  };
  if (exited) void exited.then(finish, () => finish(undefined));
  else {
    void endStrayMirror(qmp);
    // An adopted QEMU is not our child: its control connection ends when it does, or a moment before.
    const onClose = () => {
      const over = () => finish(undefined);
      void gone(identity, () => detached).then(over, over);
    };
    if (control.destroyed) onClose();
    else control.once("close", onClose);
  }

  return {
    identity,
    console,
    openAgentChannel: () => connectTo(sockets.agent),
    onAgentPort: (listener) => void portListeners.add(listener),
    onDiskFull: (listener) => void diskFullListeners.add(listener),
    deviceUse: async () => ownDisk(await qmp.execute("query-blockstats")),
    growDisk: async (disk, bytes) => void (await qmp.execute("block_resize", { device: driveName(disk), size: bytes })),
    pause: async () => void (await qmp.execute("stop")),
    resume: async () => void (await qmp.execute("cont")),
    save: (request, progress) => saveMachine({ pid: identity.pid, qmp, nextEvent }, request, progress),
    ended: ended.promise,
    kill: async (signal = "SIGKILL") => {
      // A pid is only ours while the process that had it at the start still has it.
      if ((await processStartTime(identity.pid)) === identity.startTime) {
        killed ||= signal === "SIGKILL";
        signalGroup(identity.pid, signal);
      }
      if (signal === "SIGKILL") await ended.promise;
    },
    detach: () => {
      detached = true;
      qmp.close();
      console.destroy();
    },
  };
};

const blockStats = z.array(
  z.object({ device: z.optional(z.string()), stats: z.object({ rd_bytes: z.number(), wr_bytes: z.number() }) }),
);

const ownDisk = (answer: unknown): DeviceUse | undefined => {
  const stats = blockStats.parse(answer).find(({ device }) => device === driveName(1))?.stats;
  return stats && { disk: { read: stats.rd_bytes, written: stats.wr_bytes } };
};

const endReason = (shutdown: string | undefined, exit: string | undefined): string => {
  if (shutdown === "guest-shutdown") return "the guest powered off";
  if (shutdown === "guest-reset") return "the guest restarted or its kernel stopped";
  if (shutdown === "guest-panic") return "the guest's kernel panicked";
  if (shutdown) return `QEMU ended: ${shutdown}`;
  return exit ? `QEMU ${exit}` : "QEMU was ended from outside";
};

/**
 * A QEMU that lives but whose sockets are gone, as they are when the session that owned XDG_RUNTIME_DIR has ended: it can be ended, and
 * nothing else.
 */
export const unreachableMachine = (identity: MachineIdentity, sockets: MachineSpec["sockets"]): Machine => {
  const refused = async (): Promise<never> => {
    throw new BangerError("GUEST_AGENT_LOST", `the VM's sockets are gone from ${sockets.folder}`, {
      hint: "stop the VM and start it again, or set XDG_RUNTIME_DIR as it was when the VM was started",
    });
  };
  let detached = false;
  const ended = gone(identity, () => detached).then(async (): Promise<MachineEnd> => {
    if (!detached) await endHelpers(identity.helpers).catch(() => undefined);
    return { reason: "QEMU has ended", clean: false };
  });
  return {
    identity,
    console: new PassThrough().end(),
    openAgentChannel: refused,
    onAgentPort: () => undefined,
    onDiskFull: () => undefined,
    deviceUse: async () => undefined,
    growDisk: refused,
    pause: refused,
    resume: refused,
    save: refused,
    ended,
    kill: async (signal = "SIGKILL") => {
      if ((await processStartTime(identity.pid)) === identity.startTime) signalGroup(identity.pid, signal);
      if (signal === "SIGKILL") await ended;
    },
    detach: () => {
      detached = true;
    },
  };
};

/** They end by themselves when QEMU does, unless somebody has stopped them. */
export const endHelpers = async (helpers: readonly ProcessIdentity[]): Promise<void> => {
  for (const { pid, startTime } of helpers)
    if ((await processStartTime(pid)) === startTime) signalGroup(pid, "SIGKILL");
};

/** Waits for the end of a process that is not our child: the kernel tells only parents, so this looks, at first often, then each second. */
export const gone = async (identity: ProcessIdentity, given: () => boolean): Promise<void> => {
  for (let wait = 1; !given() && (await processStartTime(identity.pid)) === identity.startTime; wait *= 2) {
    wait = Math.min(wait, 1000);
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
};
