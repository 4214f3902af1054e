import assert from "node:assert/strict";
import { mkdtemp, open, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { copyRanges, dataRanges } from "./copy.ts";
import { bytesOnDisk } from "./files.ts";

const MiB = 2 ** 20;

const inFolder = async (use: (path: (name: string) => string) => Promise<void>): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), "banger-copy-"));
  try {
    await use((name) => join(folder, name));
  } finally {
    await rm(folder, { recursive: true });
  }
};

const sparse = async (path: string, size: number, parts: Record<number, Buffer>): Promise<void> => {
  await using file = await open(path, "w");
  await file.truncate(size);
  for (const [offset, bytes] of Object.entries(parts)) await file.write(bytes, 0, bytes.length, Number(offset));
};

test("little data in a large file is copied by its ranges, holes stay holes, and what was there before is gone", () =>
  inFolder(async (path) => {
    await sparse(path("from"), 64 * MiB, { 0: Buffer.alloc(8192, 1), [40 * MiB]: Buffer.alloc(20_000, 2) });
    const ranges = await dataRanges(path("from"));
    assert.ok(ranges);
    assert.equal(ranges.length, 2);
    await sparse(path("to"), 100 * MiB, { [MiB]: Buffer.alloc(8192, 3) });
    await copyRanges(path("from"), path("to"), 64 * MiB, ranges);
    assert.ok((await readFile(path("to"))).equals(await readFile(path("from"))));
    assert.equal(await bytesOnDisk(path("to")), await bytesOnDisk(path("from")));
    assert.equal((await stat(path("to"))).size, 64 * MiB);
  }));

test("a file with much data, or none, has no ranges; one that has become shorter is not copied", () =>
  inFolder(async (path) => {
    await sparse(path("much"), 9 * MiB, { 0: Buffer.alloc(9 * MiB, 1) });
    assert.equal(await dataRanges(path("much")), undefined);
    await sparse(path("empty"), MiB, {});
    assert.equal(await dataRanges(path("empty")), undefined);
    await assert.rejects(copyRanges(path("empty"), path("to"), MiB, [[MiB, 4096]]), /ends before/);
  }));
