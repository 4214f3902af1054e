/** What the public API takes and gives. Sizes are bytes where a number, times milliseconds. */
import type { Readable } from "node:stream";
import type { FrameStream } from "../client/frame-stream.ts";
import type { ProgressEvent } from "../contract/progress.ts";
import type { Publish } from "../contract/published.ts";
import type { SecretInfo } from "../contract/secrets.ts";
import type { SnapshotInfo } from "../contract/snapshots.ts";
import type {
  ExecResult,
  GuestFileStat,
  GuestPort,
  PublishResult,
  SetResult,
  SetVm,
  Vm,
  VmStats,
} from "../contract/vms.ts";

/** Of work that takes its time. */
export type WorkOptions = {
  /** Cancels the work; what it had made by then is undone. */
  signal?: AbortSignal;
  onProgress?: (event: ProgressEvent) => void;
};

/** A port of the guest's on the host: `[[ADDRESS:]HOST:]GUEST[/udp]`, or the same as fields. */
export type PortOption = string | Publish;

export type SecretOption = {
  /** 8 to 16384 printable ASCII characters. It stays on this machine. */
  value: string;
  /** Who may get it: `api.example.com`, `*.example.com`, `HOST:PORT`; `http://HOST` without TLS. */
  hosts: readonly string[];
  /** Headers that it goes into; default: Authorization, X-Api-Key and their like. */
  headers?: readonly string[];
};

export type SandboxOptions = WorkOptions & {
  /** 1 to 63 of `[a-z0-9-]`; default: an adjective and a noun. */
  name?: string;
  image?: string;
  kernel?: string;
  /** Number of virtual CPUs. */
  vcpu?: number;
  /** Bytes, or a size such as `2G`. */
  memory?: number | string;
  /** Bytes, or a size such as `8G`. */
  diskSize?: number | string;
  /** user: the world, and nothing near; policy: only what is allowed; learn: as user, and it is written down; none: no network card. */
  network?: "user" | "policy" | "learn" | "none";
  /** What it may reach besides, as `vm net allow` takes it: `github.com:443`, `192.168.1.0/24`. */
  allow?: readonly string[];
  /** What it may not reach; looked at before what is allowed. */
  deny?: readonly string[];
  /** Reaches the other VMs of this team by `NAME.vm`, and is reached by them. */
  team?: string;
  /** By the names that programs in the VM have for them, where they see a placeholder. */
  secrets?: Readonly<Record<string, SecretOption>>;
  /** Its guest can run VMs with KVM; default: it cannot. */
  nested?: boolean;
  /** Environment of every command. */
  env?: Record<string, string>;
  labels?: Record<string, string>;
  /** Stopped after so long without use, in ms; 0: never. Default: as the config says. */
  autoStop?: number;
  publish?: readonly PortOption[];
  /** Publishes whatever comes to listen in the guest, for as long as it does. */
  autoPublish?: boolean;
  /** Also where the host has hardly enough for it. */
  force?: boolean;
};

export type ExecOptions = {
  env?: Record<string, string>;
  /** Working directory in the guest. */
  cwd?: string;
  /** `name`, `uid`, `name:group`; default: root. */
  user?: string;
  /** Runs it on a terminal of this size in character cells. `term` is its TERM. */
  pty?: { cols: number; rows: number; term: string };
  /** Ends the command. */
  signal?: AbortSignal;
};

export type ExecOutput = {
  /** Exit status; 128 and the number of the signal where one ended it. */
  exit: number;
  /** All it wrote, as UTF-8. */
  stdout: string;
  stderr: string;
};

export type StopOptions = WorkOptions & {
  /** How long the guest may take to shut down before its VMM is ended, in ms. */
  timeout?: number;
};

/** Absent fields stay as they are. */
export type SetOptions = Omit<SetVm, "memory" | "diskSize" | "workspace"> & {
  /** Bytes, or a size such as `2G`. */
  memory?: number | string;
  /** Bytes, or a size such as `8G`; never less than it is. */
  diskSize?: number | string;
};

/**
 * A VM. Disposing of it deletes a VM that `create` or `restore` made, and lets go of one that `connect` or `fork` gave.
 *
 * Every method throws a BangerError: VM_NOT_FOUND when the VM was deleted meanwhile, DAEMON_UNREACHABLE when the daemon went away, and what stands
 * beside it.
 */
export type Sandbox = AsyncDisposable & {
  readonly id: string;
  readonly name: string;
  /** How it is now. */
  show(): Promise<Vm>;
  /**
   * Runs a command to its end. Arguments are passed as they are, never through a shell. All output is kept in memory: use `stream` for much.
   * @throws EXEC_NOT_FOUND, EXEC_NOT_EXECUTABLE, VM_STOPPED, GUEST_AGENT_LOST, CANCELLED
   */
  exec(argv: readonly string[], options?: ExecOptions & { stdin?: string | Uint8Array }): Promise<ExecOutput>;
  /**
   * Runs a command with its streams: read both outputs, since either holds back the other.
   * @param argv empty: the user's login shell
   * @throws as `exec`
   */
  stream(argv: readonly string[], options?: ExecOptions): Promise<FrameStream<ExecResult>>;
  /**
   * A connection to something that listens in the guest; its bytes are `stdin` and `stdout`.
   * @param target a TCP port of the guest's own 127.0.0.1 or of `host`, or the path of a unix socket
   * @throws GUEST_ERROR when nobody listens there, VM_STOPPED
   */
  dial(
    target: { port: number; host?: string } | { unix: string },
    options?: { signal?: AbortSignal },
  ): Promise<FrameStream<{ ok: unknown; exit?: undefined; signal?: undefined }>>;
  /** @throws FILE_NOT_FOUND, VM_STOPPED */
  readFile(path: string): Promise<Buffer>;
  /**
   * Writes a file whole or not at all.
   * @param options mode: permission bits, default 0o644; parents: makes missing folders
   * @throws FILE_NOT_FOUND, GUEST_ERROR, VM_STOPPED
   */
  writeFile(path: string, data: string | Uint8Array, options?: { mode?: number; parents?: boolean }): Promise<void>;
  /**
   * @param options follow: tells of what a link leads to
   * @throws FILE_NOT_FOUND, VM_STOPPED
   */
  stat(path: string, options?: { follow?: boolean }): Promise<GuestFileStat>;
  /**
   * A file or folder with all it holds, as a tar stream, with modes, links and holes.
   * @throws by the stream's error: FILE_NOT_FOUND, VM_STOPPED
   */
  readArchive(path: string): Promise<Readable>;
  /**
   * Unpacks a tar stream in a folder of the guest.
   * @throws GUEST_ERROR, VM_STOPPED
   */
  writeArchive(folder: string, archive: Readable): Promise<void>;
  /**
   * Starts it, wakes it where it sleeps, or resumes it where it is paused.
   * @param options force: also where the host has hardly the memory for it
   * @throws HOST_LIMIT, VM_BOOT_FAILED, VM_BOOT_TIMEOUT, CANCELLED
   */
  start(options?: WorkOptions & { force?: boolean }): Promise<Vm>;
  /** Syncs its disks and shuts it down; its disk stays. One that does not shut down in time is ended. */
  stop(options?: StopOptions): Promise<Vm>;
  /** Stops it and boots it anew. @throws as `start` */
  restart(options?: StopOptions): Promise<Vm>;
  /**
   * Signals its VMM.
   * @param signal such as `SIGTERM`; default: SIGKILL, after which it is stopped
   */
  kill(signal?: string): Promise<Vm>;
  /**
   * Changes what it is made of.
   * @returns when each change takes effect, by field, and what its user should know
   * @throws USAGE for what cannot be, HOST_LIMIT
   */
  set(change: SetOptions): Promise<SetResult>;
  /** What it uses of the host now, and what its guest says of itself. */
  stats(): Promise<VmStats>;
  /** What listens in the guest, and what reaches it on the host. @throws GUEST_AGENT_LOST */
  ports(): Promise<GuestPort[]>;
  /**
   * Publishes ports of the guest's on the host, for as long as the VM is there.
   * @param options auto: also whatever comes to listen
   * @throws PORT_IN_USE, PORT_REFUSED, USAGE; then nothing of it is published
   */
  publish(ports: readonly PortOption[], options?: { auto?: boolean }): Promise<PublishResult>;
  /**
   * @param ports one without a port of the host stands for all with that guest port
   * @param options auto: no longer by itself; all: that, and every port
   * @throws PORT_NOT_FOUND
   */
  unpublish(ports: readonly PortOption[], options?: { auto?: boolean; all?: boolean }): Promise<Vm>;
  /**
   * Changes what its network may reach, at once where it runs: the first rule that fits decides, and new ones come before those that are there, `deny` before `allow`.
   * @param change remove: takes these rules away
   * @throws USAGE, also for one to take away that is not there; TOOL_MISSING, VM_WRONG_STATE where nothing heeds them; then all stay
   */
  net(change: { allow?: readonly string[]; deny?: readonly string[]; remove?: boolean }): Promise<Vm>;
  /** Without their values, which nobody is told. */
  secrets(): Promise<SecretInfo[]>;
  /**
   * Gives it secrets, or new values, at once where it runs: programs that are started from then on see their placeholders.
   * @throws USAGE, VM_WRONG_STATE while it is paused or runs with an agent that knows no secrets; then all stay
   */
  setSecrets(secrets: Readonly<Record<string, SecretOption>>): Promise<SecretInfo[]>;
  /** @throws SECRET_NOT_FOUND; then all stay */
  deleteSecrets(names: readonly string[]): Promise<SecretInfo[]>;
  /**
   * Its console, as the guest wrote it: control characters too.
   * @param options follow: goes on until `signal` is aborted; since: only what was written from then on, in ms since 1970
   */
  logs(options?: { follow?: boolean; since?: number; signal?: AbortSignal }): Promise<Readable>;
  /** Stops its CPUs. @throws VM_WRONG_STATE */
  pause(): Promise<Vm>;
  /** Lets a paused VM go on. @throws VM_WRONG_STATE */
  resume(): Promise<Vm>;
  /** Saves it and frees its memory; it wakes by itself when somebody wants something of it. @throws VM_WRONG_STATE, DISK_FULL */
  sleep(options?: WorkOptions): Promise<Vm>;
  /**
   * Memory and disk of one instant; it goes on.
   * @param options name: default: the VM's and a number
   * @returns the snapshot, and how long the VM stood still, in ms
   * @throws SNAPSHOT_NAME_TAKEN, VM_WRONG_STATE, DISK_FULL
   */
  snapshot(options?: WorkOptions & { name?: string }): Promise<{ snapshot: SnapshotInfo; pause: number }>;
  /**
   * Running copies of it, all or none, that nobody deletes by themselves.
   * @param options count: default 1; prefix: they are called PREFIX-1, PREFIX-2, …; default: its name
   * @throws VM_WRONG_STATE, HOST_LIMIT, DISK_FULL
   */
  fork(options?: WorkOptions & { count?: number; prefix?: string }): Promise<Sandbox[]>;
  /** Ends it and removes everything of it. */
  delete(): Promise<void>;
};
