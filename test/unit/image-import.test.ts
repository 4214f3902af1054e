/** Importing from files, folders and streams; registering and promoting files of the user's own; and a disk that is full. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { after, afterEach, before, test } from "node:test";
import { promisify } from "node:util";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { silentProgress } from "../../src/contract/progress.ts";
import { imageService } from "../../src/daemon/images/service.ts";
import { imageFiles, imagesFolder, stagingFolder } from "../../src/host/paths.ts";
import { assertClean, listTree } from "../support/ext4-judge.ts";
import { writeLayout } from "../support/oci-layout.ts";
import { tar } from "../support/tar-builder.ts";

const run = promisify(execFile);
const asRoot = (...argv: string[]) => {
  const [program = "", ...args] = process.getuid?.() === 0 ? argv : ["sudo", "-n", ...argv];
  return run(program, args);
};

let folder: string;
let layout: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-import-"));
  process.env.XDG_STATE_HOME = join(folder, "state");
  process.env.XDG_CACHE_HOME = join(folder, "cache");
  layout = join(folder, "lay.out");
  await mkdir(layout);
  await writeLayout(layout, [
    {
      tag: "one",
      layers: [tar([{ name: "etc/hostname", data: "one" }]), tar([{ name: "top", data: "1" }])],
      config: { Cmd: ["/one"] },
    },
    { tag: "two", layers: [tar([{ name: "two", data: "2" }])] },
    { tag: "arm", layers: [tar([{ name: "arm", data: "a" }])], platform: { os: "linux", architecture: "arm64" } },
  ]);
});
after(() => rm(folder, { recursive: true }));
afterEach(async () => {
  assert.deepEqual(await readdir(stagingFolder()).catch(() => []), [], "nothing half-made is left");
  await rm(imagesFolder(), { recursive: true, force: true });
});

const nothing = () => new PassThrough().end();
const importing = (request: { path?: string; name?: string; ref?: string }, input: Readable = nothing()) =>
  imageService().importImage(request, input, silentProgress());
const pathsOf = async (name: string) => {
  await assertClean(imageFiles(name).rootfs);
  return (await listTree(imageFiles(name).rootfs, folder))
    .map(({ path }) => path)
    .filter((path) => path !== "lost+found")
    .sort();
};

test("a layout: one of several images by its tag, named by folder and tag", async () => {
  const info = await importing({ path: layout, ref: "one" });
  assert.equal(info.name, "lay.out:one");
  assert.deepEqual(info.boot.command, ["/one"]);
  assert.deepEqual(await pathsOf(info.name), ["etc", "etc/hostname", "top"]);
  await assert.rejects(importing({ path: layout }), { code: "USAGE", message: /several images/, hint: /--ref one/ });
  await assert.rejects(importing({ path: layout, ref: "ten" }), {
    code: "IMAGE_NOT_FOUND",
    hint: /it holds: one, two, arm/,
  });
  await assert.rejects(importing({ path: layout, ref: "arm" }), { code: "IMAGE_PLATFORM", hint: /linux\/arm64/ });
  await assert.rejects(importing({ path: layout, ref: "one" }), {
    code: "IMAGE_EXISTS",
    hint: /image delete lay.out:one/,
  });
  await assert.rejects(importing({ path: layout, ref: "one", name: "Bad Name" }), { code: "USAGE" });
});

test("archives of docker save in both forms, packed or not, from a file or a stream, give the same image", async () => {
  const docker = join(folder, "docker.tar");
  const oci = join(folder, "oci.tar");
  await run("skopeo", ["copy", "-q", "--insecure-policy", `oci:${layout}:one`, `docker-archive:${docker}:my/app:1.0`]);
  await run("skopeo", ["copy", "-q", "--insecure-policy", `oci:${layout}:one`, `oci-archive:${oci}:1.0`]);
  await writeFile(`${docker}.gz`, gzipSync(await readFile(docker)));
  await writeFile(join(folder, "oci.tar.zst"), zstdCompressSync(await readFile(oci)));
  const named = await importing({ path: docker });
  assert.equal(named.name, "my/app:1.0");
  const digests = new Set([named.digest]);
  for (const [name, path] of [
    ["packed", `${docker}.gz`],
    ["oci", oci],
    ["oci-packed", join(folder, "oci.tar.zst")],
  ] as const)
    assert.deepEqual(await pathsOf((await importing({ path, name })).name), ["etc", "etc/hostname", "top"]);
  const streamed = await importing({ name: "streamed" }, createReadStream(docker));
  digests.add(streamed.digest);
  assert.equal(digests.size, 1, "the same layers give the same bytes");
  await assert.rejects(importing({ path: docker, ref: "other:1", name: "x" }), {
    code: "IMAGE_NOT_FOUND",
    hint: /my\/app:1.0/,
  });
});

test("the archive of a root file system, of every packing, and what is none", async () => {
  const rootfs = tar([
    { name: "./", type: "5", mode: 0o711 },
    { name: "./bin/sh", data: "x", mode: 0o755 },
  ]);
  for (const [name, bytes] of Object.entries({ plain: rootfs, gz: gzipSync(rootfs), zst: zstdCompressSync(rootfs) })) {
    const info = await importing({ name }, Readable.from([bytes]));
    assert.deepEqual(await pathsOf(name), ["bin", "bin/sh"]);
    assert.equal(info.source.type, "import");
  }
  await assert.rejects(importing({}, Readable.from([rootfs])), { code: "USAGE", hint: /--name/ });
  await assert.rejects(importing({ name: "x" }, Readable.from([])), { code: "USAGE", message: /nothing came/ });
  await assert.rejects(importing({ name: "x" }, Readable.from([randomBytes(5000)])), {
    code: "IMAGE_CORRUPT",
    message: /no tar archive/,
  });
  await assert.rejects(importing({ name: "x" }, Readable.from([Buffer.from("BZh91AY&SY")])), {
    code: "IMAGE_REFUSED",
    message: /bzip2/,
    hint: /bzip2 -dc FILE \| banger image import - --name/,
  });
  const xz = join(folder, "rootfs.tar.xz");
  await writeFile(xz, Buffer.from("fd377a585a000004", "hex"));
  await assert.rejects(importing({ path: xz, name: "x" }), {
    message: /packed with xz/,
    hint: /xz -dc .*rootfs.tar.xz/,
  });
  await assert.rejects(importing({ name: "x" }, Readable.from([gzipSync(rootfs).subarray(0, 60)])), {
    code: "IMAGE_CORRUPT",
    message: /end early/,
  });
  await assert.rejects(importing({ path: join(folder, "none"), name: "x" }), { code: "FILE_NOT_FOUND" });
  await assert.rejects(importing({ path: folder, name: "x" }), { code: "USAGE", hint: /tar -C/ });
});

test("a layout with a damaged, a missing or a wrong blob is refused by name", async () => {
  const bad = join(folder, "bad");
  const fresh = async () => {
    await rm(bad, { recursive: true, force: true });
    await mkdir(bad);
    const [image] = await writeLayout(bad, [{ tag: "x", layers: [tar([{ name: "a", data: randomBytes(3000) }])] }]);
    return join(bad, "blobs/sha256", image?.layers[0]?.digest.slice(7) ?? "");
  };
  await writeFile(await fresh(), "other bytes");
  await assert.rejects(importing({ path: bad, name: "x" }), {
    code: "IMAGE_CORRUPT",
    message: /has 11 bytes in place of/,
  });
  const blob = await fresh();
  const bytes = await readFile(blob);
  bytes[500] = (bytes[500] ?? 0) ^ 1;
  await writeFile(blob, bytes);
  await assert.rejects(importing({ path: bad, name: "x" }), {
    code: "IMAGE_CORRUPT",
    message: /layer 1 of 1 .* its blob has the digest sha256:.*the manifest says sha256:/,
  });
  await rm(await fresh());
  await assert.rejects(importing({ path: bad, name: "x" }), { code: "IMAGE_CORRUPT", message: /is missing/ });
  await writeFile(join(bad, "index.json"), "{}");
  await assert.rejects(importing({ path: bad, name: "x" }), { code: "IMAGE_REFUSED" });
  assert.deepEqual(await readdir(imagesFolder()).catch(() => []), []);
});

test("bytes behind a layer's packed ones are no part of the image, and yet of the blob that is checked", async () => {
  const trailed = join(folder, "trailed");
  for (const size of [10, 3_000_000]) {
    await rm(trailed, { recursive: true, force: true });
    await mkdir(trailed);
    const [image] = await writeLayout(trailed, [
      { tag: "x", layers: [tar([{ name: "a", data: "1" }])], behind: Buffer.alloc(size) },
    ]);
    const name = `trailed-${size}`;
    await importing({ path: trailed, name });
    assert.deepEqual(await pathsOf(name), ["a"]);
    const blob = join(trailed, "blobs/sha256", image?.layers[0]?.digest.slice(7) ?? "");
    const bytes = await readFile(blob);
    bytes[bytes.length - 1] = 1;
    await writeFile(blob, bytes);
    await assert.rejects(importing({ path: trailed, name: "x" }), {
      code: "IMAGE_CORRUPT",
      message: /its blob has the digest/,
    });
  }
});

test("a file of the user's own is used where it lies, promoted without a moment in which it is not whole, and never removed", async () => {
  const images = imageService();
  const own = join(folder, "own.ext4");
  await importing({ name: "source" }, Readable.from([tar([{ name: "mine", data: "1" }])]));
  await copyFile(imageFiles("source").rootfs, own);
  await assert.rejects(images.register({ name: "mine", rootfs: join(folder, "none") }, silentProgress()), {
    code: "FILE_NOT_FOUND",
  });
  await assert.rejects(images.register({ name: "mine", rootfs: layout }, silentProgress()), {
    code: "USAGE",
    message: /is no file/,
  });
  await writeFile(join(folder, "text"), "x".repeat(5000));
  await assert.rejects(images.register({ name: "mine", rootfs: join(folder, "text") }, silentProgress()), {
    code: "USAGE",
    message: /no ext4/,
  });
  const info = await images.register({ name: "mine", rootfs: own }, silentProgress());
  assert.deepEqual([info.managed, info.source], [false, { type: "file", path: own }]);
  assert.equal((await images.ensure("mine", silentProgress())).rootfs, own);
  await images.verifyDigest("mine", silentProgress());
  await assert.rejects(images.register({ name: "mine", rootfs: own }, silentProgress()), { code: "IMAGE_EXISTS" });
  const promoted = await images.promote("mine", silentProgress());
  assert.deepEqual([promoted.managed, promoted.digest], [true, info.digest]);
  await images.promote("mine", silentProgress());
  await truncate(own, 0);
  await images.verifyDigest("mine", silentProgress());
  await images.delete("mine", () => []);
  assert.equal((await stat(own)).size, 0);
  await copyFile(imageFiles("source").rootfs, own, 0).catch(() => assert.fail());
  await images.register({ name: "again", rootfs: own }, silentProgress());
  await truncate(own, 4096);
  await assert.rejects(images.verify("again"), {
    code: "IMAGE_CORRUPT",
    hint: /image delete again && banger image register again/,
  });
  await assert.rejects(images.promote("again", silentProgress()), {
    code: "IMAGE_CORRUPT",
    message: /has changed since/,
  });
  await images.delete("again", () => []);
  assert.equal((await stat(own)).size, 4096);
});

test("on a full disk the error says so and nothing is left", async () => {
  const small = join(folder, "small");
  await mkdir(small);
  const owner = `uid=${process.getuid?.()},gid=${process.getgid?.()},mode=0700`;
  await asRoot("mount", "-t", "tmpfs", "-o", `size=6M,${owner}`, "none", small);
  const { XDG_STATE_HOME } = process.env;
  process.env.XDG_STATE_HOME = small;
  try {
    const archive = join(folder, "large.tar");
    await writeFile(archive, tar([{ name: "large", data: randomBytes(12 * 2 ** 20) }]));
    await assert.rejects(importing({ path: archive, name: "large" }), { code: "DISK_FULL" });
    await assert.rejects(importing({ name: "large" }, createReadStream(archive)), { code: /ENOSPC|DISK_FULL/ });
    assert.deepEqual(await readdir(stagingFolder()), []);
    assert.deepEqual(await readdir(imagesFolder()).catch(() => []), []);
  } finally {
    process.env.XDG_STATE_HOME = XDG_STATE_HOME;
    await asRoot("umount", "--lazy", small);
  }
});
