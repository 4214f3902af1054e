/** Archives, by the system's tar. */
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { BangerError, errnoOf } from "../contract/errors.ts";
import { describeExit, startProcess } from "./process.ts";

/** What the user's shell sets for tar is meant for other archives. */
const env = { TAR_OPTIONS: "", LC_ALL: "C" };

const failed = (what: string, why: string): BangerError => new BangerError("TOOL_FAILED", `${what}: ${why}`);

/** `tar: Exiting with failure status due to previous errors` says nothing that the lines before do not. */
const reason = (stderr: string): string =>
  stderr
    .split("\n")
    .filter((line) => line !== "" && !/Exiting with failure status|Error is not recoverable/.test(line))
    .map((line) => line.replace(/^tar: /, ""))
    .slice(0, 3)
    .join("; ");

export type Packing = {
  folder: string;
  /** Below the folder, each beginning with `./` or just `.`; text, or bytes with one character each. Folders come with all they hold. */
  names: readonly string[];
  encoding?: "utf8" | "latin1";
  /** Other names in the archive: the beginning of each, and what stands there instead. */
  rename?: { from: string; to: string } | undefined;
  /** Only the names themselves: of a folder not what it holds. */
  listed?: boolean;
  /** Permission bits of every entry; default: its own. */
  mode?: number | undefined;
  /** Everything belongs to root. */
  asRoot?: boolean;
};

/**
 * An archive in GNU tar's format. Holes stay holes, the targets of links stay as they are, and a file that changes while it is read is no failure.
 * @throws TOOL_FAILED with what tar said, after all that it gave
 */
export async function* packTar({
  folder,
  names,
  encoding = "utf8",
  rename,
  listed = false,
  mode,
  asRoot = false,
}: Packing): AsyncGenerator<Uint8Array> {
  await using tar = await startProcess({
    argv: [
      "tar",
      "--create",
      "--format=gnu",
      "--sparse",
      "--numeric-owner",
      // Names only: the targets of links stay as they are.
      ...(rename ? [`--transform=flags=rSh;s,^${escapePattern(rename.from)},${escapeReplacement(rename.to)},`] : []),
      // A second name of a file that came before is a file of its own: what comes before may be somewhere else in the guest.
      ...(listed ? ["--no-recursion", "--hard-dereference"] : []),
      ...(mode === undefined ? [] : [`--mode=${mode.toString(8)}`]),
      ...(asRoot ? ["--owner=0", "--group=0"] : []),
      `--directory=${folder}`,
      // Read as they are, whatever backslashes they hold.
      "--null",
      "--no-unquote",
      "--files-from=-",
      "--file=-",
    ],
    env,
    stdio: ["pipe", "pipe", "pipe"],
  });
  const { stdin, stdout } = tar.child;
  if (!stdin || !stdout) throw failed(`cannot read ${folder}`, "tar was started without its pipes");
  // When tar ends early its status says why, not our broken pipe.
  stdin.on("error", () => stdin.destroy());
  stdin.end(Buffer.from(names.map((name) => `${name}\0`).join(""), encoding));
  yield* stdout as AsyncIterable<Uint8Array>;
  const exit = await tar.exited;
  // 1: a file changed while it was read; the archive is whole.
  if (exit.status !== 0 && exit.status !== 1)
    throw failed(`cannot read ${folder}`, reason(tar.stderrTail()) || `tar ${describeExit(exit)}`);
}

const escapePattern = (name: string): string => name.replace(/[\\.*[\]^$,/]/g, "\\$&");
const escapeReplacement = (name: string): string => name.replace(/[\\&,]/g, "\\$&");

const isEarlyClose = (error: unknown): boolean =>
  ["EPIPE", "ECONNRESET", "ERR_STREAM_PREMATURE_CLOSE", "ERR_STREAM_DESTROYED"].includes(errnoOf(error) ?? "");

/**
 * Extracts an archive of a guest, which may be hostile, into a folder that is empty and only ours. tar itself keeps every entry below
 * that folder: it refuses `..`, cuts leading slashes, and puts links that lead out in place only when all else is written.
 */
export const unpackTar = async (archive: Readable | AsyncIterable<Uint8Array>, folder: string): Promise<void> => {
  const umask = process.umask(0);
  // Modes as they are in the guest, but no setuid and no owner: here the files are the user's.
  const starting = startProcess({
    argv: [
      "tar",
      "--extract",
      "--no-same-owner",
      "--no-same-permissions",
      "--delay-directory-restore",
      "--warning=no-timestamp",
      "--file=-",
      `--directory=${folder}`,
    ],
    env,
    stdio: ["pipe", "ignore", "pipe"],
  });
  process.umask(umask);
  await using tar = await starting;
  if (!tar.child.stdin) throw failed("cannot extract", "tar has no stdin");
  // When tar ends early its status says why, not our broken pipe.
  const fed = pipeline(archive, tar.child.stdin).then(
    () => undefined,
    (error: unknown) => error,
  );
  const exit = await tar.exited;
  const feedError = await fed;
  if (exit.status !== 0)
    throw failed("cannot extract what the guest sent", reason(tar.stderrTail()) || `tar ${describeExit(exit)}`);
  // tar reads up to the archive's end mark and may leave the padding after it.
  if (feedError !== undefined && !isEarlyClose(feedError)) throw feedError;
};
