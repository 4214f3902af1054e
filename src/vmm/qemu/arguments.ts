/** The command line of QEMU. Their reasons are in docs/vmm.md; changing one changes what a saved VM can be restored with. */
import type { Limits, MachineSpec, SavedMachine } from "../driver.ts";
import type { AccelProbe } from "./accel.ts";

/** Descriptors that QEMU inherits, after stdin, stdout and stderr. */
export const inherited = { agent: 3, control: 4, console: 5, network: 6, state: 7 } as const;

/** Name of the agent's virtio-serial port, as the guest sees it. */
export const AGENT_PORT = "banger.agent";

export const kernelArguments = ({ accel, tscKhz }: AccelProbe): string[] => [
  "console=ttyS0",
  "quiet",
  "loglevel=1",
  "panic=-1",
  "reboot=t",
  "random.trust_cpu=on",
  // Under TCG the CPU's side channels are those of QEMU itself: mitigations would cost a fifth and protect nothing. And without the rate of
  // its clock Debian's kernel measures it against an emulated timer, and hangs on a busy host. Nor does it trust the counters of several
  // emulated CPUs, which are all the host's: it would count ticks instead, and lose minutes on a busy host.
  ...(accel === "tcg" ? ["mitigations=off", "nokaslr", `tsc_early_khz=${tscKhz}`, "tsc=reliable"] : []),
];

/** All that TCG can, but for strings of bytes that are told to be fast: there they are moved one by one, and a kernel that believes it copies and clears its pages so. */
const TCG_CPU = "max,erms=off,fsrm=off";

/** A comma in a value is doubled, as QEMU's option syntax wants it. */
export const driveValue = (text: string): string => text.replaceAll(",", ",,");

/** QEMU's name of a disk, by its place in `MachineSpec.disks`. */
export const driveName = (index: number): string => `disk${index}`;

const inheritedSocket = (id: string, fd: number): string[] => [
  "-chardev",
  `socket,id=${id},fd=${fd},server=on,wait=off`,
];

/**
 * The saved state has devices and registers only (save.ts), so memory comes from the file, mapped private; kernel and initramfs are in it. The
 * state has no configuration section and no description of itself, and QEMU must not look for them.
 */
const restoring = (spec: MachineSpec, { memory }: SavedMachine): string[] => [
  "-object",
  `memory-backend-file,id=mem0,size=${memoryMiB(spec)}M,mem-path=${driveValue(memory)},share=off`,
  "-global",
  "migration.send-configuration=off",
  "-incoming",
  `fd:${inherited.state}`,
];

/** What QEMU gives a guest, in MiB. */
export const memoryMiB = ({ memory }: Pick<MachineSpec, "memory">): number => Math.ceil(memory / 2 ** 20);

export const qemuArguments = (
  qemu: string,
  { accel, parallel }: Pick<AccelProbe, "accel" | "parallel">,
  { diskBandwidth }: Limits,
  spec: MachineSpec,
  append: readonly string[],
  netdev: string | undefined,
): [string, ...string[]] => [
  qemu,
  "-name",
  `banger-${driveValue(spec.name)}`,
  "-M",
  spec.restore ? "microvm,memory-backend=mem0,suppress-vmdesc=on" : "microvm",
  "-accel",
  // In turns a KVM inside loses track of its guests' interrupts (docs/vmm.md).
  accel === "tcg" ? `tcg,thread=${parallel || spec.nested ? "multi" : "single"}` : "kvm",
  "-cpu",
  // What lets a guest run VMs is the host kernel's most intricate code: it is there only where it is asked for.
  `${accel === "tcg" ? TCG_CPU : "host"}${spec.nested ? "" : accel === "tcg" ? ",svm=off" : ",svm=off,vmx=off"}`,
  "-smp",
  String(spec.vcpu),
  "-m",
  `${memoryMiB(spec)}M`,
  "-nodefaults",
  "-no-user-config",
  "-no-reboot",
  "-display",
  "none",
  "-sandbox",
  "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
  ...(spec.restore
    ? restoring(spec, spec.restore)
    : ["-kernel", spec.kernel, "-initrd", spec.initramfs, "-append", append.join(" ")]),
  ...spec.disks.flatMap(({ path, readonly }, index) => [
    "-drive",
    `id=${driveName(index)},file=${driveValue(path)},format=raw,if=none,cache=writeback,${readonly ? "readonly=on" : `readonly=off,discard=unmap${diskBandwidth ? `,throttling.bps-total=${diskBandwidth}` : ""}`}`,
    "-device",
    `virtio-blk-device,drive=${driveName(index)}`,
  ]),
  "-device",
  "virtio-rng-device",
  "-device",
  "virtio-serial-device",
  ...inheritedSocket("agent", inherited.agent),
  "-device",
  // Without an id QEMU does not tell (VSERPORT_CHANGE) when the agent has closed its end.
  `virtserialport,id=agent,chardev=agent,name=${AGENT_PORT}`,
  ...inheritedSocket("console", inherited.console),
  "-serial",
  "chardev:console",
  ...inheritedSocket("control", inherited.control),
  "-mon",
  "chardev=control,mode=control",
  ...(netdev && spec.nic
    ? ["-netdev", netdev, "-device", `virtio-net-device,netdev=net0,guest_announce=off,mac=${spec.nic.mac}`]
    : []),
];
