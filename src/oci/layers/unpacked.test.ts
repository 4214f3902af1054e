import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { type FilePart, type UnpackOptions, unpacked } from "./unpacked.ts";

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-unpacked-"));
});
after(() => rm(folder, { recursive: true }));

let count = 0;
/** Puts bytes into a file between others that are not meant. */
const partOf = async (bytes: Buffer): Promise<FilePart> => {
  const path = join(folder, `${count++}`);
  await writeFile(path, Buffer.concat([Buffer.alloc(100, "before"), bytes, Buffer.alloc(100, "behind")]));
  return { path, start: 100, size: bytes.length };
};

const alive = new AbortController().signal;
const read = async (part: FilePart, options: Partial<UnpackOptions> = {}) => {
  const [given, seen]: [Buffer[], Buffer[]] = [[], []];
  const onRead = (chunk: Buffer) => void seen.push(Buffer.from(chunk));
  for await (const chunk of unpacked(part, { signal: alive, onRead, ...options })) given.push(Buffer.from(chunk));
  return { given: Buffer.concat(given), seen: Buffer.concat(seen) };
};

const isOpen = async (path: string): Promise<boolean> => {
  const links = await readdir("/proc/self/fd");
  const open = await Promise.all(links.map((link) => readlink(join("/proc/self/fd", link)).catch(() => "")));
  return open.includes(path);
};

// Larger than all buffers together, and packed to about as much: chunks of the file and of the archive end anywhere.
const archive = Buffer.concat([
  randomBytes(5_000_000),
  Buffer.alloc(3_000_000, "text of some length "),
  randomBytes(77),
]);
const [front, back] = [archive.subarray(0, 2_000_000), archive.subarray(2_000_000)];
const zeros = Buffer.alloc(2_000_000);

const packed: Record<string, Buffer> = {
  "gzip, with zeros behind it": Buffer.concat([gzipSync(archive), zeros]),
  "gzip in two members": Buffer.concat([gzipSync(front), gzipSync(back)]),
  gzip: gzipSync(archive),
  zstd: zstdCompressSync(archive),
  "zstd in two frames": Buffer.concat([zstdCompressSync(front), zstdCompressSync(back)]),
  none: archive,
};

for (const [name, bytes] of Object.entries(packed)) {
  test(`packed as ${name}, all of the archive is given, and all of the file seen`, async () => {
    const part = await partOf(bytes);
    const { given, seen } = await read(part);
    assert.ok(given.equals(archive));
    assert.ok(seen.equals(bytes));
    assert.equal(await isOpen(part.path), false);
  });

  test(`packed as ${name}, whoever stops early or is cancelled leaves nothing open`, async () => {
    const part = await partOf(bytes);
    for await (const chunk of unpacked(part, { signal: alive })) {
      assert.ok(archive.subarray(0, chunk.length).equals(chunk));
      break;
    }
    assert.equal(await isOpen(part.path), false);
    const cancel = new AbortController();
    const onChunk = () => cancel.abort();
    await assert.rejects(read(part, { signal: cancel.signal, onChunk }), { code: "CANCELLED" });
    const onRead = () => {
      throw new Error("not what it should be");
    };
    await assert.rejects(read(part, { onRead }), /not what it should be/);
    assert.equal(await isOpen(part.path), false);
  });
}

test("an archive that is cut off, or damaged somewhere, is told as such", async () => {
  for (const name of ["gzip", "zstd"]) {
    const bytes = packed[name] ?? Buffer.alloc(0);
    const cut = await partOf(bytes.subarray(0, bytes.length - 1_000_000));
    await assert.rejects(read(cut), {
      name: "TarError",
      kind: "corrupt",
      message: /packed bytes (?:end early|are damaged)/,
    });
    const damaged = await partOf(Buffer.from(bytes).fill(0xff, 4_000_000, 4_100_000));
    await assert.rejects(read(damaged), { name: "TarError", kind: "corrupt" });
    assert.equal(await isOpen(damaged.path), false);
  }
});
