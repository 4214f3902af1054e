/** Daemons that are replaced, hosts that restart, folders and databases that are lost: what runs is found again, what is gone is known, and only ours is removed. */
import assert from "node:assert/strict";
import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, before, test } from "node:test";
import type { Vm } from "../../src/contract/vms.ts";
import { processStartTime } from "../../src/host/proc.ts";
import { startProcess } from "../../src/host/process.ts";
import { installFixture } from "../support/fixture.ts";
import { finish, type Host, startBanger, testHost } from "../support/host.ts";
import { otherBuild } from "../support/other-build.ts";
import { folderHolds, processEnds } from "../support/wait.ts";

const SLIM = "debian-bookworm-slim";
let host: Host;

before(async () => {
  host = await testHost(`default_image_name = "${SLIM}"\n[vm_defaults]\nvcpu = 1\nmemory = "192M"\ndisk_size = "1G"\n`);
  await installFixture(host, [SLIM]);
  await ok("vm", "create", "--name", "box");
  await ok("vm", "create", "--name", "fox");
  await ok("vm", "start", "box", "fox");
});
after(() => host[Symbol.asyncDispose]());

const ok = async (...args: string[]): Promise<string> => {
  const done = await host.banger(...args);
  assert.equal(done.status, 0, done.stderr);
  return done.stdout;
};
const exec = (vm: string, ...argv: string[]) => ok("vm", "exec", vm, "--", ...argv);
const show = (name: string) => host.json<Vm>("vm", "show", name);
const state = () => join(host.env.XDG_STATE_HOME, "banger");
const runtime = () => join(host.env.XDG_RUNTIME_DIR, "banger");
const machines = async () =>
  (await host.processes()).filter(({ command }) => /qemu-system|passt|--filter-network/.test(command));
const kill = async (pid: number) => {
  process.kill(pid, "SIGKILL");
  await processEnds(pid);
};
const pidOf = async (name: string): Promise<number> => {
  const { pid } = await show(name);
  assert.ok(pid);
  return pid;
};

test("a daemon of another build is replaced while its VMs run and work", async () => {
  await exec("box", "sh", "-c", "echo here >/dev/shm/memory");
  const before = [await pidOf("box"), await pidOf("fox")];
  const daemon = await host.daemonPid();
  await using newer = await otherBuild(host.env);
  const run = (...args: string[]) => finish(startBanger(host.env, args, { binary: newer.binary }));
  const listed = await run("vm", "list", "--json");
  assert.equal(listed.status, 0, listed.stderr);
  assert.deepEqual(
    (JSON.parse(listed.stdout) as Vm[]).map(({ name, state, pid }) => [name, state, pid]),
    [
      ["box", "running", before[0]],
      ["fox", "running", before[1]],
    ],
  );
  await processEnds(daemon);
  const status = JSON.parse((await run("daemon", "status", "--json")).stdout) as { build: string };
  assert.equal(status.build, newer.id);
  assert.equal((await run("vm", "exec", "box", "--", "cat", "/dev/shm/memory")).stdout, "here\n");
  // And back: the program that the other tests use replaces that one.
  assert.equal(await exec("fox", "echo", "back"), "back\n");
});

test("what dead daemons left half done is removed, what is not banger's is not", async () => {
  await ok("daemon", "stop");
  const unknown = "ab".repeat(16);
  const ours = [
    join(runtime(), "bangerd.sock.0a1b"),
    join(runtime(), "vms", unknown, "qmp.sock"),
    join(state(), "vms", unknown, "vmm.log"),
    join(state(), "ssh", "known_hosts.4194304-0123456789ab.tmp"),
  ];
  const theirs = [
    join(runtime(), "bangerd.sock.mine"),
    join(runtime(), "vms", "notes"),
    join(state(), "vms", "notes"),
    join(state(), "vms", "cd".repeat(16), "disk.ext4"),
    join(state(), "ssh", "id_ed25519.backup.tmp"),
    join(state(), `known_hosts.${process.pid}-0123456789ab.tmp`),
  ];
  for (const path of [...ours, ...theirs]) {
    await mkdir(join(path, ".."), { recursive: true });
    await writeFile(path, "x");
  }
  await ok("vm", "list");
  const there = async (path: string) =>
    (await readdir(join(path, "..")).catch((): string[] => [])).includes(path.split("/").at(-1) ?? "");
  for (const path of ours) assert.equal(await there(path), false, path);
  for (const path of theirs) assert.equal(await there(path), true, path);
  for (const path of theirs) await rm(path);
  await rm(join(state(), "vms", "cd".repeat(16)), { recursive: true });
});

test("passt that stands still does not outlive its VM", async () => {
  const helpers = (await machines()).filter(({ command }) => !command.includes("qemu-system"));
  assert.equal(helpers.length, 4, "passt and its filter for each VM");
  for (const { pid } of helpers) process.kill(pid, "SIGSTOP");
  await ok("vm", "kill", "fox");
  await kill(await pidOf("box"));
  for (const { pid } of helpers) await processEnds(pid);
  assert.deepEqual(await machines(), []);
  await ok("vm", "start", "box", "fox");
});

test("after a restart of the host all VMs are stopped and none is lost, and who has their numbers now is left alone", async () => {
  await exec("box", "sh", "-c", "echo safe >/root/kept; sync /root/kept");
  const pids = [await pidOf("box"), await pidOf("fox")];
  await kill(await host.daemonPid());
  for (const pid of pids) await kill(pid);
  for (const { pid } of await machines()) await processEnds(pid);
  await using stranger = await startProcess({ argv: ["sleep", "600"] });
  const database = new DatabaseSync(join(state(), "banger.db"), { timeout: 5000 });
  const started = await processStartTime(stranger.pid);
  const helpers = JSON.stringify([{ pid: stranger.pid, startTime: started }]);
  database
    .prepare("UPDATE vms SET host_boot = ?, pid = ?, pid_start = ?, helpers = ?")
    .run("00000000-0000-0000-0000-000000000000", stranger.pid, started ?? "", helpers);
  database.close();
  await rm(runtime(), { recursive: true });
  for (const name of ["box", "fox"]) {
    const vm = await show(name);
    assert.deepEqual([vm.state, vm.reason, vm.pid], ["stopped", "the host was restarted", undefined]);
  }
  assert.equal(await processStartTime(stranger.pid), started);
  await ok("vm", "start", "box", "fox");
  assert.equal(await exec("box", "cat", "/root/kept"), "safe\n");
});

test("VMs whose runtime folder is gone or full of rubbish go on, are told of, and can be stopped and started", async () => {
  const [box, fox] = [await show("box"), await show("fox")];
  await kill(await host.daemonPid());
  await rm(join(runtime(), "vms", box.id), { recursive: true });
  for (const name of ["agent.sock", "qmp.sock", "console.sock"]) {
    await rm(join(runtime(), "vms", fox.id, name));
    await writeFile(join(runtime(), "vms", fox.id, name), "rubbish");
  }
  await rm(join(runtime(), "bangerd.sock"));
  await writeFile(join(runtime(), "bangerd.sock"), "rubbish");
  assert.deepEqual([(await show("box")).pid, (await show("fox")).pid], [box.pid, fox.pid]);
  const refused = await host.banger("vm", "exec", "fox", "--", "true");
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /banger vm stop fox/);
  assert.equal(await ok("vm", "stop", "box", "fox"), "box\nfox\n");
  assert.deepEqual(await machines(), []);
  // A file where a folder belongs.
  await ok("daemon", "stop");
  await rm(join(runtime(), "vms"), { recursive: true });
  await writeFile(join(runtime(), "vms"), "rubbish");
  await ok("vm", "start", "box", "fox");
  assert.equal(await exec("box", "echo", "works"), "works\n");
});

test("machines whose record was lost shut down with their data, and their disks stay", async () => {
  const ids = [(await show("box")).id, (await show("fox")).id];
  await exec("box", "sh", "-c", "echo not synced >/root/unsynced");
  const pids = [await pidOf("box"), await pidOf("fox")];
  await kill(await host.daemonPid());
  for (const name of ["banger.db", "banger.db-wal", "banger.db-shm"])
    await rename(join(state(), name), join(state(), `kept-${name}`)).catch(() => undefined);
  assert.deepEqual(await host.json("vm", "list"), []);
  for (const pid of pids) await processEnds(pid);
  await folderHolds(runtime(), async () => (await readdir(join(runtime(), "vms"))).length === 0);
  assert.deepEqual((await readdir(join(state(), "vms"))).sort(), [...ids].sort());
  await ok("daemon", "stop");
  for (const name of await readdir(state())) {
    if (name.startsWith("banger.db")) await rm(join(state(), name));
    if (name.startsWith("kept-")) await rename(join(state(), name), join(state(), name.slice("kept-".length)));
  }
  assert.equal((await show("box")).state, "stopped");
  await ok("vm", "start", "box");
  assert.equal(await exec("box", "cat", "/root/unsynced"), "not synced\n");
});

test("a damaged database is named with what to do, and VMs go on", async () => {
  const pid = await pidOf("box");
  await kill(await host.daemonPid());
  const files = (await readdir(state())).filter((name) => name.startsWith("banger.db"));
  for (const name of files) await rename(join(state(), name), join(state(), `kept-${name}`));
  await writeFile(join(state(), "banger.db"), "no database, and too long to be an empty one ".repeat(200));
  const refused = await host.banger("vm", "list");
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /banger\.db is damaged[\s\S]*mv '.*banger\.db'/);
  const doctor = JSON.parse((await host.banger("doctor", "--json")).stdout) as { name: string; status: string }[];
  assert.equal(doctor.find(({ name }) => name === "state database")?.status, "fail");
  assert.notEqual(await processStartTime(pid), undefined);
  for (const name of files) await rename(join(state(), `kept-${name}`), join(state(), name));
  assert.equal((await show("box")).pid, pid);
  assert.equal(await exec("box", "echo", "still"), "still\n");
});

test("a database of a later version is refused by an older program, and VMs go on", async () => {
  const pid = await pidOf("box");
  await ok("daemon", "stop");
  const set = (version: number) => {
    const database = new DatabaseSync(join(state(), "banger.db"), { timeout: 5000 });
    const before = Number(database.prepare("PRAGMA user_version").get()?.user_version);
    database.exec(`PRAGMA user_version = ${version}`);
    database.close();
    return before;
  };
  const version = set(999);
  const refused = await host.banger("vm", "list");
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /written by a later version of banger[\s\S]*update banger/);
  assert.notEqual(await processStartTime(pid), undefined);
  set(version);
  assert.equal((await show("box")).pid, pid);
});
