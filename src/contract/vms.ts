/** VMs as the API speaks of them. Sizes are bytes, times are milliseconds since 1970. */
import * as z from "zod/mini";
import { dockerConfigSchema } from "./images.ts";
import { LABEL_KEY, LABEL_VALUE, vmStates } from "./names.ts";
import { netRuleSchema, networkModes, teamSchema } from "./network.ts";
import { publishedSchema, publishSchema } from "./published.ts";
import { secretRecordSchema, secretSchema } from "./secrets.ts";

export type VmState = (typeof vmStates)[number];

const count = z.number().check(z.int(), z.positive());
const environment = z.record(z.string().check(z.regex(/^[^=\0]+$/)), z.string());

const labelKey = z.string().check(z.regex(LABEL_KEY));
const labelValue = z.string().check(z.regex(LABEL_VALUE));
/** Longest time without use after which a VM may be stopped, in ms; 0: never. */
const autoStop = z.number().check(z.int(), z.nonnegative());

/** What a VM is made of. Absent fields are filled from config, host and built-in defaults. */
export const createVmSchema = z.strictObject({
  name: z.optional(z.string()),
  image: z.optional(z.string()),
  kernel: z.optional(z.string()),
  vcpu: z.optional(count),
  memory: z.optional(count),
  diskSize: z.optional(count),
  network: z.optional(z.enum(networkModes)),
  /** Its guest can run VMs with KVM. */
  nested: z.optional(z.boolean()),
  /** Environment of every command run in the VM. */
  env: z.optional(environment),
  labels: z.optional(z.record(labelKey, labelValue)),
  /** Of its network; the first that fits decides. */
  rules: z.optional(z.array(netRuleSchema)),
  /** Reaches the other VMs of this team, and they it. */
  team: z.optional(z.string()),
  /** Values that stay on this machine, and where they may go. */
  secrets: z.optional(z.array(secretSchema).check(z.maxLength(100))),
  /** Ports of the guest that are reached on the host. */
  publish: z.optional(z.array(publishSchema)),
  /** Also whatever comes to listen in the guest. */
  autoPublish: z.optional(z.boolean()),
  /** Stopped after so long without use, in ms; 0: never. Absent: as the config says. */
  autoStop: z.optional(autoStop),
  /** Also where the host has hardly enough for it. */
  force: z.optional(z.boolean()),
  /** Deleted when the client that runs it goes away. */
  ephemeral: z.optional(z.boolean()),
  /** For an image or kernel that has to be pulled first. */
  dockerConfig: z.optional(dockerConfigSchema),
});
export type CreateVm = z.infer<typeof createVmSchema>;

/** A repository in a guest. */
export const workspaceSchema = z.strictObject({
  /** Its folder in the guest. */
  path: z.string().check(z.regex(/^\/root\/[^/\0]+$/)),
  /** Where it came from on the host. */
  repository: z.string(),
  /** The commit that was checked out; absent before the first one. */
  commit: z.optional(z.string()),
  /** What the host's working tree was at then; absent before its first commit. */
  head: z.optional(z.string()),
});
export type Workspace = z.infer<typeof workspaceSchema>;

/** A change of a VM. Absent fields stay as they are. */
export const setVmSchema = z.strictObject({
  vcpu: z.optional(count),
  memory: z.optional(count),
  /** Never less than it is. */
  diskSize: z.optional(count),
  network: z.optional(z.enum(networkModes)),
  /** In ms; 0: never; null: as the config says. */
  autoStop: z.optional(z.nullable(autoStop)),
  /** A value sets a label, null takes it away. */
  labels: z.optional(z.record(labelKey, z.nullable(labelValue))),
  /** The repository that was brought in; null: none any more. */
  workspace: z.optional(z.nullable(workspaceSchema)),
  /** Also where the host has hardly enough for it. */
  force: z.optional(z.boolean()),
});
export type SetVm = z.infer<typeof setVmSchema>;

/** When a change is there: at once, when a running VM is restarted, or when a stopped one is started. */
export const setEffects = ["now", "restart", "start"] as const;
export type SetEffect = (typeof setEffects)[number];

export const vmSchema = z.object({
  id: z.string(),
  name: z.string(),
  state: z.enum(vmStates),
  image: z.string(),
  kernel: z.string(),
  vcpu: z.number(),
  memory: z.number(),
  diskSize: z.number(),
  /** What its disk occupies on the host. Only in `show`. */
  diskUsed: z.optional(z.number()),
  network: z.enum(networkModes),
  nested: z.boolean(),
  vmm: z.string(),
  accel: z.string(),
  ephemeral: z.boolean(),
  labels: z.record(z.string(), z.string()),
  /** Of a running VM: what it gets at its next start. */
  next: z.optional(
    z.object({
      vcpu: z.optional(z.number()),
      memory: z.optional(z.number()),
      network: z.optional(z.enum(networkModes)),
    }),
  ),
  /** Its own setting: stopped after so long without use, in ms; 0: never. Absent: the config's. */
  autoStop: z.optional(z.number()),
  /** When it will be stopped unless somebody uses it. Absent where it will not. */
  autoStopAt: z.optional(z.number()),
  /** When somebody last ran a command in it, copied, or had a connection to it; its start counts too. */
  lastUsedAt: z.optional(z.number()),
  createdAt: z.number(),
  /** Of the present or last run. */
  startedAt: z.optional(z.number()),
  stoppedAt: z.optional(z.number()),
  /** Why it is in this state, where that was not asked for: `QEMU was ended by SIGKILL`. */
  reason: z.optional(z.string()),
  /** Something the user should know: a fallback that was taken. */
  notes: z.array(z.string()),
  /** Process id of the VMM while it runs. */
  pid: z.optional(z.number()),
  /** What its present or last run went on from; absent where it booted. */
  restored: z.optional(z.enum(["template", "snapshot", "sleep"])),
  /** Its own loopback address on the host, where its ports are published. */
  address: z.string(),
  published: z.array(publishedSchema),
  /** Of its network, in their order. */
  rules: z.array(netRuleSchema),
  team: z.optional(teamSchema),
  /** Without their values. */
  secrets: z.array(secretRecordSchema),
  /** Whatever comes to listen in the guest is published too. */
  autoPublish: z.boolean(),
  /** The repository that was brought in last: where shells and commands begin. */
  workspace: z.optional(workspaceSchema),
});
export type Vm = z.infer<typeof vmSchema>;

export const setResultSchema = z.object({
  vm: vmSchema,
  effects: z.record(z.string(), z.enum(setEffects)),
  /** What the user should know: the host may have too little for it. */
  notes: z.array(z.string()),
});
export type SetResult = z.infer<typeof setResultSchema>;

/** One line of a watch: first all VMs, then each VM as it changes and each that is gone, with the id of the operation that did it. */
export type VmWatchLine =
  | { vms: Vm[]; vm?: undefined; gone?: undefined }
  | { vm: Vm; operation?: string; vms?: undefined; gone?: undefined }
  | { gone: { id: string; name: string }; operation?: string; vms?: undefined; vm?: undefined };

/** A socket in the guest that waits for connections or datagrams, or a port that is published although none does. */
export const portSchema = z.object({
  proto: z.enum(["tcp", "tcp6", "udp", "udp6"]),
  /** In the guest: `0.0.0.0` is any, `127.0.0.1` is the guest alone. Absent where nothing is known to listen. */
  address: z.optional(z.string()),
  port: z.number(),
  pid: z.optional(z.number()),
  process: z.optional(z.string()),
  /** Where it is reached on the host. */
  published: z.array(publishedSchema),
});
export type GuestPort = z.infer<typeof portSchema>;

/** `auto`: also whatever comes to listen in the guest. */
export const publishRequestSchema = z.strictObject({
  ports: z.array(publishSchema),
  auto: z.optional(z.boolean()),
});
export const publishResultSchema = z.object({
  published: z.array(publishedSchema),
  /** What the user should know: who else can reach it. */
  notes: z.array(z.string()),
});
export type PublishRequest = z.infer<typeof publishRequestSchema>;
export type PublishResult = z.infer<typeof publishResultSchema>;
/** `auto`: no longer by itself; `all`: that, and every port. A port without `host` stands for all with that guest port. */
export const unpublishRequestSchema = z.strictObject({
  ports: z.array(publishSchema),
  auto: z.optional(z.boolean()),
  all: z.optional(z.boolean()),
});
export type UnpublishRequest = z.infer<typeof unpublishRequestSchema>;

/** No names: every VM that runs. */
export const statsRequestSchema = z.strictObject({ vms: z.array(z.string()), follow: z.boolean() });

/** What a VM uses. Sizes are bytes. */
export type VmStats = {
  id: string;
  name: string;
  state: VmState;
  /** Percent of one host CPU since the sample before; more than 100 with several. Absent where nothing runs. */
  cpu?: number | undefined;
  /** CPU time of the VMM in this run, in ms. */
  cpuTime?: number | undefined;
  memory: {
    /** What the guest was given. */
    size: number;
    /** Resident in the VMM, pages that it shares with others counted whole; and counted by their share. */
    rss?: number | undefined;
    pss?: number | undefined;
  };
  /** The VM's own disk on the host. */
  disk: {
    size: number;
    used: number;
    /** By the guest, in this run or since the daemon has taken the VM up. */
    read?: number | undefined;
    written?: number | undefined;
  };
  /** Bytes through its network card, likewise; absent where the VMM does not count them: `guest` has its own. */
  network?: { received: number; sent: number } | undefined;
  /** What the guest says of itself; absent when it does not answer. */
  guest?: GuestStats | undefined;
};

export type GuestStats = {
  memory: { total: number; available: number };
  disk: { total: number; free: number };
  /** By how much its clock is ahead of the host's, in ms; negative: behind. Absent where an older agent runs. */
  clockOffset?: number | undefined;
  /** Average of a minute. */
  load: number;
  processes: number;
  /** Bytes through its network card since its start; absent without one. */
  network?: { received: number; sent: number } | undefined;
};

export type StatsLine = {
  /** ms since 1970. */
  time: number;
  vms: VmStats[];
};

export const ptySchema = z.strictObject({
  cols: count.check(z.maximum(65535)),
  rows: count.check(z.maximum(65535)),
  term: z.string(),
});

export const execSchema = z.strictObject({
  /** Program and arguments, passed as given. Empty: the user's login shell. */
  argv: z.array(z.string()),
  env: z.optional(environment),
  cwd: z.optional(z.string()),
  user: z.optional(z.string()),
  pty: z.optional(ptySchema),
});
export type Exec = z.infer<typeof execSchema>;

/** `vm run` in one stream: create, start, exec, and delete where asked. */
export const runSchema = z.strictObject({
  vm: createVmSchema,
  exec: execSchema,
  /**
   * The client has something to do in the VM before the command: it is told by the event `{prepare}`, and answers with the control message
   * `{prepared: true}`. A client that goes away before that takes the VM with it, as a failed start does.
   */
  prepare: z.optional(z.boolean()),
});
export type Run = z.infer<typeof runSchema>;

/** How a command in the guest ended: one of the two. */
export type ExecResult = { exit: number; signal?: undefined } | { signal: number; exit?: undefined };

export const dialSchema = z.union([
  z.strictObject({ port: count.check(z.maximum(65535)), host: z.optional(z.string()) }),
  z.strictObject({ unix: z.string() }),
]);
export type Dial = z.infer<typeof dialSchema>;

/** A file operation of the guest, as the agent takes it (docs/guest-protocol.md). */
export const fileRequestSchema = z.discriminatedUnion("op", [
  z.strictObject({ op: z.literal("stat"), path: z.string(), follow: z.optional(z.boolean()) }),
  z.strictObject({ op: z.literal("list"), path: z.string() }),
  z.strictObject({
    op: z.literal("read"),
    path: z.string(),
    offset: z.optional(z.number()),
    length: z.optional(z.number()),
  }),
  z.strictObject({
    op: z.literal("write"),
    path: z.string(),
    mode: z.optional(z.number()),
    uid: z.optional(z.number()),
    gid: z.optional(z.number()),
    parents: z.optional(z.boolean()),
    /** Known beforehand: the guest then publishes nothing when it got more or less. */
    size: z.optional(z.number()),
  }),
  z.strictObject({ op: z.literal("tar_out"), path: z.string(), name: z.optional(z.string()) }),
  z.strictObject({
    op: z.literal("tar_in"),
    path: z.string(),
    uid: z.optional(z.number()),
    gid: z.optional(z.number()),
  }),
]);
export type FileRequest = z.infer<typeof fileRequestSchema>;

export type GuestFileStat = {
  type: "file" | "dir" | "link" | "block" | "char" | "fifo" | "socket";
  size: number;
  /** Permission bits. */
  mode: number;
  uid: number;
  gid: number;
  /** Seconds since 1970. */
  mtime: number;
  /** Of a link. */
  target?: string;
};
