import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import fc from "fast-check";
import { startProcess } from "../../host/process.ts";
import { decompressXz } from "./xz.ts";

/** What the xz program makes of `input`. */
const xz = async (input: Uint8Array, ...options: string[]): Promise<Buffer> => {
  await using running = await startProcess({ argv: ["xz", "-c", ...options], stdio: ["pipe", "pipe", "pipe"] });
  const chunks: Buffer[] = [];
  running.child.stdout?.on("data", (chunk: Buffer) => chunks.push(chunk));
  running.child.stdin?.end(input);
  await new Promise((resolve) => running.child.once("close", resolve));
  return Buffer.concat(chunks);
};

/** Machine code, text and noise, as a kernel has them. */
const program = async (): Promise<Buffer> => {
  const own = (await readFile(process.execPath)).subarray(20 << 20, 25 << 20);
  const noise = Buffer.alloc(300_000);
  let state = 1;
  for (let at = 0; at < noise.length; at++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    noise[at] = state >>> 16;
  }
  return Buffer.concat([own, noise, Buffer.alloc(3 << 20), Buffer.from("end")]);
};

test("what the xz program packs comes out, by whatever options", async () => {
  const data = await program();
  const options = [
    // As the kernel's build does it.
    ["--check=crc32", "--x86", "--lzma2=dict=8MiB"],
    ["--check=crc64", "-1"],
    ["--check=sha256", "--block-size=1000000", "-0"],
    ["--check=none", "--lzma2=preset=3,lc=0,lp=4,pb=0"],
    ["--check=crc32", "--x86=start=4096", "--lzma2=preset=1,lc=4,lp=0,pb=4"],
  ];
  for (const one of options) {
    const packed = await xz(data, ...one);
    assert.ok((await decompressXz(packed, data.length)).equals(data), one.join(" "));
  }
});

test("any bytes survive, and no damage goes unnoticed", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ maxLength: 5000 }),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      async (data, at, flip) => {
        const packed = await xz(data, "-0");
        assert.ok((await decompressXz(packed, data.length)).equals(Buffer.from(data)));
        const damaged = Buffer.from(packed);
        const place = at % damaged.length;
        damaged[place] = (damaged[place] ?? 0) ^ flip;
        await assert.rejects(decompressXz(damaged, data.length + 100), { code: "KERNEL_CORRUPT" });
      },
    ),
    { numRuns: 60 },
  );
});

test("what is cut off, too large or something else is refused", async () => {
  const data = Buffer.from("kernel".repeat(2000));
  const packed = await xz(data);
  await assert.rejects(decompressXz(packed, data.length - 1), {
    code: "KERNEL_CORRUPT",
    message: /larger than it says/,
  });
  for (const end of [0, 5, 12, 20, packed.length - 13, packed.length - 1])
    await assert.rejects(decompressXz(packed.subarray(0, end), data.length), { code: "KERNEL_CORRUPT" });
  await assert.rejects(decompressXz(Buffer.alloc(1000, 7), 1000), { code: "KERNEL_CORRUPT", message: /no header/ });
  const delta = await xz(data, "--delta=dist=4", "--lzma2");
  await assert.rejects(decompressXz(delta, data.length), { code: "KERNEL_CORRUPT", message: /filters/ });
});
