/** The first `vm run` of an image that is not there: pulled on the way, and cut off at any moment without a trace. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { folderHolds, outputHolds } from "../support/wait.ts";

const SLIM = "debian-bookworm-slim";
let host: Host;

before(async () => {
  host = await testHost(`default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "256M"\n`);
  await installFixture(host, []);
});
after(() => host[Symbol.asyncDispose]());

const staging = () => readdir(join(host.env.XDG_STATE_HOME, "banger", "staging"));
const builders = async () =>
  (await host.processes()).filter(({ command }) => /mmdebstrap|unshare|apt-get|mkfs/.test(command));

test("without mmdebstrap the error says what to install", async () => {
  const folder = await mkdtemp(join(host.env.HOME, "path-"));
  for (const name of await readdir("/usr/bin")) {
    if (name !== "mmdebstrap") await symlink(join("/usr/bin", name), join(folder, name));
  }
  const done = await host.run(["image", "pull", SLIM], { env: { PATH: folder } });
  assert.equal(done.status, 1);
  assert.match(done.stderr, /`mmdebstrap` is not installed[\s\S]*apt-get install -y mmdebstrap/);
  await host.banger("daemon", "stop");
});

for (const stage of ["package lists", "download", "install"]) {
  test(`Ctrl-C in the stage "${stage}" of a pull leaves nothing half-made`, async () => {
    await mkdir(join(host.env.XDG_STATE_HOME, "banger", "staging"), { recursive: true });
    const child = host.start(["vm", "run", "--rm", "--", "true"]);
    const ended = new Promise((resolve) => child.once("exit", resolve));
    await outputHolds(child, `${stage}:`, 120_000);
    child.kill("SIGINT");
    assert.equal(await ended, 130);
    await folderHolds(join(host.env.XDG_STATE_HOME, "banger"), async () => (await staging()).length === 0);
    assert.deepEqual(await builders(), []);
    assert.deepEqual(await host.json("image", "list"), []);
    assert.deepEqual(await host.json("vm", "list"), []);
  });
}

test("the next run goes on, shows its stages as plain lines, and runs the command", async () => {
  const done = await host.run(["vm", "run", "--rm", "--", "cat", "/etc/debian_version"], { timeout: 300_000 });
  assert.equal(done.status, 0, done.stderr);
  assert.match(done.stdout, /^12\.\d+\n$/);
  assert.match(done.stderr, /install: [\s\S]*packages/);
  assert.doesNotMatch(done.stderr, /\r|\u001b/);
});

test("an image is deleted and is gone from disk", async () => {
  assert.equal((await host.banger("image", "delete", SLIM)).status, 0);
  assert.deepEqual(await readdir(join(host.env.XDG_STATE_HOME, "banger", "images")), []);
  await rm(join(host.env.XDG_CACHE_HOME, "banger"), { recursive: true });
});
