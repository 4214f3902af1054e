/** Which files a guest has changed, without their contents: quick, so that a review can open before the patch is made. */
import { BangerError } from "../../contract/errors.ts";
import { zeroed } from "../git.ts";
import { BASE_REF } from "../manifest.ts";

export type Listed = { path: string; oldMode?: string; newMode?: string };

/** A guest may name so many files. */
const MOST = 1_000_000;

/** Nothing is written by what only looks, and nothing of the guest's settings decides what is looked at. */
const script = `
cd "$1" || exit 91
export GIT_OPTIONAL_LOCKS=0
if [ "$2" = known ]; then
  exec git -c core.fsmonitor=false diff-index --raw -z --no-renames --no-abbrev --ignore-submodules=dirty ${BASE_REF}
fi
exec $(command -v nice) git -c core.fsmonitor=false ls-files --others --exclude-standard -z
`;

/** Two programs, that a guest can run at once; the second gives way to the first. @param path of the workspace in the guest */
export const listPrograms = (path: string): { known: string[]; untracked: string[] } => ({
  known: ["sh", "-c", script, "sh", path, "known"],
  untracked: ["sh", "-c", script, "sh", path, "untracked"],
});

/** @param known, untracked output of those @throws GUEST_ERROR */
export const readListing = (known: Buffer, untracked: Buffer): Listed[] => {
  const found = new Map<string, Listed>();
  const parts = zeroed(known);
  for (let at = 0; at + 1 < parts.length; at += 2) {
    const [, oldMode = "", newMode = ""] =
      /^:(\d{6}) (\d{6}) [0-9a-f]{40,64} [0-9a-f]{40,64} [A-Z]$/.exec(parts[at] ?? "") ?? [];
    if (oldMode === "") throw new BangerError("GUEST_ERROR", "the VM's git lists changes in an unknown way");
    const path = parts[at + 1] ?? "";
    found.set(path, {
      path,
      ...(oldMode === "000000" ? {} : { oldMode }),
      ...(newMode === "000000" ? {} : { newMode }),
    });
  }
  for (const path of zeroed(untracked)) {
    // A repository of its own, which git would take for a submodule.
    const plain = path.endsWith("/") ? path.slice(0, -1) : path;
    found.set(plain, { ...found.get(plain), path: plain, newMode: path.endsWith("/") ? "160000" : "100644" });
  }
  if (found.size > MOST)
    throw new BangerError("GUEST_ERROR", `the VM names ${found.size} changed files, which is too many`);
  return [...found.values()];
};
