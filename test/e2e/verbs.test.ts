/** What can be asked of a VM and changed about it, while it runs and while it does not. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { GuestPort, SetResult, StatsLine, Vm, VmStats, VmWatchLine } from "../../src/contract/vms.ts";
import { installFixture } from "../support/fixture.ts";
import { type Host, testHost } from "../support/host.ts";
import { childEnds, outputHolds, processEnds } from "../support/wait.ts";

const SLIM = "debian-bookworm-slim";
const GiB = 2 ** 30;
let host: Host;

before(async () => {
  host = await testHost(
    `default_image_name = "${SLIM}"\nstats_poll_interval = "1s"\n[vm_defaults]\nvcpu = 1\nmemory = "256M"\ndisk_size = "1G"\n`,
  );
  await installFixture(host, [SLIM]);
  await ok("vm", "create", "--name", "box", "--label", "team=web", "--label", "tier=1", "--auto-stop", "never");
  await ok("vm", "create", "--name", "other", "-l", "team=db", "--net", "none");
  await ok("vm", "start", "box");
});
after(() => host[Symbol.asyncDispose]());

const ok = async (...args: string[]): Promise<string> => {
  const done = await host.banger(...args);
  assert.equal(done.status, 0, done.stderr);
  return done.stdout;
};
const exec = (...argv: string[]) => ok("vm", "exec", "box", "--", ...argv);
const show = (name: string) => host.json<Vm>("vm", "show", name);
const namesOf = async (...flags: string[]) => (await ok("vm", "list", "-q", ...flags)).split("\n").filter(Boolean);
const changes = async (...args: string[]) =>
  (await host.json<{ result: SetResult }[]>("vm", "set", ...args))[0]?.result;
const diskOfGuest = async () => Number((await exec("stat", "-f", "-c", "%b", "/")).trim()) * 4096;

test("VMs are listed by state, image and label", async () => {
  assert.deepEqual((await namesOf()).sort(), ["box", "other"]);
  assert.deepEqual(await namesOf("--state", "running"), ["box"]);
  assert.deepEqual((await namesOf("--label", "team")).sort(), ["box", "other"]);
  assert.deepEqual(await namesOf("--label", "team=db"), ["other"]);
  assert.deepEqual(await namesOf("--label", "team=web", "--label", "tier=2"), []);
  assert.deepEqual(await namesOf("--image", "nothing-of-it"), []);
  for (const [flag, value, message] of [
    ["--state", "runing", /did you mean `running`/],
    ["--label", "-x", /--label needs a value/],
    ["--label", "a b=c", /not a valid label/],
  ] as const) {
    const done = await host.banger("vm", "list", flag, value);
    assert.equal(done.status, 2);
    assert.match(done.stderr, message);
  }
});

test("a running VM's disk grows while its programs go on, and stays grown", async () => {
  const before = await diskOfGuest();
  assert.ok(before < GiB);
  await exec("sh", "-c", "head -c 50000000 /dev/urandom >/root/blob; sha256sum /root/blob >/root/sum");
  assert.deepEqual((await changes("--disk-size", "12G", "box"))?.effects, { diskSize: "now" });
  const after = await diskOfGuest();
  assert.ok(after > 11 * GiB, String(after));
  assert.match(await exec("sha256sum", "-c", "/root/sum"), /OK/);
  const smaller = await host.banger("vm", "set", "--disk-size", "11G", "--label", "never=set", "box");
  assert.equal(smaller.status, 1);
  assert.match(smaller.stderr, /cannot shrink/);
  const { diskSize, labels } = await show("box");
  assert.deepEqual([diskSize, labels.never], [12 * GiB, undefined]);
});

test("shape and network change with a restart, which boots the guest anew", async () => {
  const said = await host.banger(
    "vm",
    "set",
    "--vcpu",
    "2",
    "--memory",
    "384M",
    "--label",
    "tier=2",
    "--unlabel",
    "team",
    "box",
  );
  assert.equal(said.status, 0, said.stderr);
  assert.match(said.stderr, /box: vcpu after `banger vm restart box`, memory after .*, labels now/);
  assert.match(await ok("vm", "show", "box"), /vcpu: +1 \(2 after a restart\)/);
  const before = await show("box");
  assert.deepEqual([before.vcpu, before.next, before.labels], [1, { vcpu: 2, memory: 384 * 2 ** 20 }, { tier: "2" }]);
  const bootId = await exec("cat", "/proc/sys/kernel/random/boot_id");
  assert.equal((await exec("nproc")).trim(), "1");
  await ok("vm", "set", "--disk-size", "13G", "other");
  assert.equal(await ok("vm", "restart", "box"), "box\n");
  assert.notEqual(await exec("cat", "/proc/sys/kernel/random/boot_id"), bootId);
  assert.equal((await exec("nproc")).trim(), "2");
  const after = await show("box");
  assert.deepEqual([after.vcpu, after.memory, after.next], [2, 384 * 2 ** 20, undefined]);
  assert.match(await exec("sha256sum", "-c", "/root/sum"), /OK/);
});

test("the disk of a stopped VM is grown as it boots; its file system is sound", async () => {
  const effects = (await changes("--disk-size", "20G", "--net", "user", "other"))?.effects;
  assert.deepEqual(effects, { diskSize: "start", network: "start" });
  // Made small, then grown twice over: by the running guest, then as it boots.
  await ok("vm", "stop", "box");
  await ok("vm", "set", "--disk-size", "14G", "box");
  await ok("vm", "start", "box");
  assert.ok((await diskOfGuest()) > 13 * GiB);
  await exec("sh", "-c", "head -c 20000000 /dev/zero >/root/more");
  await ok("vm", "stop", "box");
  const { id } = await show("box");
  const fsck = await host.tool("e2fsck", "-fn", `${host.env.XDG_STATE_HOME}/banger/vms/${id}/disk.ext4`);
  assert.equal(fsck.status, 0, fsck.stdout);
  await ok("vm", "start", "box");
});

test("bad changes are refused before anything is changed", async () => {
  for (const [flags, message] of [
    [[], /nothing to set/],
    [["--memory", "1M"], /too small/],
    [["--vcpu", "0"], /not a valid number of CPUs/],
    [["--vcpu", "65"], /more than a VM can have/],
    [["--auto-stop", "soon"], /not a time/],
    [["--label", "x"], /KEY=VALUE/],
  ] as const) {
    const done = await host.banger("vm", "set", ...flags, "box");
    assert.notEqual(done.status, 0);
    assert.match(done.stderr, message);
  }
  assert.equal((await show("box")).next, undefined);
});

test("stats: what a VM takes of the host, and what its guest says; one that does not run only has a disk", async () => {
  await exec("sh", "-c", "ip link >/dev/null; head -c 1000000 /dev/urandom >/root/some");
  const [box, other] = await host.json<VmStats[]>("vm", "stats", "box", "other");
  assert.ok(box?.memory.pss && box.memory.rss && box.memory.pss <= box.memory.rss);
  assert.ok(box.disk.used > 50_000_000 && box.disk.used < box.disk.size);
  assert.ok(box.guest && box.guest.memory.total <= 384 * 2 ** 20 && box.guest.processes > 0);
  assert.ok(box.guest.network, "its network card counts");
  assert.ok((box.cpu ?? -1) >= 0 && (box.cpuTime ?? 0) > 0);
  assert.deepEqual([other?.state, other?.guest, other?.memory.pss], ["stopped", undefined, undefined]);
  assert.deepEqual(
    (await host.json<VmStats[]>("vm", "stats")).map(({ name }) => name),
    ["box"],
  );
  const child = host.start(["vm", "stats", "--watch", "--json", "box"]);
  const seen = await outputHolds(child, /\n.*\n/);
  const lines = seen
    .split("\n")
    .slice(0, 2)
    .map((line) => JSON.parse(line) as StatsLine);
  assert.ok((lines[1]?.time ?? 0) > (lines[0]?.time ?? 0));
  child.kill("SIGINT");
  const { status } = await childEnds(child);
  assert.equal(status, 130);
  assert.match((await host.banger("vm", "stats", "nope")).stderr, /there is no VM "nope"/);
});

test("ports: what listens in the guest, and whose it is", async () => {
  const python = "import socket; s = socket.create_server(('0.0.0.0', 8123)); print('up', flush=True); s.accept()";
  assert.equal((await host.banger("vm", "ports", "other")).status, 1);
  const image = await exec("sh", "-c", "command -v perl python3 | head -n 1");
  const script = image.includes("perl")
    ? [
        "perl",
        "-e",
        "use Socket; socket(S,PF_INET,SOCK_STREAM,0); bind(S,sockaddr_in(8123,INADDR_ANY)); listen(S,5); $|=1; print qq(up\\n); accept(C,S)",
      ]
    : ["python3", "-c", python];
  const child = host.start(["vm", "exec", "box", "--", ...script]);
  await outputHolds(child, "up");
  const ports = await host.json<GuestPort[]>("vm", "ports", "box");
  const found = ports.find(({ port }) => port === 8123);
  assert.deepEqual([found?.proto, found?.address], ["tcp", "0.0.0.0"]);
  assert.match(found?.process ?? "", /perl|python/);
  assert.match(await ok("vm", "ports", "box"), /8123 +tcp +0\.0\.0\.0/);
  child.kill("SIGKILL");
});

test("a watch tells of each change as it happens, and of nothing else", async () => {
  const child = host.start(["vm", "list", "--watch", "--json"]);
  await outputHolds(child, /"vms":\[/);
  let text = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    text += String(chunk);
  });
  const until = outputHolds(child, '"gone"');
  const lines = host.start(["vm", "list", "--watch", "--label", "seen"]);
  const both = outputHolds(lines, /brief {2}stopped[\s\S]*brief {2}deleted/);
  const created = outputHolds(lines, /brief {2}stopped/);
  await ok("vm", "create", "--name", "brief", "-l", "seen=yes");
  await created;
  await ok("vm", "delete", "brief");
  await both;
  await until;
  const told = text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as VmWatchLine);
  assert.ok(
    told.every(({ vm, gone }) => (vm?.name ?? gone?.name) === "brief"),
    text,
  );
  for (const one of [child, lines]) one.kill("SIGINT");
});

test("kill --signal reaches the VMM: a VM that stands still goes on", async () => {
  await ok("vm", "kill", "--signal", "STOP", "box");
  const { pid } = await show("box");
  const state = await host.tool("ps", "-o", "state=", "-p", String(pid));
  assert.match(state.stdout, /^T/);
  await ok("vm", "kill", "-s", "CONT", "box");
  assert.equal(await exec("echo", "goes on"), "goes on\n");
  assert.match((await host.banger("vm", "kill", "-s", "KIL", "box")).stderr, /did you mean `SIGKILL`/);
});

test("a guest that does not shut down in time is ended, and the VM says so", async () => {
  await ok("vm", "kill", "--signal", "STOP", "box");
  const { pid } = await show("box");
  assert.equal(await ok("vm", "stop", "--timeout", "1s", "box"), "box\n");
  await processEnds(pid ?? 0);
  const vm = await show("box");
  assert.deepEqual([vm.state, vm.reason], ["stopped", "the guest did not shut down in time"]);
});

test("an operation is seen while it runs, cancelled by its id, undone, and told of in the log and to who watches", async () => {
  // A machine that never comes up.
  const wrapper = join(host.env.HOME, "qemu");
  const script = '#!/bin/sh\ncase "$*" in *banger-box*) exec sleep 600;; esac\nexec qemu-system-x86_64 "$@"\n';
  await writeFile(wrapper, script, { mode: 0o755 });
  const config = join(host.env.XDG_CONFIG_HOME, "banger", "config.toml");
  const before = await readFile(config, "utf8");
  await writeFile(config, `qemu_bin = "${wrapper}"\n${before}`);
  const watching = host.start(["vm", "list", "--watch", "--json"]);
  const starting = outputHolds(watching, /"name":"box".*"state":"starting".*"operation":"[0-9a-f]+"/);
  const child = host.start(["vm", "start", "box"]);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const stderr = outputHolds(child, "cancelled");
  const [, id = ""] = /"operation":"([0-9a-f]+)"/.exec(await starting) ?? [];
  const { operations } = await host.json<{ operations: { id: string; what: string }[] }>("daemon", "status");
  assert.deepEqual(
    operations.map((operation) => operation.id),
    [id],
  );
  const stopped = outputHolds(watching, /"state":"stopped"/);
  const logged = host.start(["daemon", "logs", "-f", "-n", "1000", "--operation", id]);
  const failed = outputHolds(logged, /operation started[\s\S]*operation failed.*CANCELLED/);
  await host.tool(
    "curl",
    "-sS",
    "-X",
    "DELETE",
    "--unix-socket",
    `${host.env.XDG_RUNTIME_DIR}/banger/bangerd.sock`,
    `http://banger/v1/operations/${id}`,
  );
  assert.equal(await ended, 130);
  await stderr;
  await stopped;
  await failed;
  for (const one of [watching, logged]) one.kill("SIGINT");
  await writeFile(config, before);
  assert.deepEqual(
    (await host.processes()).filter(({ command }) => /qemu|passt|sleep 600/.test(command)),
    [],
  );
});

test("logs --since: only what is recent", async () => {
  await ok("vm", "start", "box");
  await exec("sh", "-c", "echo a-line-now >/dev/console");
  const all = await ok("vm", "logs", "box");
  assert.match(all, /a-line-now/);
  assert.match(await ok("vm", "logs", "--since", "1h", "box"), /a-line-now/);
  assert.equal(await ok("vm", "logs", "--since", new Date(Date.now() + 60_000).toISOString(), "box"), "");
  assert.match((await host.banger("vm", "logs", "--since", "yesterdy", "box")).stderr, /neither a time/);
});

test("prune takes what is stopped, and never what runs", async () => {
  const refused = await host.banger("vm", "prune");
  assert.equal(refused.status, 2);
  assert.match(refused.stderr, /banger vm prune -f/);
  assert.equal(await ok("vm", "prune", "-f"), "other\n");
  assert.deepEqual(await namesOf(), ["box"]);
  assert.equal((await host.json<unknown[]>("vm", "prune", "-f")).length, 0);
});
