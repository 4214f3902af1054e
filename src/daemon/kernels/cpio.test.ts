import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { runTool } from "../../host/process.ts";
import { S_IFDIR, S_IFREG, writeCpio } from "./cpio.ts";

test("the cpio program reads what is written, names and sizes of all alignments", async () => {
  const folder = await mkdtemp(join(tmpdir(), "banger-cpio-"));
  try {
    const contents = [0, 1, 2, 3, 4, 5, 4095, 4096, 100_000].map((size) => Buffer.alloc(size, "x"));
    const files = contents.map((data, index) => ({ path: `d/${"n".repeat(index + 1)}`, mode: S_IFREG | 0o755, data }));
    const archive = join(folder, "a.cpio");
    await writeFile(archive, writeCpio([{ path: "d", mode: S_IFDIR | 0o755 }, ...files]));
    const input = `cd "$1" && cpio -idm --quiet <a.cpio`;
    await runTool({ argv: ["sh", "-c", input, "sh", folder] });
    for (const { path, data } of files) {
      assert.deepEqual(await readFile(join(folder, path)), data);
      assert.equal((await stat(join(folder, path))).mode & 0o777, 0o755);
    }
    const listed = await runTool({ argv: ["sh", "-c", "cpio -itv --quiet -n <$0", archive] });
    assert.match(listed.stdout, /^drwxr-xr-x\s+2 0\s+0\s.* d$/m);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("the same entries give the same bytes", () => {
  const entries = [{ path: "init", mode: S_IFREG | 0o755, data: Buffer.from("x") }];
  assert.deepEqual(writeCpio(entries), writeCpio(entries));
});
