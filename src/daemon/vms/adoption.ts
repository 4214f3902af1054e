/** At a daemon's start: a VM whose machine an earlier daemon left running is taken up, or recorded as ended. */
import { rm } from "node:fs/promises";
import { BangerError } from "../../contract/errors.ts";
import { abortable, type Progress, withDeadline } from "../../contract/progress.ts";
import { exists } from "../../host/files.ts";
import { vmFiles, vmSockets } from "../../host/paths.ts";
import { hostBootId } from "../../host/proc.ts";
import type { Machine } from "../../vmm/driver.ts";
import type { RestoredFrom } from "../store/vms.ts";
import type { GuestOrigin } from "./boot.ts";
import { keepConsole } from "./console-log.ts";
import { removeHalfDisk } from "./disk.ts";
import type { BootServices } from "./services.ts";
import { shutDown } from "./shut-down.ts";
import { noProcess, nothingRuns, type VmMachine } from "./vm-machine.ts";

/** How long a guest that runs may take to answer a new daemon, in ms. */
export const ADOPT_LIMIT = 15_000;

/** The machine that an earlier daemon left; undefined when it is gone, which is then recorded. */
export const findMachine = async (vm: VmMachine, services: BootServices): Promise<Machine | undefined> => {
  const { id, pid, pidStart, helpers, hostBoot, state } = vm.row;
  // After a restart of the host its numbers belong to others.
  const restarted = hostBoot !== undefined && hostBoot !== (await hostBootId());
  const known = !restarted && pid !== undefined && pidStart !== undefined;
  const identity = known ? { pid, startTime: pidStart, helpers } : undefined;
  const found = identity && (await services.driver.adopt(identity, vmSockets(id)));
  if (found) return found;
  await rm(vmSockets(id).folder, { recursive: true, force: true });
  await removeHalfDisk(id);
  const { asleep } = vmFiles(id);
  // What it was to wake from is untouched until it is set aside for its machine.
  const sleeps = state === "asleep" || (state === "starting" && (await exists(asleep)));
  if (!sleeps) await removeSleep(id);
  const died = restarted ? "the host was restarted" : "it ended while no daemon was running";
  const reason = state === "stopping" ? undefined : died;
  vm.note(sleeps ? { ...noProcess(), state: "asleep" } : { ...nothingRuns(), reason });
  return undefined;
};

/** What its memory was saved as: of no use once the guest has gone on, since its disk no longer fits. */
const removeSleep = async (id: string): Promise<void> => {
  const { asleep, waking } = vmFiles(id);
  for (const path of [asleep, waking]) await rm(path, { recursive: true, force: true });
};

/** Goes on with a machine that was found: what was under way is finished, else its agent is greeted. */
export const takeUp = async (
  vm: VmMachine,
  found: Machine,
  services: BootServices,
  progress: Progress,
): Promise<void> => {
  const { log } = services;
  const { id, name, ephemeral, state, restored } = vm.row;
  keepConsole(found.console, vmFiles(id), log);
  // Whoever ran it went away with the earlier daemon.
  if (ephemeral) return vm.end(found, undefined);
  if (state === "stopping") return shutDown(vm, found, log, progress);
  if (state === "asleep") return vm.end(found, "it went to sleep");
  if (state === "paused") return;
  try {
    // A daemon that died while it saved the VM has left it standing still.
    await removeSleep(id);
    const limit = state === "starting" ? services.bootTimeout : ADOPT_LIMIT;
    const late = () => new BangerError("VM_BOOT_TIMEOUT", "it did not answer a new daemon");
    using limited = withDeadline(progress, limit, late);
    // A QEMU that stands still itself does not answer either.
    if (state === "running") await abortable(found.resume(), limited.signal);
    // A guest that was being started may not know yet who it is.
    const origin = state === "starting" ? originOf(restored) : "known";
    const guest = await vm.greet(found, origin, limited);
    if (vm.row.state === "starting") await vm.complete(guest, limited);
  } catch (error) {
    log.error("adopted vm does not answer", { vm: name, error });
    if (vm.machine !== found) return;
    if (vm.row.state === "starting") await vm.end(found, "its guest did not answer a new daemon");
    else vm.note({ reason: "its guest agent did not answer a new daemon" });
  }
};

const originOf = (restored: RestoredFrom | undefined): GuestOrigin =>
  restored === undefined ? "boot" : restored === "sleep" ? "wake" : "clone";
