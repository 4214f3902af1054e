/** The clean-up of the folder that an earlier layout used for its ssh_config, by a real daemon at its start. */
import assert from "node:assert/strict";
import { chmod, chown, lstat, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { cleanLegacySsh } from "../../src/daemon/ssh/legacy.ts";
import { type Host, testHost } from "../support/host.ts";

let host: Host;
let config: string;
let legacy: string;

before(async () => {
  host = await testHost("");
  config = join(host.env.XDG_CONFIG_HOME, "banger");
  legacy = join(config, "ssh");
});
beforeEach(async () => {
  await mkdir(legacy, { mode: 0o700 });
  await writeFile(join(legacy, "ssh_config"), "Host *.vm\n");
});
afterEach(async () => {
  await rm(config, { recursive: true });
  await rm(join(host.env.HOME, "keys"), { recursive: true, force: true });
  await mkdir(config);
});
after(() => host[Symbol.asyncDispose]());

/** @returns the end of `banger daemon start` with these settings; the daemon is gone again */
const startDaemon = async (text: string) => {
  await writeFile(join(config, "config.toml"), text);
  const done = await host.banger("daemon", "start");
  await host.banger("daemon", "stop");
  return done;
};
const namesIn = async (folder: string) => (await readdir(folder)).sort();

describe("the user's key lies there", () => {
  const keyThere = async (setting: string) => {
    await writeFile(join(legacy, "id_ed25519"), "the user's\n");
    const done = await startDaemon(`ssh_key_path = "${setting}"\n`);
    assert.equal(done.status, 0, done.stderr);
    assert.deepEqual(await namesIn(legacy), ["id_ed25519", "ssh_config"]);
    assert.equal(await readFile(join(legacy, "id_ed25519"), "utf8"), "the user's\n");
  };

  test("a user key under the legacy folder survives, and all that is there with it", () =>
    keyThere(join(legacy, "id_ed25519")));

  test("written with ~", async () => {
    // As with the default folder of settings, which lies in HOME.
    await symlink(config, join(host.env.HOME, "banger-config"));
    await keyThere("~/banger-config/ssh/id_ed25519");
    await rm(join(host.env.HOME, "banger-config"));
  });

  test("reached through a link, or not made yet", async () => {
    await symlink(legacy, join(host.env.HOME, "keys"));
    await keyThere(join(host.env.HOME, "keys", "id_ed25519"));
    const done = await startDaemon(`ssh_key_path = "${host.env.HOME}/keys/new/id"\n`);
    assert.equal(done.status, 0, done.stderr);
    assert.deepEqual(await namesIn(legacy), ["id_ed25519", "ssh_config"]);
  });
});

test("the folder goes when the user has moved on", async () => {
  assert.equal((await startDaemon("")).status, 0);
  assert.deepEqual(await namesIn(config), ["config.toml", "ssh_config"]);
});

test("a sibling file that is not ours is preserved", async () => {
  await writeFile(join(legacy, "id_rsa"), "another key\n");
  assert.equal((await startDaemon("")).status, 0);
  assert.deepEqual(await namesIn(legacy), ["id_rsa"]);
  assert.equal(await readFile(join(legacy, "id_rsa"), "utf8"), "another key\n");
});

test("a folder that is a link is not followed", async () => {
  await rm(legacy, { recursive: true });
  const keys = join(host.env.HOME, "keys");
  await mkdir(keys);
  await writeFile(join(keys, "ssh_config"), "the user's\n");
  await symlink(keys, legacy);
  assert.equal((await startDaemon("")).status, 0);
  assert.ok((await lstat(legacy)).isSymbolicLink());
  assert.equal(await readFile(join(keys, "ssh_config"), "utf8"), "the user's\n");
});

test("an ssh_config that is a link or a folder is not the one that we wrote", async () => {
  await rm(join(legacy, "ssh_config"));
  await symlink("/etc/hosts", join(legacy, "ssh_config"));
  assert.equal((await startDaemon("")).status, 0);
  assert.deepEqual(await namesIn(legacy), ["ssh_config"]);
  await rm(join(legacy, "ssh_config"));
  await mkdir(join(legacy, "ssh_config"));
  assert.equal((await startDaemon("")).status, 0);
  assert.deepEqual(await namesIn(legacy), ["ssh_config"]);
});

test("a relative key path is refused, and nothing is touched", async () => {
  const done = await startDaemon('ssh_key_path = "ssh/id_ed25519"\n');
  assert.equal(done.status, 1);
  assert.match(done.stderr, /config\.toml line 1: `ssh_key_path` must be an absolute path or start with ~\//);
  assert.deepEqual(await namesIn(legacy), ["ssh_config"]);
});

test("a folder that cannot be read is left alone, and nothing is thrown", async () => {
  const nobody = 65534;
  const root = process.geteuid?.() === 0;
  // Outside of the host's folders, which nobody may look into.
  const outside = await mkdtemp(join(tmpdir(), "banger-legacy-"));
  const paths = { folder: join(outside, "ssh"), config: join(outside, "ssh", "ssh_config") };
  await mkdir(paths.folder);
  await writeFile(paths.config, "Host *.vm\n");
  if (root) for (const path of [outside, paths.folder, paths.config]) await chown(path, nobody, nobody);
  const clean = async () => {
    // Nothing is unreadable for root, so root becomes somebody else for this.
    if (root) process.seteuid?.(nobody);
    try {
      return await cleanLegacySsh("/somewhere/else/id", paths);
    } finally {
      if (root) process.seteuid?.(0);
    }
  };
  try {
    await chmod(paths.folder, 0o000);
    assert.deepEqual(await clean(), []);
    await chmod(paths.folder, 0o700);
    assert.deepEqual(await readdir(paths.folder), ["ssh_config"]);
    assert.deepEqual(await clean(), [paths.config, paths.folder]);
  } finally {
    await rm(outside, { recursive: true });
  }
});
