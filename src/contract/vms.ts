/** VMs as the API speaks of them. Sizes are bytes, times are milliseconds since 1970. */
import * as z from "zod/mini";

export const vmStates = ["stopped", "starting", "running", "stopping"] as const;
export type VmState = (typeof vmStates)[number];

export const networkModes = ["user", "none"] as const;

const count = z.number().check(z.int(), z.positive());
const environment = z.record(z.string().check(z.regex(/^[^=\0]+$/)), z.string());

/** What a VM is made of. Absent fields are filled from config, host and built-in defaults. */
export const createVmSchema = z.strictObject({
  name: z.optional(z.string()),
  image: z.optional(z.string()),
  kernel: z.optional(z.string()),
  vcpu: z.optional(count),
  memory: z.optional(count),
  diskSize: z.optional(count),
  network: z.optional(z.enum(networkModes)),
  /** Environment of every command run in the VM. */
  env: z.optional(environment),
  /** Deleted when the client that runs it goes away. */
  ephemeral: z.optional(z.boolean()),
});
export type CreateVm = z.infer<typeof createVmSchema>;

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
  vmm: z.string(),
  accel: z.string(),
  ephemeral: z.boolean(),
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
});
export type Vm = z.infer<typeof vmSchema>;

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
export const runSchema = z.strictObject({ vm: createVmSchema, exec: execSchema });
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
