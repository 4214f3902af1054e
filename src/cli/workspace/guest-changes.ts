/** What the guest has done to the files that a prepare would overwrite. */
import { createHash } from "node:crypto";
import { raw, shown } from "../../workspace/git.ts";
import { below, type Manifest } from "../../workspace/manifest.ts";
import type { GuestFiles } from "../copy/guest-files.ts";

/** Files that are looked at at once. */
const AT_ONCE = 8;

/**
 * @param paths that would be overwritten or removed, one character a byte
 * @returns what was changed, for people
 */
export const changesInGuest = async (
  files: GuestFiles,
  root: string,
  before: Manifest,
  now: Manifest,
  paths: readonly string[],
): Promise<string[]> => {
  const changes = await movedBranches(files, root, before);
  const queue = [...paths];
  const work = async (): Promise<void> => {
    for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
      // The channel carries names that are text; another cannot be looked at.
      if (raw(shown(path)) !== path || path.endsWith(".git/shallow")) continue;
      const found = await objectAt(files, `${root}/${shown(path)}`, before.repositories[""]?.base.length ?? 40);
      const oids = [before.files[path], now.files[path]].map((entry) => entry?.split(" ")[1]);
      if (found !== undefined && !oids.includes(found)) changes.push(shown(path));
      if (found === undefined && before.files[path] !== undefined && now.files[path] !== undefined)
        changes.push(`${shown(path)} (deleted)`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return changes.sort();
};

/** Commits of the guest's own. */
const movedBranches = async (files: GuestFiles, root: string, before: Manifest): Promise<string[]> => {
  if (before.mode === "files") return [];
  const changes: string[] = [];
  for (const [at, { branch, commit }] of Object.entries(before.repositories)) {
    const git = `${root}/${below(shown(at), ".git")}`;
    const head = (await textAt(files, `${git}/HEAD`))?.trim();
    const expected = branch === undefined ? commit : `ref: refs/heads/${branch}`;
    if (head !== undefined && head !== expected)
      changes.push(`${at ? `${shown(at)}: ` : ""}another branch is checked out`);
    else if (branch !== undefined) {
      // Absent where the guest's git has packed its references: that needs no commit.
      const tip = (await textAt(files, `${git}/refs/heads/${branch}`))?.trim();
      if (tip !== undefined && tip !== commit) changes.push(`${at ? `${shown(at)}: ` : ""}commits on ${branch}`);
    }
  }
  return changes;
};

const dataAt = async (files: GuestFiles, path: string): Promise<Buffer> => {
  const chunks: Buffer[] = [];
  await files.receive({ op: "read", path }, async (data) => {
    for await (const chunk of data) chunks.push(chunk as Buffer);
  });
  return Buffer.concat(chunks);
};

const textAt = async (files: GuestFiles, path: string): Promise<string | undefined> =>
  (await files.stat(path))?.type === "file" ? (await dataAt(files, path)).toString("utf8") : undefined;

/** The name that git has for what is there; undefined when nothing is, `other` for what git does not keep. */
const objectAt = async (files: GuestFiles, path: string, digits: number): Promise<string | undefined> => {
  const found = await files.stat(path, false);
  if (!found) return undefined;
  if (found.type !== "file" && found.type !== "link") return "other";
  const data = found.type === "link" ? Buffer.from(found.target ?? "") : await dataAt(files, path);
  return createHash(digits === 64 ? "sha256" : "sha1")
    .update(`blob ${data.length}\0`)
    .update(data)
    .digest("hex");
};
