import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { type FileServer, fileServer } from "../../../test/support/file-server.ts";
import { tar } from "../../../test/support/tar-builder.ts";
import { silentProgress } from "../../contract/progress.ts";
import { addNpmPackages } from "./npm-packages.ts";

/** npm itself, with a registry of ours. */
let server: FileServer;
let work: string;
before(async () => {
  server = await fileServer();
  work = await mkdtemp(join(tmpdir(), "banger-npm-"));
  process.env.XDG_CACHE_HOME = work;
  process.env.npm_config_registry = server.url("/");
  process.env.npm_config_fetch_retries = "0";
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await rm(work, { recursive: true });
});

const archive = gzipSync(
  tar([
    { name: "package/package.json", data: '{"name":"demo","version":"1.0.0"}' },
    { name: "package/bin/demo", mode: 0o755, data: "#!/bin/sh\necho demo\n" },
    { name: "package/../../evil", data: "evil" },
  ]),
);
const integrity = `sha512-${createHash("sha512").update(archive).digest("base64")}`;

const serve = (): void => {
  const dist = { tarball: server.url("/demo-1.0.0.tgz"), integrity };
  const versions = { "1.0.0": { name: "demo", version: "1.0.0", dist } };
  server.files.set("/demo", {
    body: Buffer.from(JSON.stringify({ name: "demo", versions, "dist-tags": { latest: "1.0.0" } })),
  });
  server.files.set("/demo-1.0.0.tgz", { body: archive });
};

const demo = { name: "demo", version: "1.0.0", integrity, files: { "bin/demo": "usr/local/bin/demo" } };
let targets = 0;
const add = async (one: Parameters<typeof addNpmPackages>[0][number]): Promise<string> => {
  const target = join(work, `target-${targets++}`);
  await addNpmPackages([one], target, silentProgress());
  return target;
};

test("a program comes out of its package, once fetched for all images", async () => {
  serve();
  for (const isCached of [false, true]) {
    server.requests.length = 0;
    const target = await add(demo);
    assert.deepEqual(await readdir(target, { recursive: true }), [
      "usr",
      "usr/local",
      "usr/local/bin",
      "usr/local/bin/demo",
    ]);
    assert.equal(await readFile(join(target, "usr/local/bin/demo"), "utf8"), "#!/bin/sh\necho demo\n");
    assert.equal((await stat(join(target, "usr/local/bin/demo"))).mode & 0o777, 0o755);
    assert.equal(server.requests.length === 0, isCached);
  }
  const [cached = ""] = await readdir(join(work, "banger", "npm"));
  await writeFile(join(work, "banger", "npm", cached), "damaged");
  await add(demo);
  assert.deepEqual(
    await readdir(join(work, "banger", "npm")),
    [cached],
    "what was damaged is fetched anew, and nothing else stays",
  );
});

test("what is not what the recipe pins, or not there, is named", async () => {
  serve();
  const other = `sha512-${Buffer.alloc(64).toString("base64")}`;
  await assert.rejects(add({ ...demo, integrity: other }), {
    code: "DOWNLOAD_FAILED",
    message: /npm package demo 1.0.0 could not be had: what came has another digest/,
  });
  await assert.rejects(add({ ...demo, version: "2.0.0", integrity: other }), {
    code: "DOWNLOAD_FAILED",
    hint: /npm config get registry/,
  });
  await assert.rejects(add({ ...demo, files: { "bin/other": "usr/local/bin/other" } }), {
    code: "DOWNLOAD_FAILED",
    message: /holds no bin\/other/,
  });
  server.files.clear();
  await assert.rejects(add({ ...demo, integrity: other }), { code: "DOWNLOAD_FAILED" });
});
