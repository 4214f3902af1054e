/** The end of a VM that its guest has a say in. */
import { BangerError } from "../../contract/errors.ts";
import { abortable, type Progress, throwIfAborted, withDeadline } from "../../contract/progress.ts";
import { callGuest } from "../../guest/call.ts";
import type { Machine } from "../../vmm/driver.ts";
import type { Log } from "../log.ts";
import type { VmMachine } from "./vm-machine.ts";

/** How long a guest may take to shut down before its VMM is ended, in ms. */
const STOP_LIMIT = 90_000;

export type StopOptions = {
  /** How long the guest may take to shut down before its VMM is ended, in ms. */
  limit?: number | undefined;
  /** What the record then says, where nobody asked for it. */
  reason?: string | undefined;
  /** Asked at the last moment; a VM that somebody has begun to use meanwhile goes on. */
  onlyIf?: (() => boolean) | undefined;
};

/** The guest syncs its disks and its init shuts down; a machine that stays is ended. */
export const shutDown = async (
  vm: VmMachine,
  running: Machine,
  log: Log,
  progress: Progress,
  { limit = STOP_LIMIT, reason }: StopOptions = {},
): Promise<void> => {
  vm.expectEnd(reason);
  using limited = withDeadline(
    progress,
    limit,
    () => new BangerError("VM_BOOT_TIMEOUT", "the guest did not shut down in time"),
  );
  try {
    if (!vm.connection) throw new BangerError("GUEST_AGENT_LOST", "there is no guest agent to ask");
    progress.report({ stage: "stop", message: "the guest syncs its disks and shuts down" });
    await callGuest(vm.connection, { op: "shutdown", mode: "reboot" }, limited);
    const end = await abortable(running.ended, limited.signal);
    vm.hasEnded(running, end.reason);
  } catch (error) {
    throwIfAborted(progress.signal);
    // The agent's answer may be lost in the guest's own end; only a machine that stays needs more.
    const end = await Promise.race([
      running.ended,
      new Promise<undefined>((resolve) => setTimeout(resolve, 1000, undefined)),
    ]);
    if (end) return vm.hasEnded(running, end.reason);
    log.warn("guest did not shut down; its VMM is ended", { vm: vm.row.name, error });
    await vm.end(running, "the guest did not shut down in time");
  }
};
