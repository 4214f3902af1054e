/** Kernels that images of a real registry hold. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import type { BangerError } from "../../src/contract/errors.ts";
import { silentProgress } from "../../src/contract/progress.ts";
import { kernelService } from "../../src/daemon/kernels/service.ts";
import { kernelFiles, kernelsFolder, stagingFolder } from "../../src/host/paths.ts";
import { bzImageOf, elfKernel } from "../support/elf-kernel.ts";
import { assertClean, listTree } from "../support/ext4-judge.ts";
import { writeLayout } from "../support/oci-layout.ts";
import { dockerConfig, type Registry, startRegistry } from "../support/registry.ts";
import { type Made, tar } from "../support/tar-builder.ts";

const release = "6.9.0-image";
const builtIn = "BLK_DEV_INITRD DEVTMPFS VIRTIO_MMIO VIRTIO_BLK VIRTIO_NET VIRTIO_CONSOLE EXT4_FS OVERLAY_FS".split(
  " ",
);
const complete = elfKernel({ release, config: builtIn.map((name) => `CONFIG_${name}=y`) });
const modular = elfKernel({ release });
const modules = `usr/lib/modules/${release}`;

let folder: string;
let registry: Registry;
let credentials: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "banger-kernel-image-"));
  process.env.XDG_STATE_HOME = join(folder, "state");
  process.env.XDG_CACHE_HOME = join(folder, "cache");
  registry = await startRegistry();
  credentials = join(await dockerConfig(join(folder, "docker"), registry.host), "config.json");
});
after(async () => {
  await registry[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

const dir = (name: string): Made => ({ name, type: "5" });
/** Puts an image of these layers into the registry. @returns what it is called there */
const push = async (tag: string, ...layers: Made[][]): Promise<string> => {
  const layout = join(folder, tag);
  await mkdir(layout);
  await writeLayout(layout, [{ tag, layers: layers.map(tar), packing: ["zstd", "gzip"] }]);
  await registry.push(layout, tag, `team/kernel:${tag}`);
  return `${registry.host}/team/kernel:${tag}`;
};
const kernels = (catalogs: string[] = []) => kernelService({ catalogs });
const pull = (reference: string, name: string) =>
  kernels().pull({ name, reference, dockerConfig: credentials }, silentProgress());

test("kernel and modules come out of an image's layers, and nothing else of it does", async () => {
  const reference = await push(
    "full",
    [
      dir("boot"),
      { name: `boot/vmlinuz-${release}`, data: "of a lower layer" },
      { name: "usr/bin/tool", data: "x" },
      { name: "lib", type: "2", link: "usr/lib" },
      { name: `${modules}/modules.order`, data: "" },
      { name: `${modules}/modules.builtin`, data: "" },
      { name: `${modules}/kernel/gone.ko`, data: "gone" },
    ],
    [
      { name: `boot/vmlinuz-${release}`, data: bzImageOf(gzipSync(modular)) },
      { name: `${modules}/kernel/.wh.gone.ko`, data: "" },
      {
        name: `lib/modules/${release}/modules.builtin`,
        data: builtIn.map((name) => `kernel/${name.toLowerCase().replace("overlay_fs", "overlay")}.ko\n`).join(""),
      },
      { name: `${modules}/kernel/readme`, data: "stays" },
      { name: `${modules}/kernel/same`, type: "1", link: `${modules}/kernel/readme` },
      { name: `${modules}/kernel/two words`, data: "not of a kernel" },
      { name: `${modules}/build`, type: "2", link: "/etc" },
    ],
  );
  const info = await pull(reference, "full");
  assert.deepEqual([info.name, info.release, info.source.type], ["full", release, "oci"]);
  const files = kernelFiles("full");
  assert.ok((await readFile(files.vmlinux)).equals(modular));
  await assertClean(files.modules);
  const names = (await listTree(files.modules, folder))
    .map(({ path }) => path)
    .filter((path) => path.startsWith("kernel"));
  assert.deepEqual(names.sort(), ["kernel", "kernel/readme", "kernel/same"]);
  await kernels().verify("full");
  assert.deepEqual(await readdir(stagingFolder()), []);
});

test("a kernel with all built in is pulled by a catalog's entry, and goes again as a bundle", async () => {
  const reference = await push("small", [{ name: "vmlinux", data: complete }]);
  const pulled = await pull(reference, "small");
  const { source } = pulled;
  assert.ok(source.type === "oci");
  const pinned = `${registry.host}/team/kernel@${source.digest}`;
  const catalog = join(folder, "catalog.json");
  const write = (entry: object) => writeFile(catalog, JSON.stringify({ version: 1, kernels: [entry] }));
  await write({ name: "pinned", description: "by its digest", sources: [{ type: "oci", reference: pinned }] });
  const service = kernels([catalog]);
  assert.ok((await service.available()).some(({ name, installed }) => name === "pinned" && !installed));
  await service.ensure("pinned", silentProgress(), credentials);
  const again = await service.show("pinned");
  assert.deepEqual([again.digest, again.source], [pulled.digest, { ...source, reference: pinned }]);
  const { entry: packed } = await service.export("pinned", folder, silentProgress());
  await write({ ...packed, name: "packed" });
  assert.equal((await service.pull({ name: "packed" }, silentProgress())).digest, pulled.digest);
});

test("the same image again is left as it is; another name's, or one whose tag has moved, is not replaced", async () => {
  const reference = await push("twice", [{ name: "bzImage", data: bzImageOf(gzipSync(complete)) }]);
  const service = kernels();
  const request = { name: "twice", reference, dockerConfig: credentials };
  const both = [service.pull(request, silentProgress()), service.pull(request, silentProgress())] as const;
  const [first, second] = await Promise.all(both);
  assert.equal(first.createdAt, second.createdAt);
  assert.equal((await pull(reference, "twice")).createdAt, first.createdAt);
  const other = await push("another", [{ name: "vmlinux", data: complete }]);
  await assert.rejects(pull(other, "twice"), { code: "KERNEL_EXISTS", hint: /kernel delete twice/ });
  await registry.push(join(folder, "another"), "another", "team/kernel:twice");
  await assert.rejects(pull(reference, "twice"), {
    code: "KERNEL_EXISTS",
    message: /twice is of an earlier .*kernel:twice/,
    hint: /kernel delete twice && banger kernel pull .*kernel:twice --name twice/,
  });
});

test("an image without a kernel that boots is refused by its name, and nothing stays", async () => {
  const before = await readdir(kernelsFolder());
  const cases: [string, Made[], RegExp][] = [
    ["none", [{ name: "bin/sh", data: "x" }], /team\/kernel:none cannot be used: it holds no file vmlinux/],
    ["text", [{ name: "vmlinux", data: "text" }], /team\/kernel:text\/vmlinux cannot be used: it is no kernel/],
    ["needy", [{ name: "vmlinux", data: elfKernel({ release, config: [] }) }], /it needs modules/],
    [
      "several",
      [
        { name: "boot/vmlinuz-1", data: complete },
        { name: "boot/vmlinuz-2", data: complete },
      ],
      /several kernels/,
    ],
    // Only a symlink of that name: what it leads to is not looked for.
    ["linked", [{ name: "vmlinux", type: "2", link: "/proc/version" }], /holds no file vmlinux/],
  ];
  for (const [tag, entries, message] of cases) {
    const reference = await push(tag, entries);
    await assert.rejects(pull(reference, "bad"), { code: "KERNEL_CORRUPT", message }, tag);
  }
  const hostile = await push("hostile", [{ name: "boot/../../vmlinux", data: complete }]);
  await assert.rejects(pull(hostile, "bad"), { code: "IMAGE_REFUSED" });
  await assert.rejects(pull(`${registry.host}/team/kernel:nowhere`, "bad"), { code: "IMAGE_NOT_FOUND" });
  await assert.rejects(pull("No Reference", "bad"), { code: "USAGE" });
  await assert.rejects(pull(hostile, "Bad Name"), { code: "USAGE" });
  const strange = kernels().pull({ name: "bad", reference: hostile }, silentProgress());
  await assert.rejects(strange, (error: BangerError) => error.code === "REGISTRY_AUTH");
  assert.deepEqual(await readdir(kernelsFolder()), before);
  assert.deepEqual(await readdir(stagingFolder()), []);
});
