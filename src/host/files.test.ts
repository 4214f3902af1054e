import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { exists, removeWhole } from "./files.ts";
import { stagingFolder } from "./paths.ts";

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-files-"));
  process.env.XDG_STATE_HOME = folder;
});
after(() => rm(folder, { recursive: true }));

test("a folder goes with all it holds while others write into it, and one that is not there is gone already", async () => {
  const path = join(folder, "vm");
  await mkdir(join(path, "deep"), { recursive: true });
  let writing = true;
  const writer = async (name: string) => {
    for (let count = 0; writing; count++) await writeFile(join(path, `${name}${count}`), "x").catch(() => undefined);
  };
  const writers = ["a", "b", "c", "d"].map(writer);
  while ((await readdir(path)).length < 100) await new Promise(setImmediate);
  await removeWhole(path);
  assert.equal(await exists(path), false);
  writing = false;
  await Promise.all(writers);
  assert.deepEqual(await readdir(stagingFolder()), []);
  await removeWhole(path);
});
