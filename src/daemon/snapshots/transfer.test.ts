import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { zstdCompressSync } from "node:zlib";
import { BangerError } from "../../contract/errors.ts";
import { silentProgress } from "../../contract/progress.ts";
import { savedFiles } from "../../host/paths.ts";
import { digestOf, recordOf, type SavedManifest, verifySaved } from "../saved/saved.ts";
import { exportSaved, importSaved } from "./transfer.ts";

const run = promisify(execFile);
const MEMORY = 64 * 2 ** 20;
const DISK = 2 ** 27;

const withFolder = async (work: (folder: string) => Promise<void>) => {
  const folder = await mkdtemp(join(tmpdir(), "banger-transfer-"));
  try {
    await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
};

/** A saved machine of the right form: a few blocks in files of holes. */
const savedMachine = async (folder: string): Promise<SavedManifest> => {
  await mkdir(folder);
  const files = savedFiles(folder);
  await writeFile(files.state, randomBytes(5000));
  for (const [path, size] of [
    [files.memory, MEMORY],
    [files.disk, DISK],
  ] as const) {
    await writeFile(path, "");
    await truncate(path, size);
    await using file = await open(path, "r+");
    for (const at of [0, size / 2, size - 4096]) await file.write(randomBytes(4096), 0, 4096, at);
  }
  const manifest: SavedManifest = {
    version: 1,
    signature: "s",
    vmm: "qemu",
    shape: { image: "i", kernel: "k", vcpu: 1, memory: MEMORY, diskSize: DISK, network: "none", nested: false },
    vm: { name: "box", env: { A: "b" }, labels: {} },
    imageDigest: "d",
    kernelDigest: "d",
    files: {
      state: { ...(await recordOf(files.state)), sha256: await digestOf(files.state) },
      memory: await recordOf(files.memory),
      disk: await recordOf(files.disk),
    },
    createdAt: 1,
  };
  await writeFile(files.manifest, JSON.stringify(manifest));
  return manifest;
};

const hasCode = (code: string, message?: RegExp) => (error: unknown) =>
  error instanceof BangerError && error.code === code && (message === undefined || message.test(error.message));

const importFrom = async (archive: string, folder: string) => {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder);
  return await importSaved(archive, folder, silentProgress());
};

test("what was exported is the same machine once it is imported, holes as holes", () =>
  withFolder(async (folder) => {
    const [from, to] = [savedFiles(join(folder, "from")), savedFiles(join(folder, "to"))];
    const manifest = await savedMachine(from.folder);
    const archive = join(folder, "x.tar.zst");
    const { size } = await exportSaved(from, manifest, archive, silentProgress());
    assert.ok(size < 200_000, `${size} bytes`);
    assert.equal((await stat(archive)).mode & 0o777, 0o600);
    const imported = await importFrom(archive, to.folder);
    await verifySaved(to, imported);
    for (const name of ["state", "memory", "disk"] as const)
      assert.equal((await run("cmp", [from[name], to[name]])).stdout, "");
    assert.ok((await stat(to.disk)).blocks * 512 < 2 ** 20);
    assert.deepEqual({ ...imported, files: undefined }, { ...manifest, files: undefined });
    assert.deepEqual(JSON.parse(await readFile(to.manifest, "utf8")), imported);
  }));

test("a file of the user's is never written over, and an export that fails leaves nothing", () =>
  withFolder(async (folder) => {
    const from = savedFiles(join(folder, "from"));
    const manifest = await savedMachine(from.folder);
    await writeFile(join(folder, "mine"), "mine");
    await assert.rejects(exportSaved(from, manifest, join(folder, "mine"), silentProgress()), hasCode("FILE_REFUSED"));
    await assert.rejects(
      exportSaved(from, manifest, join(folder, "no", "x"), silentProgress()),
      hasCode("FILE_NOT_FOUND"),
    );
    await rm(from.memory);
    await assert.rejects(exportSaved(from, manifest, join(folder, "x"), silentProgress()));
    assert.deepEqual((await readdir(folder)).sort(), ["from", "mine"]);
  }));

test("an archive that is not exactly a saved machine is refused", () =>
  withFolder(async (folder) => {
    const from = savedFiles(join(folder, "from"));
    const manifest = await savedMachine(from.folder);
    const archive = join(folder, "x.tar.zst");
    const pack = async () => {
      await rm(archive, { force: true });
      await exportSaved(from, manifest, archive, silentProgress());
    };
    const refused = async (message: RegExp) =>
      assert.rejects(importFrom(archive, join(folder, "to")), hasCode("SAVED_CORRUPT", message));
    await writeFile(archive, "no archive at all");
    await refused(/no snapshot/);
    await pack();
    await truncate(archive, Math.floor((await stat(archive)).size / 2));
    await refused(/no snapshot/);
    await writeFile(from.state, randomBytes(5000));
    await pack();
    await refused(/its state is not what was saved/);
    await writeFile(from.manifest, "{}");
    await pack();
    await refused(/manifest/);
    await savedMachine(join(folder, "other"));
    const other = savedFiles(join(folder, "other"));
    await truncate(other.memory, MEMORY * 2);
    await exportSaved(other, manifest, join(folder, "y"), silentProgress());
    await assert.rejects(importFrom(join(folder, "y"), join(folder, "to")), hasCode("SAVED_CORRUPT", /its memory has/));
    await writeFile(join(folder, "extra"), "x");
    const { stdout } = await run("tar", ["-cf", "-", "-C", folder, "extra"], { encoding: "buffer" });
    await writeFile(join(folder, "z"), zstdCompressSync(stdout));
    await assert.rejects(importFrom(join(folder, "z"), join(folder, "to")), hasCode("SAVED_CORRUPT", /extra/));
    await assert.rejects(importFrom(join(folder, "none"), join(folder, "to")), hasCode("FILE_NOT_FOUND"));
  }));
