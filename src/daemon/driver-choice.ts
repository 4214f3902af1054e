/** Which VMM the settings ask for. */
import type { Config } from "../contract/config.ts";
import { BangerError } from "../contract/errors.ts";
import { once } from "../host/once.ts";
import type { Driver } from "../vmm/driver.ts";
import { firecrackerDriver, isFirecracker } from "../vmm/firecracker/driver.ts";
import { requireTap } from "../vmm/firecracker/host.ts";
import { qemuDriver } from "../vmm/qemu/driver.ts";

type Wanted = Pick<Config, "vmm" | "qemuBin" | "firecrackerBin" | "serialConsole" | "limits">;

/** @returns the driver of the settings; one is kept per program, with what it has found out about the host */
export const driverOf = (): ((config: Wanted) => Driver) => {
  const drivers = new Map<string, Driver>();
  return (wanted) => {
    const { vmm, qemuBin, firecrackerBin, serialConsole, limits } = wanted;
    const key = JSON.stringify([vmm, qemuBin, firecrackerBin, serialConsole, limits]);
    const driver = drivers.get(key) ?? chosenDriver(wanted);
    drivers.set(key, driver);
    return driver;
  };
};

/** New machines get the VMM of the settings; those that run are found and ended whatever they run under. */
const chosenDriver = ({ vmm, qemuBin, firecrackerBin, serialConsole, limits }: Wanted): Driver => {
  const qemu = qemuDriver(qemuBin, limits);
  const firecracker = firecrackerDriver({ firecracker: firecrackerBin, qemu: qemuBin, serial: serialConsole, limits });
  let chosen = vmm === "firecracker" ? firecracker : qemu;
  const choice = once(async () => {
    if (vmm === "auto" && (await works(firecracker))) chosen = firecracker;
    return chosen;
  });
  return {
    /** Known once `host` or `signature` has answered. */
    get name() {
      return chosen.name;
    },
    host: async () => (await choice()).host(),
    signature: async (spec) => (await choice()).signature(spec),
    start: async (...args) => (await choice()).start(...args),
    adopt: async (identity, sockets) =>
      ((await isFirecracker(identity.pid)) ? firecracker : qemu).adopt(identity, sockets),
    running: async (folder) => (await Promise.all([qemu, firecracker].map((each) => each.running(folder)))).flat(),
  };
};

const works = async (firecracker: Driver): Promise<boolean> => {
  try {
    await firecracker.host();
    await requireTap();
    return true;
  } catch (error) {
    if (error instanceof BangerError && error.code === "TOOL_MISSING") return false;
    throw error;
  }
};
