/**
 * Which files a guest has changed, without their contents, as its git comes to each: the first are told at once, so that a review opens on them while
 * the rest is looked for and the patch is made.
 */
import { BangerError } from "../../contract/errors.ts";
import { BASE_INDEX } from "../manifest.ts";

export type Listed = { path: string; oldMode?: string; newMode?: string };

/** A guest may name so many files, and one so long. */
const MOST = 1_000_000;
const LONGEST = 64 * 1024;

/**
 * What the working tree has otherwise than the state that was brought in, whatever was committed since; NUL; what is new. Nothing is written by what only
 * looks, and nothing of the guest's settings decides what is looked at. The index is looked through on one CPU: to begin on several takes an emulated guest longer than the work.
 */
const script = `
cd "$1" || exit 91
export GIT_OPTIONAL_LOCKS=0 GIT_INDEX_FILE="$1/.git/${BASE_INDEX}"
[ -f "$GIT_INDEX_FILE" ] || exit 92
git() { command git -c core.fsmonitor=false -c core.preloadIndex=false "$@"; }
git ls-files -t --modified --deleted -z || exit
printf '\\0'
git ls-files --others --exclude-standard -z
`;

/** @param path of the workspace in the guest */
export const listProgram = (path: string): string[] => ["sh", "-c", script, "sh", path];

const malformed = (): BangerError => new BangerError("GUEST_ERROR", "the VM's git lists changes in an unknown way");

/** The parts between NULs, in batches as they arrive, one character a byte. */
async function* partsOf(source: AsyncIterable<Uint8Array>): AsyncGenerator<string[]> {
  let rest = "";
  for await (const chunk of source) {
    const parts = (rest + Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length).toString("latin1")).split("\0");
    rest = parts.pop() ?? "";
    if (rest.length > LONGEST) throw malformed();
    yield parts;
  }
}

/** git has read no more than its name; the patch knows better. */
const FILE = "100644";

const touched = (line: string): Listed => {
  const [, tag, path] = /^([RC]) (.+)$/s.exec(line) ?? [];
  if (path === undefined) throw malformed();
  return { path, oldMode: FILE, ...(tag === "R" ? {} : { newMode: FILE }) };
};

/** A name that ends with a slash is a repository of its own, which git would take for a submodule. */
const untracked = (path: string): Listed =>
  path.endsWith("/") ? { path: path.slice(0, -1), newMode: "160000" } : { path, newMode: FILE };

/**
 * @param source the output of that program
 * @returns batches, each file once
 * @throws GUEST_ERROR
 */
export async function* readListing(source: AsyncIterable<Uint8Array>): AsyncGenerator<Listed[]> {
  const known = new Set<string>();
  let areNew = false;
  for await (const parts of partsOf(source)) {
    const batch: Listed[] = [];
    for (const part of parts) {
      if (part === "" && !areNew) {
        areNew = true;
        continue;
      }
      const found = areNew ? untracked(part) : touched(part);
      // git tells of a file that is gone twice: as gone, then as changed.
      if (!known.has(found.path)) batch.push(found);
      known.add(found.path);
    }
    if (known.size > MOST)
      throw new BangerError("GUEST_ERROR", `the VM names ${known.size} changed files, which is too many`);
    if (batch.length > 0) yield batch;
  }
}
