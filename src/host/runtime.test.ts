import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { BangerError } from "../contract/errors.ts";
import { roots } from "./paths.ts";
import { ensureRuntimeRoot } from "./runtime.ts";

/** A runtime folder of the test's own, by the variable or by the fallback below the folder for temporary files. */
const withRuntime = async (fallback: boolean, use: (path: string) => Promise<void>): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), "banger-runtime-"));
  const before = { XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR, TMPDIR: process.env.TMPDIR };
  delete process.env.XDG_RUNTIME_DIR;
  if (fallback) process.env.TMPDIR = folder;
  else process.env.XDG_RUNTIME_DIR = folder;
  try {
    await use(roots().runtime);
  } finally {
    delete process.env.XDG_RUNTIME_DIR;
    delete process.env.TMPDIR;
    for (const [name, value] of Object.entries(before)) if (value !== undefined) process.env[name] = value;
    await rm(folder, { recursive: true });
  }
};

const refused = (why: RegExp) => (error: unknown) =>
  error instanceof BangerError &&
  error.code === "FILE_REFUSED" &&
  why.test(error.message) &&
  /ls -ld/.test(error.hint ?? "");

for (const fallback of [false, true]) {
  describe(fallback ? "the fallback below the temporary folder" : "the folder of XDG_RUNTIME_DIR", () => {
    test("is made 0700 whatever the umask, also by several at once", () =>
      withRuntime(fallback, async (path) => {
        const umask = process.umask(0);
        await Promise.all([1, 2, 3].map(() => ensureRuntimeRoot()));
        process.umask(umask);
        assert.equal((await stat(path)).mode & 0o777, 0o700);
        assert.equal(await ensureRuntimeRoot(), path);
      }));

    test("that is a link is refused, even one to a folder of ours", () =>
      withRuntime(fallback, async (path) => {
        await mkdir(`${path}-elsewhere`, { mode: 0o700 });
        await symlink(`${path}-elsewhere`, path);
        await assert.rejects(ensureRuntimeRoot(), refused(/symbolic link/));
      }));

    test("that is a file is refused", () =>
      withRuntime(fallback, async (path) => {
        await writeFile(path, "");
        await assert.rejects(ensureRuntimeRoot(), refused(/not a folder/));
      }));

    test("that others can write is refused; one they can only read is closed", () =>
      withRuntime(fallback, async (path) => {
        await mkdir(path);
        await chmod(path, 0o777);
        await assert.rejects(ensureRuntimeRoot(), refused(/written by others/));
        await chmod(path, 0o755);
        await ensureRuntimeRoot();
        assert.equal((await stat(path)).mode & 0o777, 0o700);
      }));
  });
}
