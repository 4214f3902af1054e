/** VMs that are paused, saved, copied and put to sleep: what ran goes on, what was written is there, and copies are machines of their own. */
import assert from "node:assert/strict";
import { readdir, readFile, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { SnapshotInfo } from "../../src/contract/snapshots.ts";
import type { Vm } from "../../src/contract/vms.ts";
import { processStartTime } from "../../src/host/proc.ts";
import { installFixture } from "../support/fixture.ts";
import { clockError, type Done, finish, type Host, testHost } from "../support/host.ts";
import { folderHolds, outputHolds, processEnds } from "../support/wait.ts";

const GOLDEN = "debian-bookworm";
const SLIM = "debian-bookworm-slim";
let host: Host;

before(async () => {
  host = await testHost(`default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "192M"\ndisk_size = "1G"\n`);
  await installFixture(host, [SLIM, GOLDEN]);
  await ok("vm", "run", "-d", "--name", "box", "--env", "MINE=yes", "--label", "team=a");
});
after(() => host[Symbol.asyncDispose]());

const ok = async (...args: string[]): Promise<Done> => {
  const done = await host.banger(...args);
  assert.equal(done.status, 0, `${args.join(" ")}: ${done.stderr}`);
  return done;
};
const fails = async (message: RegExp, ...args: string[]): Promise<void> => {
  const done = await host.banger(...args);
  assert.equal(done.status, 1, done.stderr);
  assert.match(done.stderr, message);
};
const exec = async (vm: string, script: string) => (await ok("vm", "exec", vm, "--", "sh", "-c", script)).stdout;
const show = (name: string) => host.json<Vm>("vm", "show", name);
const state = () => join(host.env.XDG_STATE_HOME, "banger");
/** A program in the guest that goes on by itself, and what it has done so far. */
const startCounting = (vm: string) =>
  exec(
    vm,
    "echo 0 >/dev/shm/count; setsid sh -c 'i=0; while :; do i=$((i+1)); echo $i >/dev/shm/new; mv /dev/shm/new /dev/shm/count; sleep 0.05; done' >/dev/null 2>&1 &",
  );
const count = async (vm: string) => Number(await exec(vm, "cat /dev/shm/count"));
const goesOn = async (vm: string) => {
  const before = await count(vm);
  await exec(vm, `timeout 20 sh -c 'until [ $(cat /dev/shm/count) -gt ${before + 3} ]; do sleep 0.05; done'`);
  return before;
};

/** What doctor says of the guests' clocks. */
const clocks = async (): Promise<{ status: string; message: string; fix: string[][] } | undefined> =>
  (JSON.parse((await host.banger("doctor", "--json")).stdout) as { name: string }[]).find(
    ({ name }) => name === "guest clocks",
  ) as never;

test("a paused VM stands still, says so, and goes on with the right time", async () => {
  await startCounting("box");
  assert.equal((await clocks())?.status, "pass");
  await exec("box", "date -s '-3 hours' >/dev/null");
  const found = await clocks();
  assert.match(`${found?.status} ${found?.message}`, /^warn off by more than 2 s: box is \dh behind/);
  assert.deepEqual(found?.fix, [
    ["banger", "vm", "pause", "box"],
    ["banger", "vm", "resume", "box"],
  ]);
  await goesOn("box");
  await ok("vm", "pause", "box");
  assert.equal((await show("box")).state, "paused");
  await fails(/is paused[\s\S]*banger vm resume box/, "vm", "exec", "box", "--", "true");
  await ok("vm", "pause", "box");
  const daemon = await host.daemonPid();
  process.kill(daemon, "SIGKILL");
  await processEnds(daemon);
  assert.equal((await show("box")).state, "paused");
  await ok("vm", "resume", "box");
  await goesOn("box");
  const right = await clocks();
  assert.equal(right?.status, "pass", String(right?.message));
});

test("a snapshot is of one instant, its source goes on, and copies are machines of their own", async () => {
  await exec("box", "echo disk >/root/file && sync; echo memory >/dev/shm/file; echo unsynced >/root/late");
  const open = host.start(["vm", "exec", "box", "--", "sh", "-c", "echo open; cat"]);
  await outputHolds(open, "open");
  await ok("vm", "snapshot", "box", "--as", "ready");
  const at = await goesOn("box");
  await fails(
    /snapshot named ready already[\s\S]*banger snapshot delete ready/,
    "vm",
    "snapshot",
    "box",
    "--as",
    "ready",
  );
  await fails(/no snapshot "redy"[\s\S]*did you mean ready/, "vm", "restore", "redy");
  await exec("box", "echo changed >/root/file; rm /dev/shm/file; sync");
  await ok("vm", "restore", "ready", "--name", "copy");
  assert.equal(
    await exec("copy", "cat /root/file /dev/shm/file /root/late; echo $MINE; hostname"),
    "disk\nmemory\nunsynced\nyes\ncopy\n",
  );
  assert.ok((await goesOn("copy")) > 0);
  assert.ok((await count("box")) >= at);
  const copy = await show("copy");
  assert.equal(copy.restored, "snapshot");
  assert.deepEqual(copy.labels, { team: "a" });
  const off = await clockError(host, "copy");
  assert.ok(off <= 100, `${off} ms`);
  const identity =
    "cat /etc/machine-id /proc/sys/kernel/random/boot_id /sys/class/net/eth0/address; head -c 16 /dev/urandom | od -An -tx1";
  const [one, two] = (await Promise.all(["box", "copy"].map((name) => exec(name, identity)))).map((text) =>
    text.split("\n"),
  );
  for (const [index, line] of (one ?? []).entries()) if (line !== "") assert.notEqual(line, two?.[index] ?? line);
  // The copy knows nothing of the session; the source's goes on.
  open.stdin?.end("still here");
  assert.equal((await finish(open)).stdout.endsWith("still here"), true);

  // A snapshot of a copy holds what the copy has changed; deleting one does not touch what came of it.
  await exec("copy", "echo second >/dev/shm/file");
  await ok("vm", "snapshot", "copy", "--as", "second");
  const listed = await host.json<SnapshotInfo[]>("snapshot", "list");
  assert.deepEqual(
    listed.map(({ name, vm }) => [name, vm]),
    [
      ["ready", "box"],
      ["second", "copy"],
    ],
  );
  await ok("vm", "delete", "copy");
  await ok("snapshot", "delete", "ready");
  // What was exported and imported is as good as what was saved here; one that is damaged is listed, and can be deleted.
  const archive = join(host.env.HOME, "second.snapshot.tar.zst");
  await ok("snapshot", "export", "second", host.env.HOME);
  await ok("snapshot", "delete", "second");
  assert.equal((await ok("snapshot", "import", archive)).stdout, "second\n");
  await ok("vm", "restore", "second", "--name", "third");
  assert.equal((await show("third")).restored, "snapshot");
  await writeFile(join(state(), "snapshots", "second", "manifest.json"), "{");
  assert.match((await ok("snapshot", "list")).stdout, /second +\(damaged\)/);
  await ok("snapshot", "delete", "second");
  assert.equal(await exec("third", "cat /root/file /dev/shm/file"), "disk\nsecond\n");
  await goesOn("third");
  await ok("vm", "stop", "third");
  await ok("vm", "start", "third");
  assert.equal(await exec("third", "cat /root/file /root/late; ls /dev/shm"), "disk\nunsynced\n");
  await ok("vm", "delete", "third");
});

test("forks run at once and share what they do not write", async () => {
  const done = await ok("vm", "fork", "box", "-n", "5");
  const names = done.stdout.trim().split("\n");
  assert.deepEqual(
    names,
    [1, 2, 3, 4, 5].map((number) => `box-${number}`),
  );
  assert.match(done.stderr, /stood still for \d+ ms/);
  const told = await Promise.all(names.map((name) => exec(name, "hostname; cat /etc/machine-id")));
  assert.equal(new Set(told).size, 5);
  await exec("box-1", "echo one >/root/file && sync");
  assert.equal(await exec("box-2", "cat /root/file"), "changed\n");
  assert.deepEqual(await readdir(join(state(), "staging")), []);
  await ok("vm", "delete", ...names);
  await fails(/cannot|is stopped/, "vm", "fork", (await ok("vm", "create", "--name", "never")).stdout.trim());
  await ok("vm", "delete", "never");
});

test("a VM sleeps without memory and wakes by itself, as it was", async () => {
  await exec("box", "echo kept >/dev/shm/kept");
  const { pid = 0 } = await show("box");
  await ok("vm", "sleep", "box");
  assert.equal((await show("box")).state, "asleep");
  assert.equal(await processStartTime(pid), undefined);
  const daemon = await host.daemonPid();
  process.kill(daemon, "SIGKILL");
  await processEnds(daemon);
  assert.equal((await show("box")).state, "asleep");
  assert.equal(await exec("box", "cat /dev/shm/kept; hostname"), "kept\nbox\n");
  assert.equal((await show("box")).restored, "sleep");
  await goesOn("box");
  // What is written after waking is there after the next sleep too.
  await exec("box", "echo later >/dev/shm/later; echo disk >/root/later");
  await ok("vm", "sleep", "box");
  const both = await Promise.all([exec("box", "cat /dev/shm/later"), exec("box", "cat /root/later")]);
  assert.deepEqual(both, ["later\n", "disk\n"]);
});

test("a sleeping VM whose memory is damaged boots from its disk, and says so", async () => {
  await exec("box", "echo written >/root/written");
  await ok("vm", "sleep", "box");
  const { id } = await show("box");
  await truncate(join(state(), "vms", id, "asleep", "memory"), 1000);
  const started = await ok("vm", "start", "box");
  assert.match(started.stderr, /could not be woken \(.*memory is 1000 bytes long.*booted from its disk/);
  assert.equal(await exec("box", "cat /root/written"), "written\n");
  // Stopping wakes it first: its programs end as they would have.
  await exec("box", "echo kept >/dev/shm/kept");
  await ok("vm", "sleep", "box");
  await ok("vm", "restart", "box");
  assert.equal((await show("box")).restored, undefined);
  assert.equal(await exec("box", "cat /root/written; ls /dev/shm"), "written\n");
});

/** Another program in QEMU's place, while `work` runs. */
const withQemu = async (script: string, work: () => Promise<void>): Promise<void> => {
  const wrapper = join(host.env.HOME, "qemu");
  await writeFile(wrapper, `#!/bin/sh\n${script}\nexec qemu-system-x86_64 "$@"\n`, { mode: 0o755 });
  const config = join(host.env.XDG_CONFIG_HOME, "banger", "config.toml");
  const before = await readFile(config, "utf8");
  await writeFile(config, `qemu_bin = "${wrapper}"\n${before}`);
  await work();
  await writeFile(config, before);
};

test("where QEMU was upgraded, or ends as it loads, a VM boots from its disk, and says so", async () => {
  await ok("vm", "snapshot", "box", "--as", "older");
  await ok("vm", "sleep", "box");
  await withQemu('[ "$1" != --version ] || { echo "QEMU emulator version 99.1"; exit; }', async () => {
    const started = await ok("vm", "start", "box");
    assert.match(started.stderr, /could not be woken \(.*another VMM, CPU.*booted from its disk/);
    assert.equal(await exec("box", "cat /root/written"), "written\n");
    const restored = await ok("vm", "restore", "older", "--name", "newer");
    assert.match(restored.stderr, /another VMM, CPU.*booted from its disk/);
    assert.equal(await exec("newer", "cat /root/written; hostname"), "written\nnewer\n");
  });
  await withQemu('case "$*" in *-incoming*) kill -KILL $$ ;; esac', async () => {
    const restored = await ok("vm", "restore", "older", "--name", "lost");
    assert.match(restored.stderr, /could not be restored[\s\S]*booted from its disk/);
    assert.equal(await exec("lost", "cat /root/written; hostname"), "written\nlost\n");
  });
  await ok("vm", "delete", "newer", "lost");
  await ok("snapshot", "delete", "older");
});

/** A save is under way once its copy of the disk is there. */
const diskIsCopied = () => {
  const staging = join(state(), "staging");
  return folderHolds(staging, async () =>
    (await readdir(staging, { recursive: true })).some((path) => path.endsWith("disk.ext4")),
  );
};

test("a VMM that is killed while it is saved, and a save that is cancelled, leave nothing", async () => {
  await exec("box", "dd if=/dev/urandom of=/root/big bs=1M count=200 2>/dev/null");
  const { pid = 0 } = await show("box");
  const saving = host.start(["vm", "snapshot", "box", "--as", "half"]);
  await diskIsCopied();
  process.kill(pid, "SIGKILL");
  const done = await finish(saving);
  assert.equal(done.status, 1, done.stderr);
  assert.deepEqual(await host.json("snapshot", "list"), []);
  assert.deepEqual(await readdir(join(state(), "staging")), []);
  assert.equal((await show("box")).state, "stopped");
  await ok("vm", "start", "box");
  const cancelled = host.start(["vm", "snapshot", "box", "--as", "half"]);
  await diskIsCopied();
  cancelled.kill("SIGINT");
  assert.ok([0, 130].includes((await finish(cancelled)).status ?? -1));
  await ok("vm", "exec", "box", "--", "true");
  assert.deepEqual(await readdir(join(state(), "staging")), []);
  await ok("vm", "delete", "box");
});

test("a database that is written to while it is saved is whole in every copy, on a Debian with systemd", async () => {
  await ok(
    "vm",
    "run",
    "-d",
    "--name",
    "db",
    "--image",
    GOLDEN,
    "--vcpu",
    "2",
    "--memory",
    "512M",
    "--disk-size",
    "4G",
  );
  const writer = `import sqlite3
db = sqlite3.connect("/root/d.db"); db.execute("pragma journal_mode=wal"); db.execute("create table t (n integer primary key, x blob)")
n = 0
while True:
    n += 1
    with db: db.execute("insert into t values (?, randomblob(2000))", (n,))
    if n == 5: print("writing", flush=True)
`;
  await ok(
    "vm",
    "exec",
    "db",
    "--",
    "sh",
    "-c",
    `cat >/root/w.py <<'E'\n${writer}E\nsystemd-run --quiet --unit=writer python3 /root/w.py`,
  );
  await exec("db", "timeout 60 sh -c 'until journalctl -u writer | grep -q writing; do sleep 0.2; done'");
  const names = (await ok("vm", "fork", "db", "-n", "2")).stdout.trim().split("\n");
  // Its services stood still while it was saved, and nobody could read whose it is.
  const source = await exec("db", "cat /sys/fs/cgroup/*/cgroup.freeze | sort -u; cat /etc/hostname");
  assert.equal(source, "0\ndb\n");
  const check = `import sqlite3; db = sqlite3.connect("/root/d.db"); print(db.execute("pragma integrity_check").fetchone()[0], db.execute("select count(*) = max(n) and count(*) >= 5 from t").fetchone()[0])`;
  for (const name of names) {
    await exec(name, "systemctl is-active writer");
    assert.equal((await ok("vm", "exec", name, "--", "python3", "-c", check)).stdout, "ok 1\n");
    assert.equal((await ok("vm", "ssh", name, "--", "hostname")).stdout, `${name}\n`);
  }
  assert.equal((await stat(join(state(), "vms", (await show(names[0] ?? "")).id, "disk.ext4"))).size, 4 * 2 ** 30);
  await ok("vm", "delete", "db", ...names);
});
