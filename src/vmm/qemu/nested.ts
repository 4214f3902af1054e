/** Whether the host's KVM hands its guests what KVM needs. */
import { readFileIfThere } from "../../host/files.ts";
import type { VmmHost } from "../driver.ts";

/** @param folder of the kernel's modules and their settings */
export const nestedIsOff = async (folder = "/sys/module"): Promise<VmmHost["noNested"]> => {
  for (const module of ["kvm_intel", "kvm_amd"]) {
    const setting = (await readFileIfThere(`${folder}/${module}/parameters/nested`))?.trim();
    if (setting === undefined) continue;
    if (/^[Y1]$/.test(setting)) return undefined;
    return {
      reason: `nested virtualisation is off in this host's KVM (${module})`,
      hint: `switch it on while no VM runs: sudo modprobe -r ${module} && sudo modprobe ${module} nested=1`,
    };
  }
  return { reason: "this host's KVM does not say that it has nested virtualisation", hint: "leave --nested out" };
};
