/**
 * Git of the host. Names of files may hold any bytes: here they are strings with one character a byte (latin1), so that none is lost; `shown`
 * makes text for people of them.
 */
import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
import { BangerError } from "../contract/errors.ts";
import { describeExit, type RunningProcess, startProcess, toolMissing } from "../host/process.ts";

/** What a hook or an alias may have set, and what would lead git to another repository than the one that is meant. */
const foreign = [
  "GIT_COMMON_DIR",
  "GIT_NAMESPACE",
  "GIT_PREFIX",
  "GIT_SHALLOW_FILE",
  "GIT_DIR",
  "GIT_WORK_TREE",
  "GIT_INDEX_FILE",
  "GIT_OBJECT_DIRECTORY",
  "GIT_ALTERNATE_OBJECT_DIRECTORIES",
];
const without = (env: Record<string, string>): string[] =>
  foreign.filter((name) => !Object.hasOwn(env, name)).flatMap((name) => ["-u", name]);

/** Of `env`, which sets and unsets variables before it becomes git. */
const NOT_FOUND = 127;

export type GitOptions = {
  /** Written to its stdin, latin1. */
  input?: string | undefined;
  env?: Record<string, string> | undefined;
  /** Exit statuses that are no failure. Default: 0. */
  okStatus?: readonly number[] | undefined;
  signal?: AbortSignal | undefined;
};

export type GitResult = { stdout: Buffer; status: number };

export type Git = {
  /** @throws TOOL_MISSING, or TOOL_FAILED with what git says */
  (args: readonly string[], options?: GitOptions): Promise<GitResult>;
  /** Starts git with pipes for all three. The caller ends it. */
  start(args: readonly string[], env?: Record<string, string>): Promise<RunningProcess>;
  /** The first line of its output as text, undefined where it fails or says nothing. */
  ask(args: readonly string[], env?: Record<string, string>): Promise<string | undefined>;
};

/** @param folder in which git runs */
export const gitIn = (folder: string): Git => {
  const start = (args: readonly string[], env: Record<string, string> = {}) =>
    startProcess({
      argv: ["env", ...without(env), "git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", ...args],
      cwd: folder,
      // No lock of the user's repository is taken for what only looks, and no prompt waits for an answer.
      env: { LC_ALL: "C", GIT_OPTIONAL_LOCKS: "0", GIT_TERMINAL_PROMPT: "0", GIT_LITERAL_PATHSPECS: "1", ...env },
      stdio: ["pipe", "pipe", "pipe"],
    });
  const run = async (args: readonly string[], options: GitOptions = {}): Promise<GitResult> => {
    await using git = await start(args, options.env);
    const onAbort = () => git.signal("SIGTERM");
    options.signal?.addEventListener("abort", onAbort, { once: true });
    try {
      const { stdin, stdout } = git.child;
      if (!stdin || !stdout) throw new BangerError("INTERNAL", "git was started without pipes");
      // Git that ends early is judged by its status, not by our broken pipe.
      const fed = pipeline(Readable.from(chunksOf(options.input ?? "")), stdin).catch(() => undefined);
      const chunks: Buffer[] = [];
      for await (const chunk of stdout) chunks.push(chunk as Buffer);
      const exit = await git.exited;
      await fed;
      const status = exit.status ?? -1;
      if (status === NOT_FOUND) throw toolMissing("git");
      if (!(options.okStatus ?? [0]).includes(status))
        throw new BangerError("TOOL_FAILED", `git ${args[0]} ${describeExit(exit)}: ${said(git.stderrTail())}`, {
          details: { argv: ["git", ...args], status: exit.status },
        });
      return { stdout: Buffer.concat(chunks), status };
    } finally {
      options.signal?.removeEventListener("abort", onAbort);
    }
  };
  const ask = async (args: readonly string[], env?: Record<string, string>) => {
    try {
      const { stdout } = await run(args, { env });
      return stdout.toString("utf8").split("\n")[0] || undefined;
    } catch (error) {
      if (error instanceof BangerError && error.code === "TOOL_FAILED") return undefined;
      throw error;
    }
  };
  return Object.assign(run, { start, ask });
};

/** A string of one character a byte, in parts that a pipe takes. */
function* chunksOf(text: string): Generator<Buffer> {
  for (let at = 0; at < text.length; at += 65536) yield Buffer.from(text.slice(at, at + 65536), "latin1");
}

const said = (stderr: string): string =>
  stderr
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("hint:"))
    .map((line) => line.replace(/^(?:fatal|error): /, ""))
    .slice(0, 3)
    .join("; ") || "(no output)";

/** The parts of a `-z` output, latin1. */
export const zeroed = (bytes: Buffer): string[] => {
  const text = bytes.toString("latin1");
  if (text === "") return [];
  return (text.endsWith("\0") ? text.slice(0, -1) : text).split("\0");
};

/** A name of one character a byte as text for people. */
export const shown = (path: string): string => Buffer.from(path, "latin1").toString("utf8");
export const raw = (text: string): string => Buffer.from(text, "utf8").toString("latin1");
