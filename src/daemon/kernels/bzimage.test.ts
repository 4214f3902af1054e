import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { bzImageOf, elfKernel } from "../../../test/support/elf-kernel.ts";
import { startProcess } from "../../host/process.ts";
import { extractVmlinux } from "./bzimage.ts";
import { inspectElf } from "./elf.ts";
import { decompressLz4Legacy } from "./lz4.ts";

/** What a program makes of `input`. */
const through = async (argv: [string, ...string[]], input: Buffer): Promise<Buffer> => {
  await using running = await startProcess({ argv, stdio: ["pipe", "pipe", "pipe"] });
  const chunks: Buffer[] = [];
  running.child.stdout?.on("data", (chunk: Buffer) => chunks.push(chunk));
  running.child.stdin?.end(input);
  await new Promise((resolve) => running.child.once("close", resolve));
  return Buffer.concat(chunks);
};

const withSize = (payload: Buffer, size: number): Buffer => {
  const end = Buffer.alloc(4);
  end.writeUInt32LE(size);
  return Buffer.concat([payload, end]);
};

/** LZ4's legacy format by the least encoder: literals, and runs as matches with offset 1. */
const lz4 = (data: Buffer): Buffer => {
  const parts: Buffer[] = [Buffer.from([0x02, 0x21, 0x4c, 0x18])];
  for (let start = 0; start < data.length; start += 8 << 20) {
    const block = lz4Block(data.subarray(start, start + (8 << 20)));
    const length = Buffer.alloc(4);
    length.writeUInt32LE(block.length);
    parts.push(length, block);
  }
  return Buffer.concat(parts);
};

const lengthBytes = (length: number): number[] =>
  length < 15 ? [] : [...new Array<number>(Math.floor((length - 15) / 255)).fill(255), (length - 15) % 255];

const lz4Block = (data: Buffer): Buffer => {
  const parts: Buffer[] = [];
  let literals = 0;
  for (let at = 0; at < data.length; at++) {
    let run = 0;
    while (at > 0 && at + run < data.length && data[at + run] === data[at - 1]) run++;
    if (run < 4) continue;
    const text = data.subarray(literals, at);
    const token = (Math.min(15, text.length) << 4) | Math.min(15, run - 4);
    parts.push(Buffer.from([token, ...lengthBytes(text.length)]), text, Buffer.from([1, 0, ...lengthBytes(run - 4)]));
    at += run - 1;
    literals = at + 1;
  }
  const rest = data.subarray(literals);
  parts.push(Buffer.from([Math.min(15, rest.length) << 4, ...lengthBytes(rest.length)]), rest);
  return Buffer.concat(parts);
};

const kernel = Buffer.concat([
  Buffer.from("kernel "),
  Buffer.alloc(9 << 20, "ab"),
  Buffer.alloc(70_000),
  Buffer.from("end"),
]);

test("a payload comes out of every compression", async () => {
  const payloads: Record<string, Buffer> = {
    lz4: withSize(lz4(kernel), kernel.length),
    zstd: withSize(zstdCompressSync(kernel), kernel.length),
    gzip: gzipSync(kernel),
    xz: withSize(await through(["xz", "-c", "--check=crc32", "-0"], kernel), kernel.length),
  };
  for (const [name, payload] of Object.entries(payloads)) {
    assert.ok((await extractVmlinux(bzImageOf(payload))).equals(kernel), name);
  }
});

test("a cut or changed image is refused, never taken and never a crash", async () => {
  const small = Buffer.from("kernel".repeat(200));
  const xz = await through(["xz", "-c", "-0"], small);
  const payloads = [
    withSize(lz4(small), small.length),
    withSize(zstdCompressSync(small), small.length),
    gzipSync(small),
  ];
  for (const payload of [...payloads, withSize(xz, small.length)]) {
    const image = bzImageOf(payload);
    for (const end of [0, 100, 0x250, 1030, image.length - 200, image.length - 1]) {
      await assert.rejects(extractVmlinux(image.subarray(0, Math.max(0, end))), { code: "KERNEL_CORRUPT" });
    }
    const larger = Buffer.from(image);
    larger.writeUInt32LE(small.length + 1, larger.length - 4);
    await assert.rejects(extractVmlinux(larger), { code: "KERNEL_CORRUPT" });
    larger.writeUInt32LE(0xffffffff, larger.length - 4);
    await assert.rejects(extractVmlinux(larger), { code: "KERNEL_CORRUPT" });
  }
  await assert.rejects(extractVmlinux(bzImageOf(Buffer.from("no known magic number"))), { code: "KERNEL_CORRUPT" });
});

test("LZ4: any data survives, any damage is refused or gives the same length", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 2000 }), fc.nat(), fc.nat(255), (data, at, value) => {
      const input = Buffer.from(data);
      if (input.length === 0) return;
      const packed = lz4(input);
      assert.deepEqual(decompressLz4Legacy(packed, input.length), input);
      const damaged = Buffer.from(packed);
      damaged[4 + (at % (damaged.length - 4))] = value;
      try {
        assert.equal(decompressLz4Legacy(damaged, input.length).length, input.length);
      } catch (error) {
        assert.equal((error as { code?: string }).code, "KERNEL_CORRUPT");
      }
    }),
  );
});

test("an ELF kernel is known by its headers", () => {
  assert.deepEqual(inspectElf(elfKernel()), { pvh: true });
  assert.deepEqual(inspectElf(elfKernel({ note: 1 })), { pvh: false });
  for (const end of [0, 63, 100, 139]) {
    assert.throws(() => inspectElf(elfKernel().subarray(0, end)), { code: "KERNEL_CORRUPT" });
  }
  const arm = elfKernel();
  arm.writeUInt16LE(183, 18);
  assert.throws(() => inspectElf(arm), { code: "KERNEL_CORRUPT" });
});
