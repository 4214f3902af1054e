/** What Firecracker and the guest's kernel are told. Reasons are in docs/vmm.md; changing one changes what a saved VM can be restored with. */
import { basename, join } from "node:path";
import type { MachineSpec } from "../driver.ts";
import type { FirecrackerApi } from "./api.ts";

/** The tap, in a namespace of the VM's own (agent/src/host/tap.rs). */
const TAP = "tap0";
/** Every VM is alone on its vsock. */
const GUEST_CID = 3;

/** `i8042` and `8250`: looking for a keyboard and serial lines that are not there takes most of a boot. */
const kernelArguments = [
  "reboot=k",
  "panic=1",
  "quiet",
  "loglevel=1",
  "8250.nr_uarts=0",
  "i8042.noaux",
  "i8042.nomux",
  "i8042.nopnp",
  "i8042.dumbkbd",
  "pci=off",
  "swiotlb=noforce",
  "random.trust_cpu=on",
] as const;

/** A link in the VM's socket folder: the same name in every VM, since a snapshot is loaded with the paths it was saved with. */
export const driveLink = (index: number): string => `disk${index}`;

/** Comes after `--`, where Firecracker reads nothing: tells a later daemon whose it is. */
const DISK_MARK = "disk=";

export const firecrackerArguments = (program: string, spec: MachineSpec): [string, ...string[]] => [
  program,
  "--api-sock",
  basename(spec.sockets.control),
  "--id",
  /^[A-Za-z0-9-]{1,64}$/.test(spec.name) ? spec.name : "banger",
  "--level",
  "Warning",
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
export const driveLinks = (spec: MachineSpec): { path: string; target: string }[] =>
  spec.disks.map(({ path }, index) => ({ path: join(spec.sockets.folder, driveLink(index)), target: path }));

/** What a guest gets, in MiB. */
export const memoryMiB = ({ memory }: Pick<MachineSpec, "memory">): number => Math.ceil(memory / 2 ** 20);

export type Shape = Pick<MachineSpec, "vcpu" | "memory" | "kernelArguments" | "disks" | "nic">;

/** Everything that makes the machine, but for the places of kernel and initramfs. */
export const configuration = (spec: Shape, vsock: string) => ({
  machine: { vcpu_count: spec.vcpu, mem_size_mib: memoryMiB(spec) },
  kernelArguments: [...kernelArguments, ...spec.kernelArguments].join(" "),
  drives: spec.disks.map(({ readonly }, index) => ({
    drive_id: driveLink(index),
    path_on_host: driveLink(index),
    is_root_device: false,
    is_read_only: readonly,
    cache_type: readonly ? ("Unsafe" as const) : ("Writeback" as const),
    io_engine: "Sync" as const,
  })),
  vsock: { guest_cid: GUEST_CID, uds_path: vsock },
  balloon: { amount_mib: 0, deflate_on_oom: true, free_page_reporting: true },
  nic: spec.nic && { iface_id: "net0", host_dev_name: TAP, guest_mac: spec.nic.mac },
});

/** The guest owns the serial line's registers, whatever its kernel does with them: what it writes must not fill a file of ours. */
const NO_SERIAL = { serial_out_path: "/dev/null" };

/** All calls from a fresh Firecracker to a guest that runs. */
export const bringUp = async (api: FirecrackerApi, spec: MachineSpec): Promise<void> => {
  await api.putSerial(NO_SERIAL);
  if (spec.restore) {
    await api.loadSnapshot({
      snapshot_path: spec.restore.state,
      mem_backend: { backend_type: "File", backend_path: spec.restore.memory },
      resume_vm: true,
    });
    return;
  }
  const wanted = configuration(spec, basename(spec.sockets.agent));
  await api.putMachineConfiguration(wanted.machine);
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
