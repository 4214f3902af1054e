/** The scripts for manual work, as far as they are quick; scripts/publish-kernel.sh is tested with its kernel, in test/e2e/kernels.test.ts. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import type { ImageCatalogEntry, ImageInfo } from "../../src/contract/images.ts";
import { lackingOptions } from "../../src/daemon/kernels/kernel-facts.ts";
import { elfKernel } from "../support/elf-kernel.ts";
import { bangerBinary, type Host, testHost } from "../support/host.ts";
import { tar } from "../support/tar-builder.ts";

const scripts = join(import.meta.dirname, "../../scripts");
const run = promisify(execFile);
type Failed = { code: number; stderr: string };
const failing = (program: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<Failed> =>
  run(join(scripts, program), args, { env }).then(
    () => assert.fail(`${program} ${args.join(" ")} succeeded`),
    (error: Failed) => error,
  );

let host: Host;
let folder: string;
before(async () => {
  host = await testHost("");
  folder = await mkdtemp(join(tmpdir(), "banger-scripts-"));
});
after(async () => {
  await host[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

test("publish-golden-image.sh makes a bundle that another user's banger installs from the entry it prints", async () => {
  const archive = join(folder, "rootfs.tar");
  await writeFile(archive, tar([{ name: "etc/hostname", data: "golden" }]));
  assert.equal((await host.banger("image", "import", archive, "--name", "tiny")).status, 0);
  const env = { ...process.env, ...host.env, BANGER: bangerBinary };
  const bundles = join(folder, "bundles");
  const script = join(scripts, "publish-golden-image.sh");
  const { stdout } = await run(script, [bundles, "https://example.org/images", "tiny"], { env });
  const entry: ImageCatalogEntry = JSON.parse(stdout);
  const [source] = entry.sources;
  assert.ok(source?.type === "bundle");
  assert.deepEqual(await readdir(bundles), [`tiny-${source.sha256}.tar.zst`]);
  assert.equal(source.url, `https://example.org/images/tiny-${source.sha256}.tar.zst`);

  const catalog = join(folder, "catalog.json");
  const here = { ...source, url: `file://${bundles}/tiny-${source.sha256}.tar.zst` };
  await writeFile(catalog, JSON.stringify({ version: 1, images: [{ ...entry, sources: [here] }] }));
  await using other = await testHost(`catalogs = ["${catalog}"]\n`);
  assert.equal((await other.banger("image", "pull", "tiny")).status, 0);
  const digests = [host, other].map(async (one) => (await one.json<ImageInfo>("image", "show", "tiny")).digest);
  const [packed, pulled] = await Promise.all(digests);
  assert.equal(pulled, packed);

  const unknown = await failing("publish-golden-image.sh", [bundles, "", "no-such"], env);
  assert.deepEqual([unknown.code, /there is no image "no-such"/.test(unknown.stderr)], [1, true]);
  assert.match((await run(script, ["--help"])).stdout, /DIR is where the bundle goes/);
});

test("the small kernel's configuration has built in what banger asks of a kernel without modules, and no modules", async () => {
  const lines = (await readFile(join(scripts, "generic-kernel.config"), "utf8")).split("\n");
  assert.deepEqual(await lackingOptions(elfKernel({ config: lines })), []);
  for (const line of lines) assert.match(line, /^(?:#.*|CONFIG_\w+=(?:[yn]|\d+|0x[0-9a-f]+|"[^"]*"))?$/);
  for (const needed of ["CONFIG_PVH=y", "CONFIG_IKCONFIG=y"]) assert.ok(lines.includes(needed), needed);
});

test("make-generic-kernel.sh replaces nothing but a kernel of its own, and says what it did not understand", async () => {
  const script = "make-generic-kernel.sh";
  const kept = join(folder, "kept");
  await mkdir(kept);
  await writeFile(join(kept, "letter"), "dear");
  await symlink(kept, join(folder, "link"));
  for (const output of [kept, join(folder, "link"), join(kept, "letter")]) {
    const { code, stderr } = await failing(script, ["--output", output]);
    assert.deepEqual([code, /is no kernel that this script has made: name a new folder/.test(stderr)], [2, true]);
  }
  assert.equal(await readFile(join(kept, "letter"), "utf8"), "dear");
  const wrong = await failing(script, ["--outptu", kept]);
  assert.deepEqual([wrong.code, /unknown argument: --outptu/.test(wrong.stderr)], [2, true]);
  assert.match((await run(join(scripts, script), ["--help"])).stdout, /make-generic-kernel\.sh \[--package/);
});
