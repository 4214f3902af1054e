/** Everything dies at some point. Afterwards the state is true, the error helps, and nothing is left. */
import assert from "node:assert/strict";
import { readdir, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Vm } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { childEnds, folderHolds, outputHolds, processEnds } from "../support/wait.ts";

const SLIM = "debian-bookworm-slim";
const config = (more = "") =>
  `default_image_name = "${SLIM}"\n${more}\n[vm_defaults]\nvcpu = 1\nmemory = "256M"\ndisk_size = "2G"\n`;
let host: Host;

before(async () => {
  host = await testHost(config());
  await installFixture(host, [SLIM]);
  // The daemon is there, so that what is timed to a moment of a run starts with the run.
  assert.equal((await host.banger("vm", "list")).status, 0);
});
after(() => host[Symbol.asyncDispose]());

const list = (of = host) => of.json<Vm[]>("vm", "list");
const vmms = async (of = host) => (await of.processes()).filter(({ command }) => /qemu-system|passt/.test(command));
const vmFolders = (of = host) => readdir(join(of.env.XDG_STATE_HOME, "banger", "vms")).catch(() => []);
const runtimeFolders = (of = host) => readdir(join(of.env.XDG_RUNTIME_DIR, "banger", "vms")).catch(() => []);

/** Waits until a VM has its VMM: from then on it boots, which takes seconds. */
const machineRuns = (name: string) =>
  folderHolds(host.env.XDG_STATE_HOME, async () =>
    (await list()).some((vm) => vm.name === name && vm.pid !== undefined),
  );

/** Waits until the daemon has undone a run, then checks that nothing is left of it. */
const nothingLeft = async () => {
  await folderHolds(
    host.env.XDG_STATE_HOME,
    async () => (await list()).length === 0 && (await vmFolders()).length === 0,
  );
  await folderHolds(host.env.XDG_RUNTIME_DIR, async () => (await runtimeFolders()).length === 0);
  for (const { pid } of await vmms()) await processEnds(pid);
};

for (const [how, signal] of [
  ["Ctrl-C", "SIGINT"],
  ["a closed terminal", "SIGHUP"],
  ["kill -9 of the CLI", "SIGKILL"],
] as const) {
  test(`${how} while the VM boots leaves nothing`, async () => {
    const child = host.start(["vm", "run", "--name", "booting", "--", "true"]);
    const ended = childEnds(child);
    await machineRuns("booting");
    child.kill(signal);
    const { status } = await ended;
    if (signal === "SIGINT") assert.equal(status, 130);
    await nothingLeft();
  });

  test(`${how} while a command of \`run --rm\` runs leaves nothing`, async () => {
    const child = host.start(["vm", "run", "--rm", "--", "sh", "-c", "echo up; exec sleep 4711"]);
    const ended = childEnds(child);
    await outputHolds(child, "up\n");
    child.kill(signal);
    const { status } = await ended;
    if (signal === "SIGINT") assert.equal(status, 130);
    await nothingLeft();
  });
}

test("the daemon killed while a VM boots: the next one finds the VM whole or takes it away", async () => {
  const child = host.start(["vm", "run", "-d", "--name", "halfway"]);
  const ended = childEnds(child);
  await machineRuns("halfway");
  process.kill(await host.daemonPid(), "SIGKILL");
  assert.notEqual((await ended).status, 0);
  // The CLI undoes what it began, through a new daemon; where it could not, the VM is whole.
  if ((await list()).length > 0) {
    assert.equal((await host.banger("vm", "start", "halfway")).status, 0);
    assert.equal((await host.banger("vm", "exec", "halfway", "--", "true")).status, 0);
    assert.equal((await host.banger("vm", "delete", "halfway")).status, 0);
  }
  await nothingLeft();
});

test("the daemon and the CLI killed while a VM boots: the next daemon takes the VM up, and it works", async () => {
  const child = host.start(["vm", "run", "-d", "--name", "halfway"]);
  const ended = childEnds(child);
  await machineRuns("halfway");
  const daemon = await host.daemonPid();
  child.kill("SIGKILL");
  process.kill(daemon, "SIGKILL");
  await ended;
  const [vm] = await list();
  assert.equal(vm?.name, "halfway");
  // A new daemon answers before the guest has answered it.
  assert.ok(["starting", "running", "stopped"].includes(vm?.state ?? ""), vm?.state);
  assert.equal((await host.banger("vm", "start", "halfway")).status, 0);
  assert.equal((await host.banger("vm", "exec", "halfway", "--", "true")).status, 0);
  // Its console is read by the new daemon too.
  await host.banger("vm", "exec", "halfway", "--", "sh", "-c", "echo adopted >/dev/console");
  await folderHolds(host.env.XDG_STATE_HOME, async () =>
    (await host.banger("vm", "logs", "halfway")).stdout.includes("adopted"),
  );
  assert.equal((await host.banger("vm", "delete", "halfway")).status, 0);
  await nothingLeft();
});

test("the daemon killed while `run --rm` runs: the next one takes the VM away", async () => {
  const child = host.start(["vm", "run", "--rm", "--", "sh", "-c", "echo up; exec sleep 4711"]);
  const ended = childEnds(child);
  await outputHolds(child, "up\n");
  process.kill(await host.daemonPid(), "SIGKILL");
  const { status } = await ended;
  assert.equal(status, 1);
  await nothingLeft();
});

test("a kernel that panics ends the VM, with the reason in its state", async () => {
  assert.equal((await host.banger("vm", "run", "-d", "--name", "panic")).status, 0);
  await host.run(
    ["vm", "exec", "panic", "--", "sh", "-c", "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger"],
    { timeout: 30_000 },
  );
  const vm = await host.json<Vm>("vm", "show", "panic");
  assert.equal(vm.state, "stopped");
  assert.match(vm.reason ?? "", /kernel/);
  assert.match((await host.banger("vm", "logs", "panic")).stdout, /sysrq triggered crash/i);
  assert.equal((await host.banger("vm", "delete", "panic")).status, 0);
});

test("a VM whose boot fails shows the last lines of its console, and nothing is left of a run", async () => {
  await using broken = await testHost(config());
  await installFixture(broken, [SLIM]);
  assert.equal((await broken.banger("vm", "run", "--rm", "--", "true")).status, 0);
  const folder = join(broken.env.XDG_CACHE_HOME, "banger", "initramfs");
  for (const name of await readdir(folder)) await writeFile(join(folder, name), "not an initramfs");
  const done = await broken.banger("vm", "run", "--", "true");
  assert.equal(done.status, 1);
  assert.match(done.stderr, /ended while it booted[\s\S]*last lines of its console[\s\S]*Kernel panic/);
  assert.deepEqual(await list(broken), []);
  assert.deepEqual(await vmms(broken), []);
});

test("a guest that never answers is given up after the time limit", async () => {
  await using slow = await testHost(config('boot_timeout = "400ms"'));
  await installFixture(slow, [SLIM]);
  const done = await slow.banger("vm", "run", "--", "true");
  assert.equal(done.status, 1);
  assert.match(done.stderr, /did not answer within/);
  assert.deepEqual(await list(slow), []);
  assert.deepEqual(await vmms(slow), []);
});

test("a truncated image is named before anything boots, with how to get it anew", async () => {
  await using damaged = await testHost(config());
  await installFixture(damaged, [SLIM]);
  const path = join(damaged.env.XDG_STATE_HOME, "banger", "images", SLIM, "rootfs.ext4");
  await rm(path);
  await writeFile(path, "");
  await truncate(path, 4096);
  const done = await damaged.banger("vm", "run", "--rm", "--", "true");
  assert.equal(done.status, 1);
  assert.match(
    done.stderr,
    new RegExp(`${SLIM} is damaged[\\s\\S]*banger image delete ${SLIM} && banger image pull ${SLIM}`),
  );
  assert.deepEqual(await list(damaged), []);
});

test("a QEMU that is not there is named with what to install, and everything else goes on", async () => {
  await using bare = await testHost(config('qemu_bin = "qemu-system-nowhere"'));
  await installFixture(bare, [SLIM]);
  const done = await bare.banger("vm", "run", "--rm", "--", "true");
  assert.equal(done.status, 1);
  assert.match(done.stderr, /qemu-system-nowhere[\s\S]*hint: install/);
  assert.equal((await bare.banger("image", "list")).status, 0);
  assert.equal((await bare.banger("doctor")).status, 1);
});

test("a config that is wrong is an error with file, line and key", async () => {
  await using wrong = await testHost('log_level = "info"\ndefault_imag_name = "x"\n');
  const done = await wrong.banger("vm", "list");
  assert.equal(done.status, 1);
  assert.match(done.stderr, /config\.toml line 2: unknown key `default_imag_name`[\s\S]*default_image_name/);
});

test("output that nobody reads: `vm list | head -1`", async () => {
  const child = host.start(["vm", "list"]);
  child.stdout?.destroy();
  child.stdin?.end();
  const { status, signal } = await childEnds(child);
  assert.equal(signal, null);
  assert.ok(status === 0 || status === 141, String(status));
});
