/** Folders and sparse files as archives of the system's tar. */
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { describeExit, startProcess } from "../../host/process.ts";

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

/**
 * An archive of one file or folder.
 * @param folder that holds it
 * @param name in that folder; `.` for what the folder holds
 * @param as its name in the archive
 */
export async function* packTar(folder: string, name: string, as: string): AsyncGenerator<Uint8Array> {
  // Only the names of entries are changed: the targets of links stay as they are.
  const source = name === "." ? "." : `./${name}`;
  const pattern =
    name === as ? [] : ["--transform", `flags=rSh;s,^${escapePattern(source)},./${escapeReplacement(as)},`];
  await using tar = await startProcess({
    argv: [
      "tar",
      "--create",
      "--format=gnu",
      "--sparse",
      "--numeric-owner",
      ...pattern,
      "--file=-",
      `--directory=${folder}`,
      "--",
      source,
    ],
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  yield* (tar.child.stdout ?? []) as AsyncIterable<Uint8Array>;
  const exit = await tar.exited;
  // 1: a file changed while it was read; the archive is whole.
  if (exit.status !== 0 && exit.status !== 1)
    throw failed(`cannot read ${folder}/${name}`, reason(tar.stderrTail()) || `tar ${describeExit(exit)}`);
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
