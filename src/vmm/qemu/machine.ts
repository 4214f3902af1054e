/** A running QEMU, started by this daemon or by an earlier one. */
import { rm } from "node:fs/promises";
import type { Socket } from "node:net";
import { processStartTime } from "../../host/proc.ts";
import { signalGroup } from "../../host/process.ts";
import { connectTo } from "../../host/sockets.ts";
import type { Machine, MachineEnd, MachineIdentity, MachineSpec } from "../driver.ts";
import { qmpClient } from "./qmp.ts";

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

  const qmp = qmpClient(control, ({ event, data }) => {
    if (event === "SHUTDOWN") shutdown = String(data.reason);
    else if (event === "VSERPORT_CHANGE") for (const listener of portListeners) listener(data.open === true);
    else if (event === "BLOCK_IO_ERROR" && data.nospace === true) for (const listener of diskFullListeners) listener();
  });
  console.on("error", () => console.destroy());

  const finish = async (exit: string | undefined) => {
    if (detached) return;
    await rm(sockets.folder, { recursive: true, force: true });
    ended.resolve({ reason: endReason(shutdown, exit), clean: killed || shutdown !== undefined });
  };
  if (exited) void exited.then(finish, finish);
  // An adopted QEMU is not our child: its control connection ends when it does.
  else
    control.once(
      "close",
      () =>
        void gone(identity).then(
          () => finish(undefined),
          () => finish(undefined),
        ),
    );

  return {
    identity,
    console,
    openAgentChannel: () => connectTo(sockets.agent),
    onAgentPort: (listener) => void portListeners.add(listener),
    onDiskFull: (listener) => void diskFullListeners.add(listener),
    resume: async () => void (await qmp.execute("cont")),
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

const endReason = (shutdown: string | undefined, exit: string | undefined): string => {
  if (shutdown === "guest-shutdown") return "the guest powered off";
  if (shutdown === "guest-reset") return "the guest restarted or its kernel stopped";
  if (shutdown === "guest-panic") return "the guest's kernel panicked";
  if (shutdown) return `QEMU ended: ${shutdown}`;
  return exit ? `QEMU ${exit}` : "QEMU was ended from outside";
};

/** Waits for a process that is not our child and has closed its sockets: it is in its last moments. */
const gone = async (identity: MachineIdentity): Promise<void> => {
  for (let wait = 1; (await processStartTime(identity.pid)) === identity.startTime && wait < 2000; wait *= 2) {
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
};
