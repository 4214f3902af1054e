/**
 * Git of the host, in a repository that anybody may have made: none of its hooks, filters and watchers is run, nothing is fetched, and nothing of it is
 * written. Names of files may hold any bytes: here they are strings with one character a byte (latin1), so that none is lost; `shown` makes text for
 * people of them.
 */
import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
import { BangerError } from "../contract/errors.ts";
import { abortError, throwIfAborted } from "../contract/progress.ts";
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

/** Whatever the repository's settings say. A split index would be written in part beside the repository's own; what is made here need not outlast a power cut. */
const always = [
  "core.fsmonitor=false",
  "core.hooksPath=/dev/null",
  "core.quotePath=false",
  "core.splitIndex=false",
  "core.untrackedCache=false",
  "core.fsync=none",
].flatMap((setting) => ["-c", setting]);

/** No git fetches by itself what a partial clone lacks: newer ones are told, older ones know no way to. */
const offline = { GIT_NO_LAZY_FETCH: "1", GIT_ALLOW_PROTOCOL: "none" };

/** Of `env`, which sets and unsets variables before it becomes git. */
const NOT_FOUND = 127;

/** A setting of git's: `user.name` and its value. */
export type Setting = readonly [key: string, value: string];

export type GitFolderOptions = {
  /** Ends whatever git does. */
  signal?: AbortSignal | undefined;
  /** Hold in place of the repository's own. */
  settings?: readonly Setting[];
  /** It may reach where the repository came from. */
  fetches?: boolean;
};

export type GitOptions = {
  /** Written to its stdin, latin1. */
  input?: string | undefined;
  env?: Record<string, string> | undefined;
  /** Exit statuses that are no failure. Default: 0. */
  okStatus?: readonly number[] | undefined;
};

export type GitResult = { stdout: Buffer; status: number };

export type Git = {
  /** @throws TOOL_MISSING, TOOL_FAILED with what git says, or the signal's error */
  (args: readonly string[], options?: GitOptions): Promise<GitResult>;
  /** Starts git with pipes for all three. The caller ends it. */
  start(args: readonly string[], env?: Record<string, string>): Promise<RunningProcess>;
  /** The first line of its output as text, undefined where it fails or says nothing. */
  ask(args: readonly string[], env?: Record<string, string>): Promise<string | undefined>;
};

/** Not as arguments: those end a key at its first `=`, which may be part of it. */
const settingsEnv = (settings: readonly Setting[]): Record<string, string> => {
  if (settings.length === 0) return {};
  const given = Number(process.env.GIT_CONFIG_COUNT) || 0;
  const env: Record<string, string> = { GIT_CONFIG_COUNT: String(given + settings.length) };
  for (const [index, [key, value]] of settings.entries()) {
    env[`GIT_CONFIG_KEY_${given + index}`] = key;
    env[`GIT_CONFIG_VALUE_${given + index}`] = value;
  }
  return env;
};

/** @param folder in which git runs */
export const gitIn = (folder: string, { signal, settings = [], fetches = false }: GitFolderOptions = {}): Git => {
  const fixed = {
    LC_ALL: "C",
    // No lock of the user's repository is taken for what only looks, and no prompt waits for an answer.
    GIT_OPTIONAL_LOCKS: "0",
    GIT_TERMINAL_PROMPT: "0",
    GIT_LITERAL_PATHSPECS: "1",
    ...(fetches ? {} : offline),
    ...settingsEnv(settings),
  };
  const start = (args: readonly string[], env: Record<string, string> = {}) => {
    if (signal) throwIfAborted(signal);
    return startProcess({
      argv: ["env", ...without(env), "git", ...always, ...args],
      cwd: folder,
      env: { ...fixed, ...env },
      stdio: ["pipe", "pipe", "pipe"],
      endWithParent: true,
    });
  };
  const run = async (args: readonly string[], options: GitOptions = {}): Promise<GitResult> => {
    await using git = await start(args, options.env);
    const onAbort = () => git.signal("SIGTERM");
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      const { stdin, stdout } = git.child;
      if (!stdin || !stdout) throw new BangerError("INTERNAL", "git was started without pipes");
      // Git that ends early is judged by its status, not by our broken pipe.
      const fed = pipeline(Readable.from(chunksOf(options.input ?? "")), stdin).catch(() => undefined);
      const chunks: Buffer[] = [];
      for await (const chunk of stdout) chunks.push(chunk as Buffer);
      const exit = await git.exited;
      await fed;
      if (signal?.aborted) throw abortError(signal);
      const status = exit.status ?? -1;
      if (status === NOT_FOUND) throw toolMissing("git");
      if (!(options.okStatus ?? [0]).includes(status))
        throw new BangerError(
          "TOOL_FAILED",
          `git ${commandIn(args)} ${describeExit(exit)}: ${said(git.stderrTail())}`,
          {
            details: { argv: ["git", ...args], status: exit.status },
          },
        );
      return { stdout: Buffer.concat(chunks), status };
    } finally {
      signal?.removeEventListener("abort", onAbort);
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

/** What follows the settings. */
const commandIn = (args: readonly string[]): string =>
  args.find((word, at) => !word.startsWith("-") && args[at - 1] !== "-c") ?? "";

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
