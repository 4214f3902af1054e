/** Which Firecracker is there, and what must be known of its release. */
import { access, constants, stat } from "node:fs/promises";
import { join } from "node:path";
import { BangerError, errnoOf } from "../../contract/errors.ts";
import { runTool, toolPath } from "../../host/process.ts";

export type Release = readonly [major: number, minor: number, patch: number];

/** The first with free page reporting and a serial console that goes to a file. */
export const OLDEST: Release = [1, 14, 0];
/** The last that this driver was written against; newer ones are used, with a word of warning. */
export const NEWEST: Release = [1, 17, 0];

const compare = (a: Release, b: Release): number => a[0] - b[0] || a[1] - b[1] || a[2] - b[2];

/** A pause and a resume without a snapshot between them cut host-to-guest vsock off for good (mended in 1.17). */
export const pauseCutsVsock = (release: Release): boolean =>
  compare(release, [1, 16, 0]) >= 0 && compare(release, [1, 17, 0]) < 0;

/** What a user should know of a release that is used all the same. */
export const releaseNote = (release: Release): string | undefined =>
  compare([release[0], release[1], 0], NEWEST) > 0
    ? `newer than ${NEWEST.slice(0, 2).join(".")}, which this banger knows: if VMs do not start, write \`vmm = "qemu"\` in config.toml`
    : undefined;

const mendHint = 'correct `firecracker_bin` in config.toml, or write `vmm = "qemu"`';

/** @param program name or path. @throws TOOL_MISSING when it is not there or cannot be run */
export const locateFirecracker = async (program: string): Promise<string> => {
  const candidates = program.includes("/")
    ? [program]
    : toolPath()
        .split(":")
        .map((folder) => join(folder, program));
  let forbidden: string | undefined;
  for (const candidate of candidates) {
    try {
      await access(candidate, constants.X_OK);
      if ((await stat(candidate)).isFile()) return candidate;
    } catch (error) {
      if (errnoOf(error) === "EACCES") forbidden ??= candidate;
      else if (!["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "")) throw error;
    }
  }
  if (forbidden !== undefined)
    throw new BangerError("TOOL_MISSING", `${forbidden} is not executable`, {
      hint: `make it so: chmod +x ${forbidden}`,
      details: { program: forbidden },
    });
  throw new BangerError("TOOL_MISSING", `Firecracker is not installed: there is no \`${program}\``, {
    hint: `put a release of it (${OLDEST.slice(0, 2).join(".")} or newer) on the PATH, or name it by \`firecracker_bin\` in config.toml; or write \`vmm = "qemu"\``,
    details: { program },
  });
};

export const releaseIn = (words: string): Release | undefined => {
  const [, major, minor, patch] = /\bFirecracker v(\d+)\.(\d+)\.(\d+)/.exec(words) ?? [];
  return major === undefined ? undefined : [Number(major), Number(minor), Number(patch)];
};

/** @throws TOOL_MISSING when it is no Firecracker that this machine runs, or too old */
export const readRelease = async (path: string): Promise<Release> => {
  let words: string;
  try {
    words = (await runTool({ argv: [path, "--version"], signal: AbortSignal.timeout(10_000) })).stdout;
  } catch (error) {
    const why = error instanceof BangerError ? error.message : String(error);
    throw new BangerError("TOOL_MISSING", `${path} does not run on this machine: ${why}`, {
      hint: `it must be a Firecracker for x86_64: ${mendHint}`,
      cause: error,
    });
  }
  const release = releaseIn(words);
  if (!release)
    throw new BangerError("TOOL_MISSING", `${path} does not say which Firecracker it is`, { hint: mendHint });
  if (compare(release, OLDEST) < 0)
    throw new BangerError(
      "TOOL_MISSING",
      `${path} is Firecracker ${release.join(".")}, and ${OLDEST.slice(0, 2).join(".")} or newer is needed`,
      { hint: `put a newer release in its place: ${mendHint}` },
    );
  return release;
};
