/** Firecracker's API as banger uses it, after its own description of release 1.16. Fields that banger never sends are left out. */

export type MachineConfiguration = {
  /** 1 to 32. */
  vcpu_count: number;
  /** MiB. */
  mem_size_mib: number;
};

/** Changes of what KVM would show of the CPU. */
export type CpuConfiguration = {
  cpuid_modifiers: {
    /** In hex, with `0x`. */
    leaf: string;
    subleaf: string;
    /** Of KVM; 0: the subleaf does not count. */
    flags: number;
    /** `0b` and 32 of `0`, `1` and `x`, highest bit first. */
    modifiers: { register: "eax" | "ebx" | "ecx" | "edx"; bitmap: string }[];
  }[];
};

/** Paths are relative to Firecracker's working folder. */
export type BootSource = { kernel_image_path: string; initrd_path?: string; boot_args?: string };

export type TokenBucket = {
  /** Tokens: bytes, or operations. */
  size: number;
  /** Time in which an empty bucket fills, in ms. */
  refill_time: number;
  /** Tokens on top, once. */
  one_time_burst?: number;
};
export type RateLimiter = { bandwidth?: TokenBucket; ops?: TokenBucket };

export type Drive = {
  drive_id: string;
  /** Adds `root=/dev/vda` to the kernel's arguments; with an initramfs nobody reads it. */
  is_root_device: boolean;
  is_read_only: boolean;
  path_on_host: string;
  /** `Writeback`: the guest's flushes reach the host's disk. */
  cache_type?: "Unsafe" | "Writeback";
  io_engine?: "Sync" | "Async";
  rate_limiter?: RateLimiter;
};
export type PartialDrive = { drive_id: string; path_on_host?: string; rate_limiter?: RateLimiter };

export type NetworkInterface = {
  iface_id: string;
  /** Name of the tap. */
  host_dev_name: string;
  guest_mac?: string;
  rx_rate_limiter?: RateLimiter;
  tx_rate_limiter?: RateLimiter;
};

export type Vsock = {
  /** 3 or more. */
  guest_cid: number;
  /** Firecracker listens here, and dials `PATH_PORT` for the guest. */
  uds_path: string;
};

export type EntropyDevice = { rate_limiter?: RateLimiter };

export type Balloon = {
  /** MiB taken from the guest. */
  amount_mib: number;
  deflate_on_oom: boolean;
  /** Pages that the guest has freed go back to the host. */
  free_page_reporting?: boolean;
};

export type SerialDevice = { serial_out_path?: string; rate_limiter?: TokenBucket };
export type Metrics = { metrics_path: string };
export type Logger = { log_path?: string; level?: "Error" | "Warning" | "Info" | "Debug" | "Trace" | "Off" };
export type Action = { action_type: "FlushMetrics" | "InstanceStart" | "SendCtrlAltDel" };
export type VmState = { state: "Paused" | "Resumed" };

export type SnapshotCreate = {
  snapshot_path: string;
  mem_file_path: string;
  /** `Diff`: only pages that are in memory; they are written over what the file holds. */
  snapshot_type?: "Full" | "Diff";
};

export type SnapshotLoad = {
  snapshot_path: string;
  mem_backend: { backend_type: "File" | "Uffd"; backend_path: string };
  resume_vm?: boolean;
  network_overrides?: { iface_id: string; host_dev_name: string }[];
  vsock_override?: { uds_path: string };
};

export type InstanceInfo = {
  app_name: string;
  id: string;
  state: "Not started" | "Running" | "Paused";
  vmm_version: string;
};
