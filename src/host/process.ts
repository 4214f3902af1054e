/** The only place that starts processes. Every child is its own process group, so that ending it ends what it started. */
import { type ChildProcess, spawn, type StdioOptions } from "node:child_process";
import type { Readable, Writable } from "node:stream";
import { abortError, throwIfAborted } from "../contract/progress.ts";
import { BangerError, errnoOf } from "../contract/errors.ts";

/** How much of a child's stderr is kept for its error, in bytes. */
const STDERR_TAIL = 4096;

/** How a process ended: one of the two is set. */
export type Exit = { status: number | undefined; signal: NodeJS.Signals | undefined };

export type StartOptions = {
  /** Program and arguments; never goes through a shell. */
  argv: readonly [string, ...string[]];
  cwd?: string | undefined;
  /** Added to this process's environment. */
  env?: Record<string, string> | undefined;
  /** Default: stdin empty, stdout dropped, stderr kept for the error. */
  stdio?: StdioOptions | undefined;
  /** Lives on when this process ends; its session is its own. */
  outlive?: boolean | undefined;
  /** Gets SIGKILL when this process dies, however it dies. */
  endWithParent?: boolean | undefined;
};

export type RunningProcess = AsyncDisposable & {
  readonly pid: number;
  readonly child: ChildProcess;
  /** Resolves at the end; never rejects. */
  readonly exited: Promise<Exit>;
  /** Last bytes of stderr, where stderr is a pipe. */
  stderrTail(): string;
  /** Signals the whole group; a group that is gone is no error. */
  signal(signal: NodeJS.Signals): void;
  /** SIGTERM, then SIGKILL after `graceMs`; resolves when the process has ended. */
  terminate(graceMs?: number): Promise<Exit>;
};

/** Debian packages of the programs that banger starts, for the hint when one is missing. */
const packageOf: Record<string, string> = {
  "qemu-system-x86_64": "qemu-system-x86",
  passt: "passt",
  mmdebstrap: "mmdebstrap",
  "mkfs.ext4": "e2fsprogs",
  "apt-get": "apt",
  "dpkg-deb": "dpkg",
  depmod: "kmod",
  unshare: "util-linux",
  newuidmap: "uidmap",
  ssh: "openssh-client",
  "ssh-keygen": "openssh-client",
  tar: "tar",
  git: "git",
  gpgv: "gpgv",
  npm: "npm",
};

export const toolMissing = (program: string, cause?: unknown): BangerError => {
  const name = packageOf[program];
  return new BangerError("TOOL_MISSING", `\`${program}\` is not installed`, {
    hint: name ? `install it: sudo apt-get install -y ${name}` : `install ${program} and run the command again`,
    details: { program, package: name },
    cause,
  });
};

/** Programs of system administration live in sbin, which is not on an ordinary user's PATH on Debian. */
export const toolPath = (): string =>
  `${process.env.PATH ?? "/usr/local/bin:/usr/bin:/bin"}:/usr/local/sbin:/usr/sbin:/sbin`;

/**
 * Starts a program.
 * @returns once it is running
 * @throws TOOL_MISSING when there is no such program
 */
export const startProcess = async (options: StartOptions): Promise<RunningProcess> => {
  const [program] = options.argv;
  const [file, ...args]: readonly [string, ...string[]] = options.endWithParent
    ? ["setpriv", "--pdeathsig", "KILL", "--", ...options.argv]
    : options.argv;
  const child = spawn(file, args, {
    cwd: options.cwd,
    env: { ...process.env, PATH: toolPath(), ...options.env },
    stdio: options.stdio ?? ["ignore", "ignore", "pipe"],
    detached: true,
  });
  const exited = new Promise<Exit>((resolve) => {
    child.once("exit", (status, signal) => resolve({ status: status ?? undefined, signal: signal ?? undefined }));
    child.once("error", () => resolve({ status: undefined, signal: undefined }));
  });
  let tail = Buffer.alloc(0);
  child.stderr?.on("data", (chunk: Buffer) => {
    tail = Buffer.concat([tail, chunk]).subarray(-STDERR_TAIL);
  });
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) => {
      const missing = errnoOf(error) === "ENOENT" && (options.cwd === undefined || !error.message.includes("chdir"));
      reject(
        missing
          ? toolMissing(program, error)
          : new BangerError("TOOL_FAILED", `cannot start ${program}: ${error.message}`, { cause: error }),
      );
    });
  });
  const pid = child.pid;
  if (pid === undefined) throw new BangerError("TOOL_FAILED", `${program} started without a process id`);
  if (options.outlive) child.unref();
  const signal = (name: NodeJS.Signals) => signalGroup(pid, name);
  const terminate = async (graceMs = 2000): Promise<Exit> => {
    signal("SIGTERM");
    const timer = setTimeout(() => signal("SIGKILL"), graceMs);
    try {
      return await exited;
    } finally {
      clearTimeout(timer);
    }
  };
  return {
    pid,
    child,
    exited,
    stderrTail: () => tail.toString("utf8").trim(),
    signal,
    terminate,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode === null && child.signalCode === null) await terminate();
    },
  };
};

/** Signals a process group; one that is gone is no error. */
export const signalGroup = (pid: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if (errnoOf(error) !== "ESRCH") throw error;
  }
};

export type ToolOptions = {
  argv: readonly [string, ...string[]];
  cwd?: string | undefined;
  env?: Record<string, string> | undefined;
  signal?: AbortSignal | undefined;
  /** Written to its stdin, which is empty otherwise. */
  input?: Readable | string | undefined;
  /** Takes its stdout in place of the result. */
  output?: Writable | undefined;
  /** Called for each line of stderr. */
  onStderrLine?: ((line: string) => void) | undefined;
  endWithParent?: boolean | undefined;
  /** Exit statuses that are no failure. Default: 0. */
  okStatus?: readonly number[] | undefined;
};

/**
 * Runs a program to its end.
 * @returns its stdout (at most 16 MiB) and exit status
 * @throws TOOL_MISSING, TOOL_FAILED with the last of its stderr, or the signal's error
 */
export const runTool = async (options: ToolOptions): Promise<{ stdout: string; status: number }> => {
  if (options.signal) throwIfAborted(options.signal);
  await using running = await startProcess({
    argv: options.argv,
    cwd: options.cwd,
    env: options.env,
    endWithParent: options.endWithParent,
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
  });
  const { child } = running;
  const onAbort = () => void running.terminate();
  options.signal?.addEventListener("abort", onAbort, { once: true });
  try {
    feed(child.stdin, options.input);
    const lines = options.onStderrLine;
    if (lines && child.stderr) eachLine(child.stderr, lines);
    const stdout = options.output ? drainInto(child.stdout, options.output) : collect(child.stdout, 16 * 1024 * 1024);
    const [exit, text] = await Promise.all([running.exited, stdout]);
    if (options.signal?.aborted) throw abortError(options.signal);
    const status = exit.status ?? -1;
    if (!(options.okStatus ?? [0]).includes(status)) {
      throw new BangerError(
        "TOOL_FAILED",
        `${options.argv[0]} ${describeExit(exit)}: ${running.stderrTail() || "(no output)"}`,
        {
          details: { argv: options.argv, status: exit.status, signal: exit.signal },
        },
      );
    }
    return { stdout: text, status };
  } finally {
    options.signal?.removeEventListener("abort", onAbort);
  }
};

export const describeExit = (exit: Exit): string =>
  exit.signal
    ? `was ended by ${exit.signal}`
    : exit.status === undefined
      ? "ended"
      : `ended with status ${exit.status}`;

const feed = (stdin: Writable | null, input: ToolOptions["input"]): void => {
  if (!stdin || input === undefined) return;
  // A program that ends without reading all of its input is judged by its status, not by our broken pipe.
  stdin.on("error", () => stdin.destroy());
  if (typeof input === "string") stdin.end(input);
  else input.pipe(stdin);
};

const collect = async (stream: Readable | null, limit: number): Promise<string> => {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream ?? []) {
    size += chunk.length;
    if (size <= limit) chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
};

const drainInto = async (stream: Readable | null, output: Writable): Promise<string> => {
  for await (const chunk of stream ?? []) {
    if (!output.write(chunk)) await new Promise((resolve) => output.once("drain", resolve));
  }
  return "";
};

/** Calls `onLine` for each whole line; a line over 64 KiB is cut. */
export const eachLine = (stream: Readable, onLine: (line: string) => void): void => {
  let rest = "";
  stream.on("data", (chunk: Buffer) => {
    const lines = (rest + chunk.toString("utf8")).split(/\r?\n|\r/);
    rest = (lines.pop() ?? "").slice(0, 65536);
    for (const line of lines) onLine(line);
  });
  stream.on("end", () => rest && onLine(rest));
};

/**
 * Runs a program in this process's place: its stdin, stdout and stderr are ours, and so is its process group, as a program that
 * talks to the terminal needs it. Ctrl-C is the program's to handle.
 * @param stdout 2: what it prints is a message to a person, and not data of ours
 * @throws TOOL_MISSING when there is no such program
 */
export const runInForeground = async (argv: readonly [string, ...string[]], stdout: 1 | 2 = 1): Promise<Exit> => {
  const [program, ...args] = argv;
  const child = spawn(program, args, { stdio: ["inherit", stdout, "inherit"] });
  const pass = (signal: NodeJS.Signals) => void child.kill(signal);
  // The terminal sends these to the program too.
  const leave = () => undefined;
  process.on("SIGINT", leave).on("SIGQUIT", leave).on("SIGTERM", pass).on("SIGHUP", pass);
  try {
    return await new Promise<Exit>((resolve, reject) => {
      child.once("error", (error) => reject(errnoOf(error) === "ENOENT" ? toolMissing(program, error) : error));
      child.once("exit", (status, signal) => resolve({ status: status ?? undefined, signal: signal ?? undefined }));
    });
  } finally {
    process.off("SIGINT", leave).off("SIGQUIT", leave).off("SIGTERM", pass).off("SIGHUP", pass);
  }
};
