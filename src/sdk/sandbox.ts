/**
 * banger's public TypeScript API.
 *
 *   await using sandbox = await Sandbox.create({ memory: "2G" });
 *   const { exit, stdout } = await sandbox.exec(["uname", "-a"]);
 */
import type { Readable } from "node:stream";
import { type Client, openClient } from "../client/client.ts";
import type { FrameStream } from "../client/frame-stream.ts";
import { parseSize } from "../contract/names.ts";
import { type Progress, type ProgressEvent, silentProgress } from "../contract/progress.ts";
import type { CreateVm, Exec, ExecResult, FileRequest, Vm } from "../contract/vms.ts";

export { BangerError, type ErrorCode } from "../contract/errors.ts";
export type { ExecResult, ProgressEvent, Vm };

export type SandboxOptions = {
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
  network?: "user" | "none";
  /** Environment of every command. */
  env?: Record<string, string>;
  /** Cancels the creation; what was made by then is undone. */
  signal?: AbortSignal;
  onProgress?: (event: ProgressEvent) => void;
};

export type ExecOptions = {
  env?: Record<string, string>;
  /** Working directory in the guest. */
  cwd?: string;
  /** `name`, `uid`, `name:group`; default: root. */
  user?: string;
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

/** A running VM. Disposing of it deletes a VM that `create` made, and lets go of one that `connect` found. */
export type Sandbox = AsyncDisposable & {
  readonly id: string;
  readonly name: string;
  /** How it is now. @throws VM_NOT_FOUND */
  show(): Promise<Vm>;
  /**
   * Runs a command to its end. Arguments are passed as they are, never through a shell. All output is kept in memory: use `stream` for much.
   * @throws EXEC_NOT_FOUND, EXEC_NOT_EXECUTABLE, VM_STOPPED, CANCELLED
   */
  exec(argv: readonly string[], options?: ExecOptions & { stdin?: string | Uint8Array }): Promise<ExecOutput>;
  /** Runs a command with its streams: read both outputs, since either holds back the other. */
  stream(argv: readonly string[], options?: ExecOptions): Promise<FrameStream<ExecResult>>;
  /** @throws FILE_NOT_FOUND */
  readFile(path: string): Promise<Buffer>;
  /**
   * Writes a file whole or not at all.
   * @param options mode: permission bits, default 0o644; parents: makes missing folders
   */
  writeFile(path: string, data: string | Uint8Array, options?: { mode?: number; parents?: boolean }): Promise<void>;
  start(): Promise<void>;
  /** Shuts it down; its disk stays. */
  stop(): Promise<void>;
  delete(): Promise<void>;
};

const collect = async (stream: Readable): Promise<Buffer> => {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
};

const bytes = (size: number | string | undefined, what: string): number | undefined =>
  typeof size === "string" ? parseSize(size, what) : size;

/** The given fields only: an absent one is the daemon's to fill in. */
const given = <T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };

const openSandbox = ({ id, name }: Vm, client: Client, owned: boolean): Sandbox => {
  const vm = { vm: id };

  const stream: Sandbox["stream"] = (argv, { signal, env, cwd, user } = {}) => {
    const request: Exec = { argv: [...argv], ...given({ env, cwd, user }) };
    return client.stream("vmExec", vm, request, { signal });
  };

  const exec: Sandbox["exec"] = async (argv, { stdin, ...options } = {}) => {
    const command = await stream(argv, options);
    command.stdin.end(stdin);
    const [result, stdout, stderr] = await Promise.all([
      command.closed,
      collect(command.stdout),
      collect(command.stderr),
    ]);
    return {
      exit: result.exit ?? 128 + result.signal,
      stdout: stdout.toString("utf8"),
      stderr: stderr.toString("utf8"),
    };
  };

  const file = async (request: FileRequest, data?: string | Uint8Array): Promise<Buffer> => {
    const transfer = await client.stream("vmFile", vm, request);
    transfer.stderr.resume();
    transfer.stdin.end(data);
    const [content] = await Promise.all([collect(transfer.stdout), transfer.closed]);
    return content;
  };

  const remove = async () => void (await client.operation("vmDelete", vm, {}));
  let deleted = false;
  return {
    id,
    name,
    show: () => client.call("vmShow", vm, {}),
    exec,
    stream,
    readFile: (path) => file({ op: "read", path }),
    writeFile: async (path, data, options = {}) => void (await file({ op: "write", path, ...options }, data)),
    start: async () => void (await client.operation("vmStart", vm, {})),
    stop: async () => void (await client.operation("vmStop", vm, {})),
    delete: async () => {
      await remove();
      deleted = true;
    },
    [Symbol.asyncDispose]: async () => {
      try {
        if (owned && !deleted) await remove();
      } finally {
        client.close();
      }
    },
  };
};

/**
 * Makes a VM and starts it.
 * @returns when commands can run in it
 * @throws what went wrong, after what was made is undone
 */
const create = async (options: SandboxOptions = {}): Promise<Sandbox> => {
  const { signal, onProgress, memory, diskSize, ...rest } = options;
  const request: CreateVm = {
    ...given(rest),
    ...given({ memory: bytes(memory, "memory size"), diskSize: bytes(diskSize, "disk size") }),
  };
  const progress: Progress = { ...silentProgress(signal), report: (event) => onProgress?.(event) };
  const client = openClient();
  const vm = await client.operation("vmCreate", {}, request, progress);
  try {
    return openSandbox(await client.operation("vmStart", { vm: vm.id }, {}, progress), client, true);
  } catch (error) {
    // Not under the caller's signal, which may be what brought us here.
    await client.operation("vmDelete", { vm: vm.id }, {});
    client.close();
    throw error;
  }
};

/**
 * A VM that is there already.
 * @param name its name, its id, or the beginning of one
 * @throws VM_NOT_FOUND, VM_AMBIGUOUS
 */
const connect = async (name: string): Promise<Sandbox> => {
  const client = openClient();
  return openSandbox(await client.call("vmShow", { vm: name }, {}), client, false);
};

export const Sandbox = { create, connect } as const;
