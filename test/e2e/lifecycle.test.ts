/** What happens to VMs over time, with nothing lost and nothing left. */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Vm } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { childEnds, processEnds } from "../support/wait.ts";

const SLIM = "debian-bookworm-slim";
let host: Host;

before(async () => {
  host = await testHost(`default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "256M"\ndisk_size = "2G"\n`);
  await installFixture(host, [SLIM]);
});
after(() => host[Symbol.asyncDispose]());

const ok = async (...args: string[]): Promise<string> => {
  const done = await host.banger(...args);
  assert.equal(done.status, 0, done.stderr);
  return done.stdout;
};
const show = (name: string) => host.json<Vm>("vm", "show", name);
const vmms = async () => (await host.processes()).filter(({ command }) => /qemu-system|passt/.test(command));
const vmFolders = () => readdir(join(host.env.XDG_STATE_HOME, "banger", "vms"));

test("`run --rm` forwards the status and leaves nothing", async () => {
  const done = await host.banger("vm", "run", "--rm", "--", "sh", "-c", "cat /proc/cmdline >/dev/null; exit 5");
  assert.equal(done.status, 5, done.stderr);
  assert.match(done.stderr, /debian-bookworm-slim, 1 vcpu, 256 MiB, 2 GiB disk, qemu\/(tcg|kvm)/);
  assert.deepEqual(await host.json("vm", "list"), []);
  assert.deepEqual(await vmFolders(), []);
  assert.deepEqual(await vmms(), []);
});

test("what was written is there after stop and start; the boot id is new, the machine id is not", async () => {
  await ok("vm", "create", "--name", "keeper");
  assert.equal((await show("keeper")).state, "stopped");
  await ok("vm", "start", "keeper");
  const ids = "cat /etc/machine-id /proc/sys/kernel/random/boot_id";
  const before = (await ok("vm", "exec", "keeper", "--", "sh", "-c", `echo data >/root/written; ${ids}`)).split("\n");
  await ok("vm", "stop", "keeper");
  const stopped = await show("keeper");
  assert.deepEqual([stopped.state, stopped.reason, stopped.pid], ["stopped", undefined, undefined]);
  await ok("vm", "start", "keeper");
  const after = (await ok("vm", "exec", "keeper", "--", "sh", "-c", `cat /root/written; ${ids}`)).split("\n");
  assert.equal(after[0], "data");
  assert.equal(after[1], before[0]);
  assert.notEqual(after[2], before[1]);
});

test("what was fsynced is there after the VMM was killed, and the state says so", async () => {
  const { pid } = await show("keeper");
  assert.ok(pid);
  await ok("vm", "exec", "keeper", "--", "sh", "-c", "echo safe >/root/synced; sync /root/synced");
  process.kill(pid, "SIGKILL");
  await processEnds(pid);
  const vm = await show("keeper");
  assert.equal(vm.state, "stopped");
  assert.match(vm.reason ?? "", /QEMU was ended by SIGKILL/);
  const refused = await host.banger("vm", "exec", "keeper", "--", "true");
  assert.match(refused.stderr, /is stopped[\s\S]*banger vm start keeper/);
  await ok("vm", "start", "keeper");
  assert.equal(await ok("vm", "exec", "keeper", "--", "cat", "/root/synced"), "safe\n");
});

test("a daemon that is killed leaves its VMs running; the next command adopts them", async () => {
  const before = await show("keeper");
  const daemon = await host.daemonPid();
  await ok("vm", "exec", "keeper", "--", "sh", "-c", "echo here >/dev/shm/memory");
  process.kill(daemon, "SIGKILL");
  await processEnds(daemon);
  assert.equal(await ok("vm", "exec", "keeper", "--", "cat", "/dev/shm/memory"), "here\n");
  const after = await show("keeper");
  assert.deepEqual([after.state, after.pid], ["running", before.pid]);
  assert.notEqual(await host.daemonPid(), daemon);
});

test("a daemon killed in the middle of a transfer leaves a guest that answers", async () => {
  const child = host.start(["vm", "exec", "keeper", "--", "cat"]);
  const flood = Buffer.alloc(1 << 20, 7);
  child.stdin?.on("error", () => child.stdin?.destroy());
  child.stdout?.resume();
  const pump = () => {
    while (child.stdin?.writable && child.stdin.write(flood));
    child.stdin?.once("drain", pump);
  };
  pump();
  await new Promise((resolve) => child.stdout?.once("data", resolve));
  process.kill(await host.daemonPid(), "SIGKILL");
  await childEnds(child);
  assert.equal(await ok("vm", "exec", "keeper", "--", "echo", "answers"), "answers\n");
});

test("a graceful end of the daemon leaves VMs running too", async () => {
  const { pid } = await show("keeper");
  await ok("daemon", "stop");
  assert.equal((await show("keeper")).pid, pid);
});

test("a name that is taken and names that are none are refused before anything is made", async () => {
  for (const [name, message] of [
    ["keeper", /there is a VM named keeper already/],
    ["-x", /-x/],
    ["UPPER", /not a valid VM name/],
    ["a_b", /not a valid VM name/],
    ["x".repeat(64), /not a valid VM name/],
  ] as const) {
    const done = await host.banger("vm", "create", `--name=${name}`);
    assert.ok(done.status === 1 || done.status === 2, `${name}: ${done.status}`);
    assert.match(done.stderr, message);
  }
  for (const flag of [
    "--memory=0",
    "--memory=-1",
    "--memory=12Q",
    "--disk-size=0G",
    "--vcpu=0",
    "--vcpu=1.5",
    "--vcpu=two",
    "--memory=1M",
  ]) {
    const done = await host.banger("vm", "create", "--name", "never", flag);
    assert.equal(done.status, 2, `${flag}: ${done.stderr}`);
  }
  assert.deepEqual(
    (await host.json<Vm[]>("vm", "list")).map(({ name }) => name),
    ["keeper"],
  );
});

test("unknown images and kernels are named, with the nearest that is there", async () => {
  const image = await host.banger("vm", "run", "--rm", "--image", "debian-bookwrm-slim", "--", "true");
  assert.equal(image.status, 1);
  assert.match(image.stderr, /debian-bookwrm-slim[\s\S]*did you mean debian-bookworm-slim/);
  const kernel = await host.banger("vm", "run", "--rm", "--kernel", "debian-bookworm-clod", "--", "true");
  assert.match(kernel.stderr, /debian-bookworm-clod[\s\S]*did you mean debian-bookworm-cloud/);
});

test("an image in use is not deleted, and the error names who uses it", async () => {
  const done = await host.banger("image", "delete", SLIM);
  assert.equal(done.status, 1);
  assert.match(done.stderr, /used by keeper/);
});

test("several VMs at once: the valid ones go on, output in the order given, exit 1 for the others", async () => {
  await ok("vm", "create", "--name", "one");
  await ok("vm", "create", "--name", "two");
  const started = await host.banger("vm", "start", "two", "nope", "one", "two");
  assert.equal(started.status, 1);
  assert.deepEqual(started.stdout.trim().split("\n"), ["two", "one"]);
  assert.match(started.stderr, /"nope"/);
  assert.equal(await ok("vm", "stop", "one", "two"), "one\ntwo\n");
  assert.equal(await ok("vm", "delete", "one", "two"), "one\ntwo\n");
});

test("kill ends a VM at once, and delete of a running one leaves nothing of it", async () => {
  await ok("vm", "kill", "keeper");
  assert.equal((await show("keeper")).reason, "killed");
  await ok("vm", "start", "keeper");
  const { id } = await show("keeper");
  await ok("vm", "delete", "keeper");
  assert.deepEqual(await vmFolders(), []);
  assert.deepEqual(await vmms(), []);
  assert.deepEqual(await readdir(join(host.env.XDG_RUNTIME_DIR, "banger", "vms")), [], id);
  assert.equal(await readFile(join(host.env.XDG_STATE_HOME, "banger", "ssh", "known_hosts"), "utf8"), "");
});

test("two commands that start the daemon at the same moment share one", async () => {
  await ok("daemon", "stop");
  const answers = await Promise.all(
    Array.from({ length: 6 }, () => host.json<{ pid: number }>("daemon", "status").catch((error: unknown) => error)),
  );
  const started = await Promise.all(Array.from({ length: 6 }, () => host.banger("vm", "list")));
  for (const done of started) assert.equal(done.status, 0, done.stderr);
  assert.equal(answers.length, 6);
  // Those that found the lock taken may take a moment to end, and must.
  const winner = await host.daemonPid();
  const daemons = (await host.processes()).filter(({ command }) => command.includes("bangerd"));
  for (const { pid } of daemons) if (pid !== winner) await processEnds(pid);
  assert.ok(daemons.some(({ pid }) => pid === winner));
});
