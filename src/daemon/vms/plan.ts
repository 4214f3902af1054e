/** From what a VM is made of to how its machine is wired. */
import type { Progress } from "../../contract/progress.ts";
import { agentBinary, type VmFiles, vmSockets } from "../../host/paths.ts";
import type { MachineSpec } from "../../vmm/driver.ts";
import type { BootImage, ImageService } from "../images/service.ts";
import type { BootKernel, KernelService } from "../kernels/service.ts";
import type { VmRow } from "../store/vms.ts";
import { needsFilter } from "../network/rules-file.ts";

/** Of every guest, however it is run: all security modules but TOMOYO, which looks up the path of each program and file for a policy that nobody has. */
const KERNEL_ARGUMENTS = ["lsm=landlock,lockdown,yama,loadpin,safesetid,integrity,apparmor,selinux,smack,bpf"];

/** What decides which machine a VM gets. */
export type Shape = Pick<VmRow, "image" | "kernel" | "vcpu" | "memory" | "diskSize" | "network" | "nested">;

export const shapeOf = ({ image, kernel, vcpu, memory, diskSize, network, nested }: Shape): Shape => ({
  image,
  kernel,
  vcpu,
  memory,
  diskSize,
  network,
  nested,
});

export type MachinePlan = {
  image: BootImage;
  kernel: BootKernel;
  initramfs: { path: string; key: string };
  /** The machine of this VM in this place. */
  spec(vm: Pick<VmRow, "id" | "name" | "mac" | "rules" | "team">, files: VmFiles): MachineSpec;
};

/** Finds what a VM of this shape boots with; pulls what is missing. */
export const planMachine = async (
  shape: Shape,
  { images, kernels }: { images: ImageService; kernels: KernelService },
  progress: Progress,
): Promise<MachinePlan> => {
  const [image, [kernel, initramfs]] = await Promise.all([
    images.ensure(shape.image, progress),
    kernels
      .ensure(shape.kernel, progress)
      .then(async (found) => [found, await kernels.initramfs(found, agentBinary())] as const),
  ]);
  return {
    image,
    kernel,
    initramfs,
    spec: ({ id, name, mac, rules, team }, files) => ({
      name,
      vcpu: shape.vcpu,
      memory: shape.memory,
      nested: shape.nested,
      kernel: kernel.vmlinux,
      initramfs: initramfs.path,
      kernelArguments: KERNEL_ARGUMENTS,
      disks: [
        { path: image.rootfs, readonly: true },
        { path: files.disk, readonly: false },
        { path: kernel.modules, readonly: true },
      ],
      nic:
        shape.network === "none"
          ? undefined
          : { mac, rules: files.networkRules, enforce: needsFilter({ network: shape.network, rules, team }) },
      sockets: vmSockets(id),
      log: files.vmmLog,
      networkLog: files.networkLog,
      saving: files.saving,
    }),
  };
};
