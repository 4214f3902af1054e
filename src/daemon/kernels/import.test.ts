import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { bzImageOf, elfKernel } from "../../../test/support/elf-kernel.ts";
import { assertClean, listTree } from "../../../test/support/ext4-judge.ts";
import { BangerError } from "../../contract/errors.ts";
import { silentProgress } from "../../contract/progress.ts";
import { kernelFiles, stagingFolder } from "../../host/paths.ts";
import { packBundle } from "../artifacts/bundle.ts";
import { kernelService } from "./service.ts";

let work: string;
before(async () => {
  work = await mkdtemp(join(tmpdir(), "banger-kernel-import-"));
  process.env.XDG_STATE_HOME = join(work, "state");
  process.env.XDG_CACHE_HOME = join(work, "cache");
});
after(() => rm(work, { recursive: true }));

const release = "6.9.0-test";
const builtIn = [
  "BLK_DEV_INITRD",
  "DEVTMPFS",
  "VIRTIO_MMIO",
  "VIRTIO_BLK",
  "VIRTIO_NET",
  "VIRTIO_CONSOLE",
  "EXT4_FS",
  "OVERLAY_FS",
];
const config = builtIn.map((name) => `CONFIG_${name}=y`);
const complete = elfKernel({ release, config });

const put = async (path: string, content: Buffer | string): Promise<string> => {
  const file = join(work, path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, content);
  return file;
};

const kernels = (catalogs: string[] = []) => kernelService({ catalogs });
const importAs = (name: string, path: string, modules?: string) =>
  kernels().import({ name, path, ...(modules === undefined ? {} : { modules }) }, silentProgress());

test("one kernel file will do where all is built in: ELF, or a bzImage", async () => {
  const images = { elf: complete, packed: bzImageOf(gzipSync(complete)) };
  for (const [name, content] of Object.entries(images)) {
    const path = await put(`single/${name}`, content);
    const info = await importAs(name, path);
    assert.deepEqual(
      [info.name, info.release, info.pvh, info.source],
      [name, release, true, { type: "import", from: path }],
    );
    const files = kernelFiles(name);
    assert.ok((await readFile(files.vmlinux)).equals(complete));
    assert.equal(await readFile(join(files.bootModules, "order"), "utf8"), "");
    await assertClean(files.modules);
    await kernels().verify(name);
  }
  await assert.rejects(importAs("elf", join(work, "single/elf")), { code: "KERNEL_EXISTS", hint: /kernel delete elf/ });
});

test("modules come along, with what they depend on known and what they link to left out", async () => {
  const path = await put("folder/vmlinux", elfKernel({ release }));
  const modules = join(work, "folder/lib/modules", release);
  await put(
    `folder/lib/modules/${release}/modules.builtin`,
    builtIn.map((name) => `kernel/${name.toLowerCase().replace("overlay_fs", "overlay")}.ko`).join("\n"),
  );
  await put(`folder/lib/modules/${release}/modules.order`, "");
  await symlink("/usr/src/nowhere", join(modules, "build"));
  await put(`folder/lib/modules/${release}/kernel/extra/readme`, "not a module");
  for (const [name, from, given] of [
    ["whole", join(work, "folder"), undefined],
    ["apart", path, join(work, "folder")],
    ["named", path, modules],
  ] as const) {
    await importAs(name, from, given);
    const names = (await listTree(kernelFiles(name).modules, work)).map((entry) => entry.path);
    assert.ok(
      names.includes("modules.dep") && names.includes("modules.dep.bin") && names.includes("kernel/extra/readme"),
    );
    assert.ok(!names.includes("build"));
    await assertClean(kernelFiles(name).modules);
  }
  assert.deepEqual(
    (await readdir(modules)).sort(),
    ["build", "kernel", "modules.builtin", "modules.order"],
    "as it was",
  );
});

test("what is no kernel, or none that can boot, is refused with the reason, and nothing stays", async () => {
  const cases: [string, Buffer | string, RegExp][] = [
    ["text", "not a kernel at all", /is no kernel: neither a bzImage nor an ELF file/],
    ["empty", "", /is no kernel/],
    ["arm", Buffer.from(complete).fill(183, 18, 19), /not for x86-64/],
    ["no-pvh", elfKernel({ note: 1, release, config }), /no entry point for a direct boot/],
    ["no-release", elfKernel({ config }), /does not tell its release/],
    [
      "modular",
      elfKernel({ release, config: config.slice(2) }),
      /CONFIG_BLK_DEV_INITRD, CONFIG_DEVTMPFS is not built in/,
    ],
    ["torn", bzImageOf(gzipSync(complete).subarray(0, 60)), /damaged/],
  ];
  for (const [name, content, message] of cases) {
    const path = await put(`bad/${name}`, content);
    await assert.rejects(importAs("bad", path), { code: "KERNEL_CORRUPT", message }, name);
  }
  const good = await put("good", complete);
  await assert.rejects(importAs("bad", join(work, "nowhere")), { code: "FILE_NOT_FOUND" });
  await assert.rejects(importAs("bad", join(work, "bad")), {
    code: "KERNEL_CORRUPT",
    message: /holds no file vmlinux/,
  });
  await put("two/vmlinuz-1", complete);
  await put("two/vmlinuz-2", complete);
  await assert.rejects(importAs("bad", join(work, "two")), { message: /several kernels, vmlinuz-1 and vmlinuz-2/ });
  await assert.rejects(importAs("bad", good, join(work, "bad")), { message: /no modules of the kernel 6.9.0-test/ });
  await assert.rejects(kernels().show("bad"), { code: "KERNEL_NOT_FOUND" });
  assert.deepEqual(await readdir(stagingFolder()), []);
});

test("a kernel goes through a bundle and a catalog of the user's own, and comes out the same", async () => {
  await importAs("origin", await put("origin", complete));
  const folder = join(work, "bundles");
  await mkdir(folder);
  const { path, entry } = await kernels().export("origin", folder, silentProgress());
  const catalog = await put(
    "catalog.json",
    JSON.stringify({ version: 1, kernels: [{ ...entry, name: "copy", description: "from a bundle" }] }),
  );
  const service = kernels([catalog]);
  assert.ok((await service.available()).some(({ name, installed }) => name === "copy" && !installed));
  const pulled = await service.pull({ name: "copy" }, silentProgress());
  assert.deepEqual(
    [pulled.description, pulled.source.type, pulled.digest],
    ["from a bundle", "bundle", (await service.show("origin")).digest],
  );
  await service.verify("copy");
  assert.equal((await importAs("by-hand", path)).digest, pulled.digest);
  // The same name as a shipped one: the user's counts.
  const override = await put(
    "override.json",
    JSON.stringify({ version: 1, kernels: [{ ...entry, name: "debian-bookworm-cloud" }] }),
  );
  const mine = await kernels([override]).pull({ name: "debian-bookworm-cloud" }, silentProgress());
  assert.equal(mine.source.type, "bundle");
});

test("sources are tried in order, and when none will do each is named", async () => {
  const folder = join(work, "sources");
  await mkdir(folder);
  const { entry } = await kernels().export("origin", folder, silentProgress());
  const [good] = entry.sources;
  assert.ok(good?.type === "bundle");
  const gone = { ...good, url: pathToFileURL(join(work, `gone-${good.sha256}.tar.zst`)).href };
  const catalogWith = (name: string, sources: unknown[]) =>
    put(`${name}.json`, JSON.stringify({ version: 1, kernels: [{ name, description: "", sources }] }));
  await kernels([await catalogWith("second", [gone, good])]).pull({ name: "second" }, silentProgress());
  await assert.rejects(
    kernels([await catalogWith("neither", [gone, gone])]).pull({ name: "neither" }, silentProgress()),
    {
      code: "DOWNLOAD_FAILED",
      message: /none of 2 sources would do: .*gone-.*; .*gone-/,
    },
  );
});

test("a bundle whose manifest lies is refused", async () => {
  const { folder, vmlinux } = kernelFiles("origin");
  const manifest = JSON.parse(await readFile(join(folder, "manifest.json"), "utf8"));
  const names = ["vmlinux", "modules.ext4", "boot-modules/order"];
  const whole = names.map((name) => ({ name, path: join(folder, name) }));
  const other = await put("other-vmlinux", Buffer.concat([await readFile(vmlinux), Buffer.from("x")]));
  const cases: [string, object, typeof whole, RegExp][] = [
    ["lacking", manifest, whole.slice(1), /lacks vmlinux/],
    [
      "changed",
      manifest,
      [{ name: "vmlinux", path: other }, ...whole.slice(1)],
      /vmlinux is not what its manifest describes/,
    ],
    ["digest", { ...manifest, digest: "0".repeat(64) }, whole, /contradicts itself/],
    ["version", { ...manifest, version: 2 }, whole, /manifest cannot be read/],
    ["foreign", manifest, [...whole, { name: "etc/passwd", path: other }], /does not belong there/],
  ];
  for (const [name, content, files, message] of cases) {
    const manifestFile = await put(`lies/${name}.json`, JSON.stringify(content));
    const packed = await packBundle(
      [{ name: "manifest.json", path: manifestFile }, ...files],
      work,
      name,
      silentProgress(),
    );
    await assert.rejects(importAs("lie", packed.path), { code: "BUNDLE_INVALID", message }, name);
  }
  assert.deepEqual(await readdir(stagingFolder()), []);
});

test("a catalog that cannot be used is named with what is wrong in it", async () => {
  const cases: [string, RegExp][] = [
    ["{", /catalog-bad.json cannot be used: .*JSON/],
    ['{"version": 2}', /version/],
    ['{"version": 1, "kernels": [{"name": "A B", "description": "", "sources": []}]}', /kernels\[0\]\.(name|sources)/],
    [
      '{"version": 1, "kernels": [{"name": "a", "description": "", "sources": [{"type": "magic"}]}]}',
      /kernels\[0\]\.sources\[0\]/,
    ],
  ];
  for (const [text, message] of cases) {
    const path = await put("catalog-bad.json", text);
    await assert.rejects(kernels([path]).available(), (error) => {
      assert.ok(error instanceof BangerError);
      assert.equal(error.code, "CATALOG_INVALID");
      assert.match(error.message, message);
      assert.match(error.hint ?? "", /config.toml/);
      return true;
    });
  }
  await assert.rejects(kernels([join(work, "nowhere.json")]).available(), {
    code: "CATALOG_INVALID",
    message: /no such file/,
  });
});
