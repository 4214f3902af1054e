/** VMs that start from templates: each becomes a machine of its own, and whatever is wrong with a template costs a cold boot and nothing else. */
import assert from "node:assert/strict";
import { readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { TemplateInfo } from "../../src/contract/templates.ts";
import type { Vm } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { clockError, type Done, type Host, testHost } from "../support/host.ts";
import { childEnds, folderHolds, processEnds } from "../support/wait.ts";

const SLIM = "debian-bookworm-slim";
const GOLDEN = "debian-bookworm";
const shape = `default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "192M"\ndisk_size = "1G"\n`;
let host: Host;

before(async () => {
  host = await testHost(`templates.enabled = true\n${shape}`);
  await installFixture(host, [SLIM, GOLDEN]);
  await ok("image", "warm");
});
after(() => host[Symbol.asyncDispose]());

const ok = async (...args: string[]): Promise<Done> => {
  const done = await host.banger(...args);
  assert.equal(done.status, 0, done.stderr);
  return done;
};
const exec = async (vm: string, script: string) => (await ok("vm", "exec", vm, "--", "sh", "-c", script)).stdout;
const show = (name: string) => host.json<Vm>("vm", "show", name);
const state = () => join(host.env.XDG_STATE_HOME, "banger");
const templates = () => readdir(join(state(), "templates"));
const daemonLog = () => readFile(join(state(), "daemon.log"), "utf8");

/** Everything that must differ between two clones. */
const identity = `cat /etc/hostname /etc/machine-id /proc/sys/kernel/random/boot_id
cat /sys/class/net/eth0/address
head -c 16 /dev/urandom | od -An -tx1
cat /etc/ssh/ssh_host_ed25519_key.pub 2>/dev/null || echo none-$(cat /etc/machine-id)`;

test("two clones differ in everything that tells machines apart, and know the time", async () => {
  const [one, two] = await Promise.all([ok("vm", "run", "-d"), ok("vm", "run", "-d")]);
  const names = [one, two].map(({ stdout }) => stdout.trim());
  const told: string[][] = await Promise.all(
    names.map(async (name) => (await exec(name, identity)).trim().split("\n")),
  );
  assert.deepEqual(
    told.map((lines) => lines.length),
    [6, 6],
  );
  for (const [index, line] of (told[0] ?? []).entries()) assert.notEqual(line, told[1]?.[index]);
  for (const [index, name] of names.entries()) {
    assert.equal(told[index]?.[0], name);
    const vm = await show(name);
    assert.equal(vm.restored, "template");
    assert.equal(told[index]?.[1], vm.id);
    const off = await clockError(host, name);
    assert.ok(off <= 100, `${off} ms`);
  }
  await exec(names[0] ?? "", "echo mine >/root/file && sync");
  assert.equal(await exec(names[1] ?? "", "ls /root"), "");
  // A VM that has run boots its own disk.
  await ok("vm", "restart", names[0] ?? "");
  assert.equal((await show(names[0] ?? "")).restored, undefined);
  assert.equal(await exec(names[0] ?? "", "cat /root/file"), "mine\n");
  await ok("vm", "delete", ...names);
});

test("a clone's first command already finds it to be itself, whatever it looks at first", async () => {
  const looks = [
    'cat /etc/hostname; grep "127.0.1.1" /etc/hosts; cat /etc/machine-id; cat /proc/sys/kernel/random/boot_id',
    'cat /proc/sys/kernel/random/boot_id; cat /etc/machine-id; grep "127.0.1.1" /etc/hosts; cat /etc/hostname',
  ];
  const told = await Promise.all(
    looks.map(async (script, index) =>
      (await ok("vm", "run", "--rm", "--name", `looker-${index}`, "--", "sh", "-c", script)).stdout.trim().split("\n"),
    ),
  );
  const [one = [], two = []] = [told[0], told[1]?.reverse()];
  for (const [index, line] of one.entries()) assert.notEqual(line, two[index]);
  for (const [index, lines] of [one, two].entries())
    assert.deepEqual(lines.slice(0, 2), [`looker-${index}`, `127.0.1.1\tlooker-${index}\t# banger`]);
});

test("a template that is deleted or made anew does not touch the VMs that use it", async () => {
  await ok("vm", "run", "-d", "--name", "holder");
  const [key = ""] = await templates();
  const [listed] = await host
    .json<TemplateInfo[]>("image", "show", SLIM)
    .then((image) => (image as never as { templates: TemplateInfo[] }).templates);
  assert.equal(listed?.key, key);
  const memory = join(state(), "templates", key, "memory");
  const before = await stat(memory);
  await exec("holder", "dd if=/dev/urandom of=/dev/shm/x bs=1M count=20 2>/dev/null");
  const later = await stat(memory);
  assert.deepEqual([later.mtimeMs, later.blocks], [before.mtimeMs, before.blocks]);
  await truncate(memory, 4096);
  const cold = await ok("vm", "run", "--rm", "--", "true");
  assert.equal(cold.status, 0);
  assert.match(await daemonLog(), /template is damaged and is removed.*memory is 4096 bytes long/);
  await ok("image", "warm");
  assert.notEqual((await stat(memory)).ino, before.ino);
  // Its memory was cut off under it: only what it had not touched is lost with the file; one that was replaced is not.
  await ok("vm", "delete", "holder");
  await ok("vm", "run", "-d", "--name", "survivor");
  assert.equal((await show("survivor")).restored, "template");
  await ok("daemon", "stop");
  await ok("vm", "exec", "survivor", "--", "true");
  await ok("vm", "delete", "survivor");
});

test("a QEMU of another version gets a template of its own", async () => {
  const wrapper = join(host.env.HOME, "qemu");
  const script = `#!/bin/sh\n[ "$1" != --version ] || { echo "QEMU emulator version 99.1"; exit; }\nexec qemu-system-x86_64 "$@"\n`;
  await writeFile(wrapper, script, { mode: 0o755 });
  const config = join(host.env.XDG_CONFIG_HOME, "banger", "config.toml");
  const before = await readFile(config, "utf8");
  await writeFile(config, `qemu_bin = "${wrapper}"\n${before}`);
  await ok("vm", "run", "-d", "--name", "upgraded");
  assert.equal((await show("upgraded")).restored, undefined);
  await ok("vm", "delete", "upgraded");
  await folderHolds(join(state(), "templates"), async () => (await templates()).length === 2, 120_000);
  await writeFile(config, before);
  await ok("vm", "run", "-d", "--name", "old");
  assert.equal((await show("old")).restored, "template");
  await ok("vm", "delete", "old");
});

test("a daemon that dies while it makes a template leaves nothing of it", async () => {
  const making = host.start(["image", "warm", "--memory", "208M"]);
  await folderHolds(join(state(), "staging"), async () => (await readdir(join(state(), "staging"))).length > 0);
  while (!(await host.processes()).some(({ command }) => command.includes("banger-template"))) {
    assert.equal(making.exitCode, null, "it ended before its VM was seen");
    await new Promise(setImmediate);
  }
  const daemon = await host.daemonPid();
  process.kill(daemon, "SIGKILL");
  await processEnds(daemon);
  await childEnds(making);
  await ok("vm", "list");
  assert.equal((await host.processes()).filter(({ command }) => command.includes("banger-template")).length, 0);
  assert.deepEqual(await readdir(join(state(), "staging")), []);
  assert.equal((await templates()).length, 2);
});

test("a Debian with systemd goes on from where it stood, its services too, also when its template is deleted", async () => {
  const flags = ["--image", GOLDEN, "--vcpu", "2", "--memory", "512M"];
  await ok("image", "warm", GOLDEN, "--vcpu", "2", "--memory", "512M", "--disk-size", "8G");
  await ok("vm", "run", "-d", "--name", "full", "--disk-size", "8G", ...flags);
  assert.equal((await show("full")).restored, "template");
  const waits = ["sh", "-c", "systemctl show -p Version | head -c 8; logger -p user.info heard; cat /proc/self/cgroup"];
  const first = await ok("vm", "run", "--rm", "--disk-size", "8G", ...flags, "--", ...waits);
  assert.match(first.stdout, /^Version=.*0::\/\n$/s);
  // It holds what it was restored from.
  for (const key of await templates()) await rm(join(state(), "templates", key), { recursive: true });
  assert.match(await exec("full", "systemctl is-system-running || true"), /running|degraded/);
  assert.equal((await ok("vm", "ssh", "full", "--", "hostname")).stdout, "full\n");
  // What stood still for its first command goes on, whether that ends or waits for it.
  assert.equal(await exec("full", "cat /sys/fs/cgroup/*/cgroup.freeze | sort -u"), "0\n");
  await exec("full", "systemd-run --quiet --on-active=1 --timer-property=AccuracySec=10ms touch /run/fired");
  await exec("full", "timeout 20 sh -c 'until [ -e /run/fired ]; do sleep 0.1; done'");
  // Lists of packages are much to read for an emulated CPU.
  const lists = await host.run(["vm", "exec", "full", "--", "apt-get", "update"], { timeout: 400_000 });
  assert.equal(lists.status, 0, lists.stderr);
  await ok("vm", "stop", "full");
  await ok("vm", "start", "full");
  assert.equal((await show("full")).restored, undefined);
  await ok("vm", "delete", "full");
});
