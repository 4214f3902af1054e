/** What banger needs of a virtual machine monitor. One folder per VMM implements it. */
import type { Duplex } from "node:stream";
import type { Progress } from "../contract/progress.ts";

export type Accel = "kvm" | "tcg";

/** What each machine may move in a second, in bytes; undefined: as much as it can. */
export type Limits = { diskBandwidth: number | undefined; networkBandwidth: number | undefined };
export const noLimits: Limits = { diskBandwidth: undefined, networkBandwidth: undefined };

/** How a VM is wired for its VMM. Paths are absolute; sizes are bytes. */
export type MachineSpec = {
  /** For messages and process listings. */
  name: string;
  vcpu: number;
  memory: number;
  /** The guest's CPU has what KVM needs. */
  nested: boolean;
  kernel: string;
  initramfs: string;
  /** Kernel arguments on top of the driver's own. */
  kernelArguments: readonly string[];
  /** In the order of vda, vdb, vdc. */
  disks: readonly { path: string; readonly: boolean }[];
  /**
   * One NIC with this MAC address, connected out without privileges; undefined: no NIC. `rules`: the file of what it may reach; `enforce`: the
   * machine must not start where nothing would heed them.
   */
  nic: { mac: string; rules: string; enforce: boolean } | undefined;
  /** Where the VMM listens; made by the driver, 0600 from birth. */
  sockets: { folder: string; agent: string; control: string; console: string };
  /** Log of the VMM's own messages. */
  log: string;
  networkLog: string;
  /**
   * A folder for a VMM that writes what is saved of it by itself, and to no other place: made by the driver, gone with the machine. On the file system
   * of what is saved.
   */
  saving: string;
  /** Goes on from a saved machine in place of a boot. It must have been saved with the same `Driver.signature`. */
  restore?: SavedMachine | undefined;
  /** Gives way to everything else that runs on the host. */
  background?: boolean | undefined;
};

/** Files of a saved machine. Its disks are the owner's business. */
export type SavedMachine = {
  /** Registers and devices. */
  state: string;
  /** Memory, sparse, at its offset. Mapped private by each machine that is restored from it, so it must never change. */
  memory: string;
};

export type SaveRequest = {
  /** Bytes. */
  memorySize: number;
  /** What the machine was restored from: only what it has changed since is read from it. */
  base: string | undefined;
  /** New files. */
  target: SavedMachine;
  /** A disk to copy, as it is at the same instant; by its index in `MachineSpec.disks`. */
  disk?: { index: number; target: string } | undefined;
  /** Whether the machine goes on after it; it does so too when the save fails. */
  goOn: boolean;
  /** Awaited when all is copied that can be while the guest runs, before it is made to stand still. */
  beforePause?: (() => Promise<void>) | undefined;
};

export type Saved = {
  /** How long the guest stood still, `beforePause` included, in ms; until the end of the save where it does not go on. */
  pause: number;
  /** Memory that was written, in bytes. */
  memoryWritten: number;
};

/** Enough to find a process again after a restart of the daemon. */
export type ProcessIdentity = {
  pid: number;
  /** Field 22 of /proc/PID/stat: tells a reused pid from ours. */
  startTime: string;
};
/** A VMM, and the processes beside it that serve its network: they are of no use without it, and end with it. */
export type MachineIdentity = ProcessIdentity & { helpers: readonly ProcessIdentity[] };

/** Why a machine ended, for a person. */
export type MachineEnd = {
  reason: string /** The guest ended it by itself, or the daemon asked for it. */;
  clean: boolean;
};

/** What a machine's devices have moved, in bytes. */
export type DeviceUse = {
  /** Of the VM's own disk. */
  disk: { read: number; written: number };
  /** As the guest sees it; absent where the VMM does not count it. */
  network?: { received: number; sent: number } | undefined;
};

export type Machine = {
  readonly identity: MachineIdentity;
  /** A new connection to the agent's channel. The last one must be closed. */
  openAgentChannel(): Promise<Duplex>;
  /** Everything the guest's console writes while somebody reads it. */
  readonly console: Duplex;
  /** The agent's side of the channel was opened or closed in the guest. */
  onAgentPort(listener: (open: boolean) => void): void;
  /** The host has no room for what the guest writes: the VMM has paused the guest until `resume`. */
  onDiskFull(listener: () => void): void;
  /** Of this run, or since a later daemon has taken the machine up; undefined where the VMM does not tell. */
  deviceUse(): Promise<DeviceUse | undefined>;
  /** Makes a disk larger while the guest runs. @param disk its index in `MachineSpec.disks`. @param bytes its new size */
  growDisk(disk: number, bytes: number): Promise<void>;
  /** Stops the guest's CPUs; one that is paused is left as it is. */
  pause(): Promise<void>;
  /** Lets a paused guest go on; one that runs is left as it is. */
  resume(): Promise<void>;
  /**
   * Saves memory, devices and a disk, all of one instant. The guest stands still for the last part of it only.
   * @throws DISK_FULL, TOOL_FAILED; nothing is promised of the target then
   */
  save(request: SaveRequest, progress: Progress): Promise<Saved>;
  /** Resolves when the VMM process is gone. */
  readonly ended: Promise<MachineEnd>;
  /** Ends the VMM at once. Resolves when it is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Lets go of the machine without touching it. */
  detach(): void;
};

export type Driver = {
  readonly name: string;
  /**
   * What this host offers; found out at the first call.
   * @throws TOOL_MISSING when the VMM is not installed
   */
  host(): Promise<VmmHost>;
  /** Starts a machine; when it throws, nothing of it is left. `onIdentity` is awaited before anything else is done with it. */
  start(
    spec: MachineSpec,
    onIdentity: (identity: MachineIdentity) => Promise<void>,
    progress: Progress,
  ): Promise<Machine>;
  /**
   * What a saved machine can be restored with: two specs with the same signature make the same machine, here and now. Covers VMM, CPU, shape and
   * arguments; not the contents of kernel, initramfs and disks.
   */
  signature(
    spec: Pick<MachineSpec, "vcpu" | "memory" | "nested" | "kernelArguments" | "disks" | "nic">,
  ): Promise<string>;
  /** Finds a machine that an earlier daemon started; undefined when it is gone. */
  adopt(identity: MachineIdentity, sockets: MachineSpec["sockets"]): Promise<Machine | undefined>;
  /** Every VMM that runs with a disk below `folder`, whoever started it. Looks at all processes: for rare occasions. */
  running(folder: string): Promise<{ identity: MachineIdentity; disk: string }[]>;
};

export type VmmHost = {
  accel: Accel;
  /** How a machine's NIC is connected. */
  network: NetworkBackend;
  /** Why no guest can run VMs with KVM here, and what to do about it; undefined where one can. */
  noNested?: { reason: string; hint: string } | undefined;
};

/** What the guest must be told of its network: one of the two, or both. */
export type GuestNetwork = {
  address?: string;
  gateway?: string;
  address6?: string;
  gateway6?: string;
  dns: readonly string[];
};

export type NetworkBackend = {
  name: "passt" | "slirp";
  /** Its guest's IPv4 address. */
  address: string;
  /** As the host's own network is now. */
  guest(): Promise<GuestNetwork>;
  /** Set where it is a fallback: what is lost and how to mend it. */
  note: string | undefined;
};
