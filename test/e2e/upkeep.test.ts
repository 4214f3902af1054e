/** What happens to a VM without being asked for: the user's files at each start, the end of one that nobody uses, and what the host has room for. */
import assert from "node:assert/strict";
import { chmod, mkdir, rm, statfs, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Vm } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { childEnds, outputHolds } from "../support/wait.ts";

const SLIM = "debian-bookworm-slim";
let host: Host;

const config = (more = "") =>
  `${more}\ndefault_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "256M"\ndisk_size = "1G"\n`;
const sync = (entries: string) => config() + entries;
const configure = (text: string) => writeFile(join(host.env.XDG_CONFIG_HOME, "banger", "config.toml"), text);

before(async () => {
  host = await testHost(config());
  await installFixture(host, [SLIM]);
});
after(() => host[Symbol.asyncDispose]());

const ok = async (...args: string[]): Promise<string> => {
  const done = await host.banger(...args);
  assert.equal(done.status, 0, done.stderr);
  return done.stdout;
};
const exec = (...argv: string[]) => ok("vm", "exec", "box", "--", ...argv);
const show = (name: string) => host.json<Vm>("vm", "show", name);

test("file_sync: files and folders are there at each start, as root's own; what is missing is told and skipped", async () => {
  const { HOME } = host.env;
  await mkdir(join(HOME, "tree/deep/er"), { recursive: true });
  await writeFile(join(HOME, ".gitconfig"), "[user]\n\tname = A B\n");
  await chmod(join(HOME, ".gitconfig"), 0o644);
  await writeFile(join(HOME, "tree/run.sh"), "#!/bin/sh\n");
  await chmod(join(HOME, "tree/run.sh"), 0o755);
  await writeFile(join(HOME, "tree/deep/er/-odd name\n"), "odd");
  await writeFile(join(HOME, "tree/deep/empty"), "");
  await writeFile(join(HOME, "tree/deep/a\\tb"), "back");
  await symlink("run.sh", join(HOME, "tree/link"));
  const socket = createServer().listen(join(HOME, "tree/sock"));
  try {
    await configure(
      sync(`
[[file_sync]]
host = "~/.gitconfig"
guest = "~/.gitconfig"
[[file_sync]]
host = "~/nowhere"
guest = "~/nowhere"
[[file_sync]]
host = "~/tree"
guest = "/root/.config/tree"
[[file_sync]]
host = "~/tree/run.sh"
guest = "~/bin/"
mode = "0755"
`),
    );
    const done = await host.banger("vm", "run", "-d", "--name", "box");
    assert.equal(done.status, 0, done.stderr);
    assert.match(done.stderr, /note: file_sync: .*\/nowhere is not there/);
    assert.match(done.stderr, /note: file_sync: left out of .*\/tree: what is no file, folder or link \(1\)/);
  } finally {
    socket.close();
  }
  const modes = await exec(
    "sh",
    "-c",
    "cd /root && stat -c '%a %U:%G %F %n' .gitconfig bin/run.sh .config/tree .config/tree/deep .config/tree/run.sh .config/tree/link",
  );
  assert.deepEqual(modes.trim().split("\n"), [
    "600 root:root regular file .gitconfig",
    "755 root:root regular file bin/run.sh",
    "700 root:root directory .config/tree",
    "700 root:root directory .config/tree/deep",
    "600 root:root regular file .config/tree/run.sh",
    "777 root:root symbolic link .config/tree/link",
  ]);
  assert.equal(
    await exec("cat", "/root/.config/tree/deep/er/-odd name\n", "/root/.config/tree/deep/a\\tb", "/root/.gitconfig"),
    "oddback[user]\n\tname = A B\n",
  );
  assert.equal((await exec("stat", "-c", "%a", "/root")).trim(), "700");
  // Anew at each start, and without a restart of the daemon.
  await writeFile(join(HOME, ".gitconfig"), "[user]\n\tname = C\n");
  await rm(join(HOME, "tree"), { recursive: true });
  await ok("vm", "restart", "box");
  assert.equal(await exec("cat", "/root/.gitconfig"), "[user]\n\tname = C\n");
  assert.match((await show("box")).notes.join("\n"), /tree is not there/);
});

test("a VM that nobody uses is stopped; a session and a connection are use", async () => {
  await exec("sh", "-c", "echo kept >/root/kept");
  await ok("vm", "set", "--auto-stop", "2s", "box");
  assert.match(await ok("vm", "list"), /stops in \ds/);
  const watching = host.start(["vm", "list", "--watch"]);
  const ended = outputHolds(watching, /box {2}stopped .*stopped after 2s without use/);
  const session = host.start(["vm", "exec", "box", "--", "sh", "-c", "echo up; sleep 4; cat /root/kept"]);
  let said = "";
  session.stdout?.on("data", (chunk: Buffer) => {
    said += String(chunk);
  });
  await outputHolds(session, "up");
  assert.equal((await show("box")).autoStopAt, undefined, "somebody works in it");
  const { status } = await childEnds(session);
  assert.deepEqual([status, said], [0, "up\nkept\n"]);
  assert.equal((await show("box")).state, "running");
  await ended;
  watching.kill("SIGINT");
  const vm = await show("box");
  assert.deepEqual([vm.state, vm.reason, vm.autoStop], ["stopped", "stopped after 2s without use", 2000]);
});

test("auto_stop_stale_after of the config counts for VMs without a setting of their own, also while they run", async () => {
  await ok("vm", "set", "--auto-stop", "default", "box");
  await ok("vm", "start", "box");
  assert.equal((await show("box")).autoStopAt, undefined);
  assert.equal(await exec("cat", "/root/kept"), "kept\n");
  const watching = host.start(["vm", "list", "--watch"]);
  const ended = outputHolds(watching, /box {2}stopped .*stopped after 1s without use/);
  await configure(config('auto_stop_stale_after = "1s"'));
  await ok("vm", "list");
  await ended;
  watching.kill("SIGINT");
});

test("more than the host has is refused before anything is made, and --force tries it", async () => {
  for (const [flags, message] of [
    [["--memory", "100T"], /100 TiB cannot run on a host with [\s\S]*--force/],
    [["--disk-size", "8000T"], /8000 TiB can never be filled[\s\S]*--force/],
  ] as const) {
    const done = await host.banger("vm", "create", "--name", "huge", ...flags);
    assert.equal(done.status, 1, done.stderr);
    assert.match(done.stderr, message);
    assert.equal((await host.banger("vm", "set", ...flags, "box")).status, 1);
  }
  assert.deepEqual(
    (await host.json<Vm[]>("vm", "list")).map(({ name }) => name),
    ["box"],
  );
  const { blocks, bsize } = await statfs(host.env.XDG_STATE_HOME);
  const size = `${Math.ceil((blocks * bsize) / 2 ** 30) + 10}G`;
  const forced = await host.banger(
    "vm",
    "create",
    "--name",
    "huge",
    "--disk-size",
    size,
    "--force",
    "--auto-stop",
    "never",
  );
  assert.equal(forced.status, 0, forced.stderr);
  assert.match(forced.stderr, /note: the disks of all VMs may grow by/);
  assert.match((await show("huge")).notes.join(), /the disks of all VMs may grow/);
  // Of what is there already, copies are made without being asked again.
  await ok("vm", "start", "huge");
  assert.equal(await ok("vm", "fork", "huge"), "huge-1\n");
  await ok("vm", "delete", "huge", "huge-1");
});
