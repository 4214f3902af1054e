import assert from "node:assert/strict";
import { mkdtemp, open, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { folderHolds } from "../../../test/support/wait.ts";
import { consoleTail, keepConsole } from "./console-log.ts";
import { consoleTimes, offsetSince } from "./console-times.ts";

const log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  close: async () => undefined,
};
const MiB = 2 ** 20;

const inFolder = async (use: (folder: string) => Promise<void>): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), "banger-console-"));
  try {
    await use(folder);
  } finally {
    await rm(folder, { recursive: true, maxRetries: 5 });
  }
};

test("a console is bounded over many starts, not only within one", () =>
  inFolder(async (folder) => {
    const path = join(folder, "console.log");
    await writeFile(path, Buffer.alloc(4 * MiB - 1));
    const console = new PassThrough();
    keepConsole(console, { console: path, consoleTimes: join(folder, "console.times") }, log);
    console.write("xx");
    await folderHolds(folder, async () => (await readdir(folder)).includes("console.log.1"));
    console.write("more");
    await folderHolds(folder, async () => (await readdir(folder)).includes("console.log"));
    assert.ok((await stat(path)).size <= 4);
    console.destroy();
  }));

test("the tail of a console in an error is short and plain, however long the guest's lines are", () =>
  inFolder(async (folder) => {
    const path = join(folder, "console.log");
    await writeFile(path, `first\n${"\x1b[31m\x9bx".repeat(5000)}\nKernel panic - \x1b]0;t\x07not syncing\n`);
    const [cause = ""] = await consoleTail(path, 12);
    assert.match(cause, /^Kernel panic - .*not syncing$/);
    await writeFile(path, `${"x".repeat(20_000)}\nlast\n`);
    const lines = await consoleTail(path, 12);
    assert.equal(lines.at(-1), "last");
    assert.ok(lines.join("").length < 1000);
    assert.doesNotMatch(lines.join(""), /\p{Cc}/u);
  }));

test("what was written since a moment is found by the times beside the log", () =>
  inFolder(async (folder) => {
    const [log, path] = [join(folder, "console.log"), join(folder, "console.times")];
    let now = 1_000_000;
    const file = await open(path, "a");
    const times = consoleTimes(file, 0, () => now);
    for (const [time, offset] of [
      [1_000_000, 0],
      [1_000_900, 100],
      [1_060_000, 200],
      [1_120_000, 300],
      // The clock was set back.
      [1_000_500, 400],
    ] as const) {
      now = time;
      await times.mark(offset);
    }
    await file.close();
    assert.equal(times.size(), 4 * 12);
    assert.equal(await offsetSince(log, path, 0), 0);
    assert.equal(await offsetSince(log, path, 1_000_950), 0, "written in the second of the first record");
    assert.equal(await offsetSince(log, path, 1_050_000), 200);
    assert.equal(await offsetSince(log, path, 1_120_000), 300);
    assert.equal(await offsetSince(log, path, 1_200_000), Number.POSITIVE_INFINITY);
    await writeFile(log, "old");
    assert.equal(await offsetSince(log, join(folder, "none"), 0), 0);
    assert.equal(await offsetSince(log, join(folder, "none"), Date.now() + 60_000), Number.POSITIVE_INFINITY);
  }));
