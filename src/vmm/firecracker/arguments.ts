/** What Firecracker and the guest's kernel are told. Reasons are in docs/vmm.md; changing one changes what a saved VM can be restored with. */
import { basename, join } from "node:path";
import type { Limits, MachineSpec } from "../driver.ts";
import type { FirecrackerApi } from "./api.ts";
import { METRICS } from "./metrics.ts";

/** The tap, in a namespace of the VM's own (agent/src/host/tap.rs). */
const TAP = "tap0";
export const NIC = "net0";
/** Every VM is alone on its vsock. */
const GUEST_CID = 3;

/** `i8042` and `8250`: looking for a keyboard and serial lines that are not there takes most of a boot. */
const kernelArguments = (serial: boolean) => [
  "reboot=k",
  "panic=1",
  "quiet",
  "loglevel=1",
  serial ? "console=ttyS0" : "8250.nr_uarts=0",
  "i8042.noaux",
  "i8042.nomux",
  "i8042.nopnp",
  "i8042.dumbkbd",
  "pci=off",
  "swiotlb=noforce",
  "random.trust_cpu=on",
];

/** A link in the VM's socket folder: the same name in every VM, since a snapshot is loaded with the paths it was saved with. */
export const driveLink = (index: number): string => `disk${index}`;

/** Link to `MachineSpec.saving`, in the same folder for the same reason. */
export const SAVING = "saving";

/** Comes after `--`, where Firecracker reads nothing: tells a later daemon whose it is. */
const DISK_MARK = "disk=";

export const firecrackerArguments = (program: string, spec: MachineSpec): [string, ...string[]] => [
  program,
  "--api-sock",
  basename(spec.sockets.control),
  "--id",
  /^[A-Za-z0-9-]{1,64}$/.test(spec.name) ? spec.name : "banger",
  // A guest can make it warn without end. How it failed is in its exit status and on stderr.
  "--level",
  "Off",
  "--",
  `${DISK_MARK}${spec.disks[1]?.path ?? ""}`,
];

/** The VM's own disk, when this is the command line of one of our Firecrackers. */
export const diskOf = (argv: readonly string[]): string | undefined => {
  const end = argv.indexOf("--");
  if (end < 0 || !argv.slice(0, end).includes("--api-sock")) return undefined;
  return argv
    .slice(end + 1)
    .find((word) => word.startsWith(DISK_MARK))
    ?.slice(DISK_MARK.length);
};

/** What is in the folder of the machine, and in no argument. */
export const folderLinks = (spec: MachineSpec): { path: string; target: string }[] => [
  ...spec.disks.map(({ path }, index) => ({ path: join(spec.sockets.folder, driveLink(index)), target: path })),
  { path: join(spec.sockets.folder, SAVING), target: spec.saving },
];

/** What a guest gets, in MiB. */
export const memoryMiB = ({ memory }: Pick<MachineSpec, "memory">): number => Math.ceil(memory / 2 ** 20);

/** Bits of a register that Firecracker is to clear: the first of the string is bit 31, `x` is left as it is. */
const cleared = (bit: number): string => `0b${"x".repeat(31 - bit)}0${"x".repeat(bit)}`;

/** No VMX and no SVM: what lets a guest run VMs is the host kernel's most intricate code, and no snapshot of Firecracker's holds its state. */
const NO_NESTED = {
  cpuid_modifiers: [
    { leaf: "0x1", subleaf: "0x0", flags: 0, modifiers: [{ register: "ecx" as const, bitmap: cleared(5) }] },
    { leaf: "0x80000001", subleaf: "0x0", flags: 0, modifiers: [{ register: "ecx" as const, bitmap: cleared(2) }] },
  ],
};

/** What the user's settings say of every machine. */
export type Settings = {
  limits: Limits;
  /** The guest has a serial line, and its console there. */
  serial: boolean;
};

export type Shape = Pick<MachineSpec, "vcpu" | "memory" | "kernelArguments" | "disks" | "nic">;

/** A bucket that fills within a second. */
const perSecond = (bytes: number) => ({ bandwidth: { size: bytes, refill_time: 1000 } });

/** Everything that makes the machine, but for the places of kernel and initramfs. */
export const configuration = (
  spec: Shape,
  vsock: string,
  { limits: { diskBandwidth, networkBandwidth }, serial }: Settings,
) => ({
  cpu: NO_NESTED,
  machine: { vcpu_count: spec.vcpu, mem_size_mib: memoryMiB(spec) },
  kernelArguments: [...kernelArguments(serial), ...spec.kernelArguments].join(" "),
  drives: spec.disks.map(({ readonly }, index) => ({
    drive_id: driveLink(index),
    path_on_host: driveLink(index),
    is_root_device: false,
    is_read_only: readonly,
    cache_type: readonly ? ("Unsafe" as const) : ("Writeback" as const),
    io_engine: "Sync" as const,
    ...(readonly || diskBandwidth === undefined ? {} : { rate_limiter: perSecond(diskBandwidth) }),
  })),
  vsock: { guest_cid: GUEST_CID, uds_path: vsock },
  balloon: { amount_mib: 0, deflate_on_oom: true, free_page_reporting: true },
  nic: spec.nic && {
    iface_id: NIC,
    host_dev_name: TAP,
    guest_mac: spec.nic.mac,
    ...(networkBandwidth === undefined
      ? {}
      : { rx_rate_limiter: perSecond(networkBandwidth), tx_rate_limiter: perSecond(networkBandwidth) }),
  },
});

/** Name of the pipe that the serial line is written to, in Firecracker's folder. */
export const CONSOLE = "console";
/** The guest owns the serial line's registers, whatever its kernel does with them: what it writes must not fill a file of ours, nor keep the daemon busy. */
const serialLine = (serial: boolean) =>
  serial
    ? { serial_out_path: CONSOLE, rate_limiter: { size: 2 ** 20, refill_time: 1000 } }
    : { serial_out_path: "/dev/null" };

/** All calls from a fresh Firecracker to a guest that runs. */
export const bringUp = async (api: FirecrackerApi, spec: MachineSpec, settings: Settings): Promise<void> => {
  await api.putSerial(serialLine(settings.serial));
  await api.putMetrics({ metrics_path: METRICS });
  if (spec.restore) {
    await api.loadSnapshot({
      snapshot_path: spec.restore.state,
      mem_backend: { backend_type: "File", backend_path: spec.restore.memory },
      resume_vm: true,
    });
    return;
  }
  const wanted = configuration(spec, basename(spec.sockets.agent), settings);
  await api.putMachineConfiguration(wanted.machine);
  await api.putCpuConfiguration(wanted.cpu);
  await api.putBootSource({
    kernel_image_path: spec.kernel,
    initrd_path: spec.initramfs,
    boot_args: wanted.kernelArguments,
  });
  for (const drive of wanted.drives) await api.putDrive(drive);
  await api.putVsock(wanted.vsock);
  await api.putEntropy({});
  await api.putBalloon(wanted.balloon);
  if (wanted.nic) await api.putNetworkInterface(wanted.nic);
  await api.putAction({ action_type: "InstanceStart" });
};
