import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { zstdCompressSync } from "node:zlib";
import { entry, tar } from "../../../test/support/tar-builder.ts";
import { fileServer } from "../../../test/support/file-server.ts";
import type { BundleSource } from "../../contract/bundles.ts";
import { bundleSourceSchema } from "../../contract/bundles.ts";
import { silentProgress } from "../../contract/progress.ts";
import { downloadsFolder } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";
import { fetchBundle, packBundle } from "./bundle.ts";

let work: string;
before(async () => {
  work = await mkdtemp(join(tmpdir(), "banger-bundle-"));
  process.env.XDG_CACHE_HOME = join(work, "cache");
});
after(() => rm(work, { recursive: true }));

const isExpected = (name: string) => ["rootfs.ext4", "manifest.json"].includes(name);
const quick = { attempts: 3, pause: 1, idleLimit: 2000 };
let folders = 0;
const newFolder = async (): Promise<string> => {
  const path = join(work, `folder-${folders++}`);
  await mkdir(path);
  return path;
};

const fetch = async (source: BundleSource, progress = silentProgress()) => {
  const folder = await newFolder();
  const files = await fetchBundle(source, { folder, isExpected }, progress, quick);
  return { folder, files };
};

const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

/** A bundle with these bytes, as a catalog would name it at `base`. */
const described = (bytes: Buffer, base: string, unpacked = 1 << 20): BundleSource => ({
  type: "bundle",
  url: `${base}/image-${sha256(bytes)}.tar.zst`,
  sha256: sha256(bytes),
  size: bytes.length,
  unpacked,
});

const rootfs = Buffer.concat([
  Buffer.alloc(100_000, "data of a file system"),
  Buffer.alloc(900_000),
  Buffer.from("end"),
]);
const manifest = Buffer.from('{"version":1}');

const packed = async () => {
  const folder = await newFolder();
  await writeFile(join(folder, "rootfs.ext4"), rootfs);
  await writeFile(join(folder, "manifest.json"), manifest);
  const content = ["manifest.json", "rootfs.ext4"].map((name) => ({ name, path: join(folder, name) }));
  return await packBundle(content, folder, "image", silentProgress());
};

test("what was packed comes out again, sparse, by file and by HTTP, and tar reads it too", async () => {
  const bundle = await packed();
  assert.match(bundle.path, /image-[0-9a-f]{64}\.tar\.zst$/);
  assert.equal((await stat(bundle.path)).mode & 0o777, 0o644);
  assert.equal(bundle.sha256, sha256(await readFile(bundle.path)));
  assert.equal((await packed()).sha256, bundle.sha256, "the same files give the same bundle");
  const { stdout } = await runTool({ argv: ["tar", "--zstd", "-tvf", bundle.path] });
  assert.match(stdout, /-rw-r--r-- 0\/0 +13 1970-01-01 00:00 manifest.json\n-rw-r--r-- 0\/0 +1000003 .* rootfs.ext4\n/);

  await using server = await fileServer();
  const bytes = await readFile(bundle.path);
  const source: BundleSource = { type: "bundle", ...bundle, url: pathToFileURL(bundle.path).href };
  bundleSourceSchema.parse({
    type: "bundle",
    url: source.url,
    sha256: source.sha256,
    size: source.size,
    unpacked: source.unpacked,
  });
  const served = described(bytes, server.url("/a"));
  server.files.set(new URL(served.url).pathname, { body: bytes });
  for (const one of [source, { ...served, unpacked: bundle.unpacked }]) {
    const { folder, files } = await fetch(one);
    assert.deepEqual([...files.keys()].sort(), ["manifest.json", "rootfs.ext4"]);
    assert.ok((await readFile(join(folder, "rootfs.ext4"))).equals(rootfs));
    assert.equal(files.get("rootfs.ext4")?.sha256, sha256(rootfs));
    assert.ok((await stat(join(folder, "rootfs.ext4"))).blocks * 512 < 300_000, "zeros are holes");
  }
  assert.deepEqual(await readdir(downloadsFolder()), [], "nothing is kept of what was installed");
});

test("a download that breaks off goes on where it was, within one try and in the next", async () => {
  await using server = await fileServer();
  const bytes = await readFile((await packed()).path);
  const source = described(bytes, server.url("/b"), 2 << 20);
  const path = new URL(source.url).pathname;
  server.files.set(path, { body: bytes, etag: '"one"', cutAfter: 40 });
  // Each time the bytes have come, the connection ends.
  const breakOff = { ...silentProgress(), report: () => server.breakOff() };
  await fetch(source, breakOff);
  assert.equal(server.requests.length, Math.ceil(bytes.length / 40));
  assert.deepEqual(server.requests[1], { path, range: "bytes=40-", ifRange: '"one"' });

  // The server is gone for good; what was here stays for the next time.
  server.files.set(path, { body: bytes, etag: '"one"', cutAfter: 60 });
  const controller = new AbortController();
  const report = () => controller.abort();
  await assert.rejects(
    fetchBundle(source, { folder: await newFolder(), isExpected }, { signal: controller.signal, report }, quick),
    { code: "CANCELLED" },
  );
  server.requests.length = 0;
  server.files.set(path, { body: bytes, etag: '"one"' });
  await fetch(source);
  assert.deepEqual(
    server.requests.map(({ range }) => range),
    ["bytes=60-"],
  );
});

test("a file that has changed on the server, and a server without ranges, begin anew", async () => {
  await using server = await fileServer();
  const bytes = await readFile((await packed()).path);
  const source = described(bytes, server.url("/c"), 2 << 20);
  const path = new URL(source.url).pathname;
  await mkdir(downloadsFolder(), { recursive: true });
  for (const served of [
    { body: bytes, noRanges: true },
    { body: bytes, etag: '"two"' },
  ]) {
    await writeFile(join(downloadsFolder(), `${source.sha256}.part`), Buffer.alloc(50, "something else"));
    await writeFile(join(downloadsFolder(), `${source.sha256}.part.etag`), '"one"');
    server.files.set(path, served);
    await fetch(source);
  }
  // More than there can be.
  await writeFile(join(downloadsFolder(), `${source.sha256}.part`), Buffer.alloc(bytes.length + 5));
  await fetch(source);
});

test("redirects are followed, and not for ever", async () => {
  await using server = await fileServer();
  const bytes = await readFile((await packed()).path);
  const source = described(bytes, server.url("/d"), 2 << 20);
  const path = new URL(source.url).pathname;
  server.files.set(path, { body: bytes, location: server.url("/real") });
  server.files.set("/real", { body: bytes });
  await fetch(source);
  server.files.set("/real", { body: bytes, location: server.url("/real") });
  await assert.rejects(fetch(source), { code: "REGISTRY_ERROR", message: /redirects over 8 times/ });
  server.files.set("/real", { body: bytes, location: "file:///etc/passwd" });
  await assert.rejects(fetch(source), { code: "REGISTRY_ERROR", message: /redirects to "file:/ });
});

test("what a server does wrong is named, and nothing is unpacked", async () => {
  await using server = await fileServer();
  const bytes = await readFile((await packed()).path);
  const source = described(bytes, server.url("/e"), 2 << 20);
  const path = new URL(source.url).pathname;
  const cases: [string, Parameters<typeof server.files.set>[1] | undefined, RegExp][] = [
    ["missing", undefined, /the server answered 404/],
    ["broken", { body: bytes, status: 503 }, /the server answered 503/],
    ["longer", { body: Buffer.concat([bytes, Buffer.alloc(10)]) }, /more than the \d+ bytes announced/],
    ["shorter", { body: bytes.subarray(0, -10) }, /fewer than the/],
    ["changed", { body: Buffer.from(bytes).fill(1, 20, 21) }, /digest is another/],
  ];
  for (const [what, served, message] of cases) {
    if (served === undefined) server.files.delete(path);
    else server.files.set(path, served);
    const folder = await newFolder();
    await assert.rejects(
      fetchBundle(source, { folder, isExpected }, silentProgress(), quick),
      { code: "DOWNLOAD_FAILED", message },
      what,
    );
    assert.deepEqual(await readdir(folder), [], what);
    await rm(downloadsFolder(), { recursive: true, force: true });
  }
  await assert.rejects(fetch({ ...source, url: source.url.replace(/:\d+/, ":1") }), {
    code: "DOWNLOAD_FAILED",
    message: /refuses the connection/,
    hint: /bytes that are here are kept/,
  });
  const local = { ...source, url: pathToFileURL(join(work, "nowhere.tar.zst")).href };
  await assert.rejects(fetch(local), { code: "DOWNLOAD_FAILED", message: /there is no such file/ });
  await writeFile(join(work, "nowhere.tar.zst"), Buffer.from(bytes).fill(1, 20, 21));
  await assert.rejects(fetch(local), { code: "DOWNLOAD_FAILED", message: /digest is another/ });
  await writeFile(join(work, "nowhere.tar.zst"), bytes.subarray(1));
  await assert.rejects(fetch(local), { code: "DOWNLOAD_FAILED", message: /bytes in place of/ });
});

test("a bundle holds what is expected and nothing else", async () => {
  const file = (name: string, data: Buffer) => entry({ name, data });
  const cases: [string, Buffer, RegExp][] = [
    [
      "another file",
      tar([file("rootfs.ext4", rootfs), file("etc/passwd", manifest)]),
      /"etc\/passwd", which does not belong/,
    ],
    ["a way out", tar([file("../rootfs.ext4", rootfs)]), /"\.\.\/rootfs.ext4", which does not belong/],
    ["an absolute name", tar([file("/rootfs.ext4", rootfs)]), /which does not belong/],
    ["a link", tar([entry({ name: "rootfs.ext4", type: "2", link: "/etc/passwd" })]), /which does not belong/],
    ["one twice", tar([file("manifest.json", manifest), file("manifest.json", manifest)]), /manifest.json twice/],
    ["too much", tar([file("rootfs.ext4", Buffer.alloc((1 << 20) + 1))]), /more than the 1048576 bytes announced/],
    ["no tar", Buffer.alloc(5000, "no tar at all"), /tar/],
    ["cut off", tar([file("rootfs.ext4", rootfs)]).subarray(0, 60_000), /the archive ends in its data/],
  ];
  for (const [what, archive, message] of cases) {
    const bytes = zstdCompressSync(archive);
    const path = join(work, `bad-${sha256(bytes)}.tar.zst`);
    await writeFile(path, bytes);
    const source = { ...described(bytes, "file:"), url: pathToFileURL(path).href };
    await assert.rejects(fetch(source), { code: "BUNDLE_INVALID", message }, what);
  }
  for (const bytes of [
    Buffer.from("no zstd, and long enough to be something"),
    zstdCompressSync(tar([file("rootfs.ext4", rootfs)])).subarray(0, 80),
  ]) {
    const path = join(work, `bad-${sha256(bytes)}.tar.zst`);
    await writeFile(path, bytes);
    await assert.rejects(fetch({ ...described(bytes, "file:"), url: pathToFileURL(path).href }), {
      code: "BUNDLE_INVALID",
    });
  }
});

test("a catalog names a bundle by an address that holds its digest", () => {
  const good = described(Buffer.from("x"), "https://example.invalid/bundles");
  bundleSourceSchema.parse(good);
  for (const bad of [
    { ...good, url: "https://example.invalid/bundles/image.tar.zst" },
    { ...good, url: good.url.replace("https", "ftp") },
    { ...good, url: "image.tar.zst" },
    { ...good, sha256: "0".repeat(64) },
    { ...good, size: 0 },
    { ...good, unpacked: -1 },
    { ...good, more: 1 },
  ])
    assert.equal(bundleSourceSchema.safeParse(bad).success, false, JSON.stringify(bad));
});
