import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { type ImageManifest, imageCatalogSchema } from "../../contract/images.ts";
import { kernelCatalogSchema } from "../../contract/kernels.ts";
import { silentProgress } from "../../contract/progress.ts";
import { sha256OfFile } from "../../host/digest.ts";
import { catalogFile, imageFiles, recipesFolder, stagingFolder } from "../../host/paths.ts";
import { runTool } from "../../host/process.ts";
import { processStartTime } from "../../host/proc.ts";
import { kernelService } from "../kernels/service.ts";
import { entryOf } from "../artifacts/bundle.ts";
import { cleanStaging, stagingTree } from "../artifacts/staging.ts";
import { packImage } from "./bundle.ts";
import { loadRecipe, uuidOf } from "./recipe.ts";
import { imageService } from "./service.ts";

before(async () => {
  process.env.XDG_STATE_HOME = await mkdtemp(join(tmpdir(), "banger-images-"));
  process.env.XDG_CACHE_HOME = join(process.env.XDG_STATE_HOME, "cache");
});
after(() => rm(process.env.XDG_STATE_HOME ?? "", { recursive: true }));

/** An installed image with a real, empty ext4. */
const install = async (name: string): Promise<string> => {
  const { folder, rootfs, manifest } = imageFiles(name);
  await mkdir(folder, { recursive: true });
  await runTool({ argv: ["mkfs.ext4", "-q", "-O", "^has_journal", rootfs, "2m"] });
  const content: ImageManifest = {
    version: 1,
    name,
    description: "for a test",
    rootfs: { size: 2 << 20, sha256: await sha256OfFile(rootfs), uuid: uuidOf("0".repeat(64)) },
    source: { type: "debian-recipe", recipe: "slim" },
    recipeDigest: "0".repeat(64),
    init: null,
    boot: { env: {}, user: "root", workdir: "/", entrypoint: [], command: [] },
    packages: [{ name: "base-files", version: "12" }],
    createdAt: 1,
  };
  await writeFile(manifest, JSON.stringify(content));
  return rootfs;
};

test("what is installed is what the folder holds", async () => {
  const images = imageService();
  await install("one");
  assert.deepEqual(
    (await images.list()).map(({ name, size, packages }) => [name, size, packages]),
    [["one", 2 << 20, 1]],
  );
  assert.equal((await images.ensure("one", silentProgress())).rootfs, imageFiles("one").rootfs);
  await rm(imageFiles("one").folder, { recursive: true });
  assert.deepEqual(await images.list(), []);
});

test("a truncated, overwritten or missing root file system is found before a boot", async () => {
  const images = imageService();
  const rootfs = await install("bad");
  await images.verify("bad");
  await images.verifyDigest("bad", silentProgress());
  const hint = "get it anew: banger image delete bad && banger image pull bad";
  await writeFile(rootfs, "x", { flag: "r+" });
  await images.verify("bad");
  await assert.rejects(images.verifyDigest("bad", silentProgress()), { code: "IMAGE_CORRUPT", hint });
  await writeFile(rootfs, Buffer.alloc(2 << 20));
  await assert.rejects(images.verify("bad"), { code: "IMAGE_CORRUPT", hint, message: /no ext4/ });
  await truncate(rootfs, 1 << 20);
  await assert.rejects(images.verify("bad"), {
    code: "IMAGE_CORRUPT",
    hint,
    message: /1048576 bytes in place of 2097152/,
  });
  await rm(rootfs);
  await assert.rejects(images.verify("bad"), { code: "IMAGE_CORRUPT", hint, message: /missing/ });
  await images.delete("bad", () => []);
});

test("a damaged manifest is named, hides no other image, and can be deleted", async () => {
  const images = imageService();
  await install("sound");
  await install("torn");
  await writeFile(imageFiles("torn").manifest, '{"version": 1');
  assert.deepEqual(
    (await images.list()).map(({ name }) => name),
    ["sound"],
  );
  await assert.rejects(images.ensure("torn", silentProgress()), { code: "IMAGE_CORRUPT", hint: /image delete torn/ });
  await images.delete("torn", () => []);
  await images.delete("sound", () => []);
  assert.deepEqual(await readdir(dirname(imageFiles("torn").folder)), []);
});

test("an image in use is not deleted, and the VMs are named", async () => {
  const images = imageService();
  await install("used");
  await assert.rejects(
    images.delete("used", () => ["box", "cat"]),
    { code: "IMAGE_IN_USE", message: /box, cat/ },
  );
  await images.verify("used");
  await images.delete("used", () => []);
  await assert.rejects(
    images.delete("used", () => []),
    { code: "IMAGE_NOT_FOUND" },
  );
  assert.deepEqual(await readdir(stagingFolder()), []);
});

test("an unknown name gets the nearest one as a hint", async () => {
  const images = imageService();
  for (const ask of [
    () => images.show("debian-bokworm"),
    () => images.pull({ name: "debian-bokworm" }, () => [], silentProgress()),
  ]) {
    await assert.rejects(ask, {
      code: "IMAGE_NOT_FOUND",
      hint: /did you mean debian-bookworm\? see `banger image list/,
    });
  }
  const kernels = kernelService();
  await assert.rejects(kernels.show("debian-bookworm-clud"), {
    code: "KERNEL_NOT_FOUND",
    hint: /debian-bookworm-cloud/,
  });
  await assert.rejects(kernels.delete("nothing-like-it", []), {
    code: "KERNEL_NOT_FOUND",
    hint: "see `banger kernel list`",
  });
});

test("the catalogs are valid, their recipes exist, and no file names a mirror", async () => {
  const images = imageCatalogSchema.parse(JSON.parse(await readFile(catalogFile("images"), "utf8")));
  kernelCatalogSchema.parse(JSON.parse(await readFile(catalogFile("kernels"), "utf8")));
  for (const source of images.images.flatMap(({ sources }) => sources)) {
    if (source.type === "debian-recipe") assert.match((await loadRecipe(source.recipe)).digest, /^[0-9a-f]{64}$/);
    if (source.type === "oci") assert.match(source.reference, /@sha256:[0-9a-f]{64}$/);
  }
  const offered = await imageService().available();
  assert.deepEqual(
    offered.map(({ name }) => name),
    images.images.map(({ name }) => name),
  );
  const folders = [recipesFolder(), dirname(catalogFile("images"))];
  for (const folder of folders) {
    for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      assert.doesNotMatch(await readFile(join(entry.parentPath, entry.name), "utf8"), /https?:\/\//, entry.name);
    }
  }
});

test("an image goes through a bundle and a catalog of the user's own, and comes out the same", async () => {
  await using staging = await stagingTree("image");
  const rootfs = await install("packed");
  const { manifest } = imageFiles("packed");
  const described: ImageManifest = JSON.parse(await readFile(manifest, "utf8"));
  const container: ImageManifest = { ...described, source: { type: "oci", reference: "a:1", digest: "sha256:0" } };
  for (const [name, content, isContainer] of [
    ["unpacked", described, false],
    ["container", container, true],
  ] as const) {
    const bundle = await packImage(content, rootfs, staging.path, staging.path, silentProgress());
    const catalog = join(staging.path, `${name}.json`);
    const entry = entryOf({ name, description: "from a bundle" }, bundle);
    await writeFile(catalog, JSON.stringify({ version: 1, images: [entry] }));
    const images = imageService({ catalogs: [catalog] });
    const { digest, description } = await images.pull({ name: name }, () => [], silentProgress());
    assert.deepEqual([digest, description], [described.rootfs.sha256, "from a bundle"]);
    await images.verifyDigest(name, silentProgress());
    assert.equal((await images.ensure(name, silentProgress())).isContainer, isContainer);
  }
  const lie: ImageManifest = { ...described, rootfs: { ...described.rootfs, sha256: "0".repeat(64) } };
  const bundle = await packImage(lie, rootfs, staging.path, staging.path, silentProgress());
  const catalog = join(staging.path, "lie.json");
  await writeFile(catalog, JSON.stringify({ version: 1, images: [entryOf({ name: "lie", description: "" }, bundle)] }));
  await assert.rejects(
    imageService({ catalogs: [catalog] }).pull({ name: "lie" }, () => [], silentProgress()),
    {
      code: "BUNDLE_INVALID",
      message: /not the one that its manifest describes/,
    },
  );
});

test("a catalog with an unknown key or a wrong type is refused", () => {
  const entry = { name: "a", description: "b", sources: [{ type: "debian-recipe", recipe: "slim" }] };
  imageCatalogSchema.parse({ version: 1, images: [entry] });
  for (const bad of [
    { ...entry, more: 1 },
    { ...entry, sources: [] },
    { ...entry, sources: [{ type: "debian-recipe", recipe: "../x" }] },
    { ...entry, sources: [{ type: "other" }] },
  ]) {
    assert.throws(() => imageCatalogSchema.parse({ version: 1, images: [bad] }));
  }
});

test("staging of dead processes is removed, that of living ones stays", async () => {
  await using mine = await stagingTree("image");
  const dead = join(stagingFolder(), "image-4194303-1-00000000");
  const reused = join(stagingFolder(), `image-${process.pid}-1-00000000`);
  for (const folder of [dead, reused]) {
    await mkdir(join(folder, "locked"), { recursive: true });
    await writeFile(join(folder, "locked/file"), "x");
    await chmod(join(folder, "locked/file"), 0);
  }
  assert.notEqual(await processStartTime(process.pid), "1");
  assert.deepEqual((await cleanStaging()).sort(), [dead, reused].map((path) => path.split("/").at(-1)).sort());
  assert.deepEqual(await readdir(stagingFolder()), [mine.path.split("/").at(-1)]);
});

test("a name that is a path is no image: nothing outside is looked at or removed", async () => {
  const images = imageService();
  const outside = join(imageFiles("x").folder, "../../ssh");
  await mkdir(outside, { recursive: true });
  await writeFile(join(outside, "id_ed25519"), "somebody's key");
  for (const name of ["../ssh", "..", ".", "", "/a/b", "a//b", "a/../b"]) {
    await assert.rejects(
      images.delete(name, () => []),
      { code: "IMAGE_NOT_FOUND" },
    );
    await assert.rejects(images.ensure(name, silentProgress()), { code: "IMAGE_NOT_FOUND" });
    await assert.rejects(kernelService().delete(name, []), { code: "KERNEL_NOT_FOUND" });
  }
  assert.deepEqual(await readdir(outside), ["id_ed25519"]);
});
