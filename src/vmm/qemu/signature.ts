/** What a machine that was saved must be restored with: this QEMU version, this CPU, these arguments. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { release } from "node:os";
import { once } from "../../host/once.ts";
import type { Limits, MachineSpec } from "../driver.ts";
import { type AccelProbe, programFingerprint, qemuVersion } from "./accel.ts";
import { kernelArguments, qemuArguments } from "./arguments.ts";

/** What of a spec has no part in what a machine is. */
const placeless = {
  name: "machine",
  kernel: "kernel",
  initramfs: "initramfs",
  sockets: { folder: "", agent: "", control: "", console: "" },
  log: "",
  networkLog: "",
  saving: "",
};

export type SignedSpec = Pick<MachineSpec, "vcpu" | "memory" | "nested" | "kernelArguments" | "disks" | "nic">;

/** @param qemu program name or path */
export const machineSignature = (
  qemu: string,
  limits: Limits,
): ((probe: AccelProbe, spec: SignedSpec) => Promise<string>) => {
  const version = programVersion(qemu);
  return async (probe, { vcpu, memory, nested, kernelArguments: more, disks, nic }) => {
    // The counter's rate is measured anew at each boot of the host, and never twice the same to the last kHz.
    const rounded = { ...probe, tscKhz: Math.round(probe.tscKhz / 1000) * 1000 };
    const argv = qemuArguments(
      "qemu",
      probe,
      limits,
      {
        ...placeless,
        vcpu,
        memory,
        nested,
        kernelArguments: more,
        disks: disks.map(({ readonly }, index) => ({ path: `disk${index}`, readonly })),
        nic: nic && { mac: "02:00:00:00:00:00", rules: "", enforce: false },
      },
      [...kernelArguments(rounded), ...more],
      nic && "network",
    );
    return JSON.stringify([await version(), probe.accel === "kvm" ? await hostCpu() : "tcg", argv]);
  };
};

/** Of the program as it is now: it may be upgraded while a daemon runs. */
export const programVersion = (qemu: string): (() => Promise<string>) => {
  let known: { fingerprint: string; version: string } | undefined;
  return async () => {
    const fingerprint = await programFingerprint(qemu);
    if (known?.fingerprint !== fingerprint) {
      known = { fingerprint, version: await qemuVersion(qemu) };
    }
    return known.version;
  };
};

/** Under KVM a guest has the host's CPU, and what of it KVM passes on is the host kernel's choice. */
export const hostCpu = once(async () => {
  const info = await readFile("/proc/cpuinfo", "utf8");
  const lines = info.split("\n\n")[0]?.split("\n") ?? [];
  const telling = lines.filter((line) =>
    /^(vendor_id|cpu family|model|model name|stepping|microcode|flags)\s*:/.test(line),
  );
  return createHash("sha256")
    .update([release(), ...telling].join("\n"))
    .digest("hex")
    .slice(0, 16);
});
