/** A machine of a test's own: its own HOME and folders, the built program, and nothing left of it in the end. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const bangerBinary = join(import.meta.dirname, "..", "..", "build", "bin", "banger");

const hostsFolder = join(import.meta.dirname, "..", "..", "build", "hosts");

export type Environment = {
  HOME: string;
  XDG_CONFIG_HOME: string;
  XDG_STATE_HOME: string;
  XDG_CACHE_HOME: string;
  XDG_RUNTIME_DIR: string;
};
export type Done = {
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  stdoutBytes: Buffer;
};
export type RunOptions = {
  input?: string | Uint8Array;
  env?: Record<string, string>;
  timeout?: number;
  cwd?: string;
  binary?: string;
  /** Program and arguments that start it: another machine's, say. */
  through?: readonly string[];
};

type End = [status: number | null, signal: NodeJS.Signals | null];
const ends = new WeakMap<ChildProcess, Promise<End>>();

/** Listens from the first call on: a program may end long before a test asks how. */
const endOf = (child: ChildProcess): Promise<End> => {
  const known = ends.get(child);
  if (known) return known;
  const end = new Promise<End>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status, signal) => resolve([status, signal]));
  });
  end.catch(() => undefined);
  ends.set(child, end);
  return end;
};

/** Starts the built program; stdin, stdout and stderr are pipes. */
export const startBanger = (env: Environment, args: readonly string[], options: RunOptions = {}): ChildProcess => {
  const [program = "", ...all] = [...(options.through ?? []), options.binary ?? bangerBinary, ...args];
  const child = spawn(program, all, {
    env: { ...process.env, ...env, ...options.env },
    cwd: options.cwd ?? env.HOME,
    stdio: "pipe",
  });
  void endOf(child);
  return child;
};

/** Collects a program until its end; after the time limit it is killed and the test fails by its status. */
export const finish = async (child: ChildProcess, options: RunOptions = {}): Promise<Done> => {
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout?.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr?.on("data", (chunk: Buffer) => stderr.push(chunk));
  child.stdin?.on("error", () => child.stdin?.destroy());
  child.stdin?.end(options.input ?? "");
  const timer = setTimeout(() => child.kill("SIGKILL"), options.timeout ?? 120_000);
  const [status, signal] = await endOf(child);
  clearTimeout(timer);
  const stdoutBytes = Buffer.concat(stdout);
  return {
    status,
    signal,
    stdout: stdoutBytes.toString("utf8"),
    stderr: Buffer.concat(stderr).toString("utf8"),
    stdoutBytes,
  };
};

export const bangerIn = (env: Environment, args: readonly string[], options: RunOptions = {}): Promise<Done> =>
  finish(startBanger(env, args, options), options);

export type Host = AsyncDisposable & {
  env: Environment;
  /** Runs the built program to its end. */
  banger(...args: string[]): Promise<Done>;
  run(args: readonly string[], options?: RunOptions): Promise<Done>;
  start(args: readonly string[], options?: RunOptions): ChildProcess;
  /** Parsed `--json` output; fails the test when the command fails. */
  json<T>(...args: string[]): Promise<T>;
  daemonPid(): Promise<number>;
  /** Runs a program of the machine to its end. */
  tool(program: string, ...args: string[]): Promise<Done>;
  /** Processes that belong to this host: those whose environment or arguments name its folder. */
  processes(): Promise<{ pid: number; command: string }[]>;
};

/**
 * @param config text of config.toml
 * @param through what starts every program of banger's there
 */
export const testHost = async (config?: string, through: readonly string[] = []): Promise<Host> => {
  // Beside the fixture, so that its files can be linked; the sockets apart from it, because their paths must be short.
  await mkdir(hostsFolder, { recursive: true });
  const folder = await mkdtemp(join(hostsFolder, "host-"));
  const runtime = await mkdtemp(join(tmpdir(), "banger-test-"));
  const env: Environment = {
    HOME: join(folder, "home"),
    XDG_CONFIG_HOME: join(folder, "config"),
    XDG_STATE_HOME: join(folder, "state"),
    XDG_CACHE_HOME: join(folder, "cache"),
    XDG_RUNTIME_DIR: runtime,
  };
  for (const path of Object.values(env)) await mkdir(path, { recursive: true, mode: 0o700 });
  if (config !== undefined) {
    await mkdir(join(env.XDG_CONFIG_HOME, "banger"));
    await writeFile(join(env.XDG_CONFIG_HOME, "banger", "config.toml"), config);
  }
  const run: Host["run"] = (args, options) => bangerIn(env, args, { through, ...options });
  const json = async <T>(...args: string[]): Promise<T> => {
    const done = await run([...args, "--json"]);
    if (done.status !== 0) throw new Error(`banger ${args.join(" ")} ended with ${done.status}: ${done.stderr}`);
    return JSON.parse(done.stdout) as T;
  };
  return {
    env,
    banger: (...args) => run(args),
    run,
    start: (args, options) => startBanger(env, args, { through, ...options }),
    json,
    daemonPid: async () => (await json<{ pid: number }>("daemon", "status")).pid,
    processes: () => processesOf(folder),
    tool: (program, ...args) =>
      finish(
        spawn(program, args, { stdio: "pipe", env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` } }),
      ),
    [Symbol.asyncDispose]: async () => {
      for (const { pid } of await processesOf(folder)) kill(pid);
      await Promise.all(
        [folder, runtime].map((path) => rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 })),
      );
    },
  };
};

/** By how many ms at least a guest's clock is off: nothing where it shows a time between the question and the answer. */
export const clockError = async (host: Host, vm: string): Promise<number> => {
  const before = Date.now();
  const { stdout } = await host.banger("vm", "exec", vm, "--", "date", "+%s%3N");
  return Math.max(before - Number(stdout), Number(stdout) - Date.now(), 0);
};

const kill = (pid: number): void => {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
};

/** Running processes that were started with this folder in their environment. */
const processesOf = async (folder: string): Promise<{ pid: number; command: string }[]> => {
  const found: { pid: number; command: string }[] = [];
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) continue;
    try {
      const [environ, command] = await Promise.all([
        readFile(`/proc/${entry}/environ`, "latin1"),
        readFile(`/proc/${entry}/cmdline`, "utf8"),
      ]);
      await readlink(`/proc/${entry}/exe`);
      if (environ.includes(folder) || command.includes(folder))
        found.push({ pid: Number(entry), command: command.replaceAll("\0", " ").trim() });
    } catch (error) {
      // It has ended, or is a thread of the kernel.
      if (!(error instanceof Error)) throw error;
    }
  }
  return found;
};
