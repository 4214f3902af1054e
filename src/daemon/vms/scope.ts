/** Limits of the host's for the processes of a VM, where the user's systemd sets them. */
import { moveToScope } from "../../host/user-scope.ts";
import type { Driver, MachineIdentity } from "../../vmm/driver.ts";
import type { Log } from "../log.ts";
import type { VmRow } from "../store/vms.ts";

const MiB = 2 ** 20;
/** What a VMM and its network may need on top of the guest's memory, in bytes: several times what was ever seen, since who exceeds it is ended. */
const OVERHEAD = 512 * MiB;
/** QEMU's cache of translated code, at its largest, in bytes. */
const TRANSLATIONS = 1024 * MiB;
/** Threads on top of one for each CPU: QEMU starts up to 64 for a guest's reads and writes. */
const THREADS = 128;
/** How long systemd may take to answer, in ms. */
const LIMIT = 5000;

/** The VM has started, and goes on without limits where they cannot be had. */
export const limitMachine = async (
  { id, name, memory, vcpu }: Pick<VmRow, "id" | "name" | "memory" | "vcpu">,
  { pid, helpers }: MachineIdentity,
  { driver, log }: { driver: Driver; log: Log },
): Promise<void> => {
  try {
    const { accel } = await driver.host();
    await moveToScope(
      {
        name: `banger-${id.slice(0, 8)}-${pid}`,
        description: `VM ${name} of banger`,
        pids: [pid, ...helpers.map((helper) => helper.pid)],
        memory: memory + OVERHEAD + (accel === "tcg" ? TRANSLATIONS : 0),
        tasks: vcpu + THREADS,
      },
      AbortSignal.timeout(LIMIT),
    );
  } catch (error) {
    log.warn("vm without limits of the host's", { vm: name, error });
  }
};
