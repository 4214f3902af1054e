/** Which VMM the settings ask for. */
import type { Config } from "../contract/config.ts";
import { BangerError } from "../contract/errors.ts";
import type { Driver } from "../vmm/driver.ts";
import { qemuDriver } from "../vmm/qemu/driver.ts";

/** @returns the driver of the settings; one is kept per program, with what it has found out about the host */
export const driverOf = (): ((config: Pick<Config, "vmm" | "qemuBin">) => Driver) => {
  const drivers = new Map<string, Driver>();
  return ({ vmm, qemuBin }) => {
    const driver = drivers.get(qemuBin) ?? qemuDriver(qemuBin);
    drivers.set(qemuBin, driver);
    // VMs that run are still found and ended.
    return vmm === "firecracker" ? { ...driver, host: noFirecracker, start: noFirecracker } : driver;
  };
};

const noFirecracker = async (): Promise<never> => {
  throw new BangerError(
    "INVALID_CONFIG",
    'config.toml asks for `vmm = "firecracker"`, which this banger has no driver for',
    {
      hint: 'write `vmm = "auto"`, or take the line out',
    },
  );
};
